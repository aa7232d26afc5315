/**
 * Granite 3.x: `<|tool_call|>[{"name": ..., "arguments": ...}]`, thoughts under headings (3.2) or in
 * `<think>` with the answer in `<response>` (3.3). Granite 4 writes calls as Hermes does. Phi-4-mini:
 * `<|tool_call|>[{...}]<|/tool_call|>`, in some builds `functools[{...}]`.
 * Source: the chat templates of ibm-granite/granite-3.3 and microsoft/Phi-4-mini-instruct.
 */
import type { CallForm } from '../chat-format.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar } from '../json-grammar.ts';
import type { Family } from './family.ts';
import { functoolsCalls } from './functionary.ts';
import { hermesCalls } from './hermes-calls.ts';

const open = '<|tool_call|>';

/** Granite's token is text in some conversions of its vocabulary. */
const graniteCalls: CallForm = jsonCalls({
  openers: [open, '<tool_call>'],
  closers: ['</tool_call>'],
  grammar: jsonGrammar({ begin: `${open}[`, between: ', ', end: ']', triggers: [open] }),
});

export const granite: Family = {
  name: 'granite',
  matches: (template) => template.includes('<|start_of_role|>'),
  calls: (template) => (template.includes('</tool_call>') ? [hermesCalls, graniteCalls] : [graniteCalls]),
  stops: ['<|end_of_text|>'],
  answerFrame: { open: '<response>', close: '</response>' },
};

export const phi: Family = {
  name: 'phi4',
  matches: (template) =>
    template.includes('<|/tool_call|>') || template.includes(open) || template.includes('<|/tool|>'),
  calls: () => [
    jsonCalls({
      openers: [open],
      closers: ['<|/tool_call|>'],
      grammar: jsonGrammar({ begin: `${open}[`, between: ', ', end: ']<|/tool_call|>', triggers: [open] }),
    }),
    functoolsCalls,
  ],
  stops: ['<|end|>'],
};
