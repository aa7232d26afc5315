/**
 * LFM2 and LFM2.5: `<|tool_call_start|>[f(a="x"), g(b=1)]<|tool_call_end|>`; asked for JSON, LFM2.5 writes
 * that between the same markers.
 * Source: the chat templates and model cards of LiquidAI/LFM2.
 */
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar } from '../json-grammar.ts';
import { pythonCalls } from '../python-calls.ts';
import type { Family } from './family.ts';
import { pythonGrammar } from './llama.ts';

const open = '<|tool_call_start|>';
const close = '<|tool_call_end|>';

const python = pythonCalls({
  openers: [open],
  closers: [close],
  nameEnds: ['('],
  grammar: pythonGrammar(open, close, [open]),
});

const json = jsonCalls({
  openers: [open],
  closers: [close],
  grammar: jsonGrammar({ begin: `${open}[`, between: ', ', end: `]${close}`, triggers: [open] }),
});

export const lfm: Family = {
  name: 'lfm2',
  matches: (template) =>
    template.includes(open) ||
    template.includes('<|tool_list_start|>') ||
    template.includes('List of tools: ['),
  calls: () => [python, json],
  stops: ['<|im_end|>'],
};
