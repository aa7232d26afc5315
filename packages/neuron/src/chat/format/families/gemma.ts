/**
 * Gemma. Gemma 3 has no tokens for calls and no tools in its template: Google's guide has the model answer
 * with `[f(a=1)]`, with a fenced `tool_code` block of Python, or with `{"name": ..., "parameters": ...}`;
 * all are read. Gemma 4: `<|tool_call>call:f{...}<tool_call|>` and a thought channel. FunctionGemma: the
 * same with other tokens.
 * Source: Google's function-calling guides for Gemma 3 and FunctionGemma, the chat template of
 * google/gemma-4.
 */
import type { CallForm, CallGrammar, ToolDescription } from '../chat-format.ts';
import { gemmaCalls } from '../gemma-calls.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar, text } from '../json-grammar.ts';
import { pythonCalls } from '../python-calls.ts';
import type { Family } from './family.ts';
import { fencedJson } from './generic.ts';
import { bareJson, bareList, pythonGrammar } from './llama.ts';
import { gemmaThought } from './reasoning.ts';

function grammar(open: string, close: string, quote: string): CallGrammar {
  return {
    begin: '',
    between: '',
    end: '',
    triggers: [open],
    isParallel: true,
    call: ({ name }) => [
      text(`${open}call:${name}{`),
      {
        kind: 'parameters',
        style: { open: (key) => `${key}:`, close: '', between: ',', values: 'gemma', quote },
      },
      text(`}${close}`),
    ],
  };
}

export const gemma4: Family = {
  name: 'gemma4',
  matches: (template) => template.includes('<|tool_call>call:') || template.includes('<|tool_call>'),
  calls: () => [
    gemmaCalls({
      open: '<|tool_call>',
      close: '<tool_call|>',
      quote: '<|"|>',
      grammar: grammar('<|tool_call>', '<tool_call|>', '<|"|>'),
    }),
  ],
  callsEndReasoning: true,
  stops: ['<turn|>', '<|tool_response>'],
  reasoning: [gemmaThought],
  // Gemma 4 closes a channel at times that it did not open.
  dropped: [gemmaThought.close],
};

export const functionGemma: Family = {
  name: 'function-gemma',
  matches: (template) => template.includes('<start_function_call>'),
  calls: () => [
    gemmaCalls({
      open: '<start_function_call>',
      close: '<end_function_call>',
      quote: '<escape>',
      grammar: grammar('<start_function_call>', '<end_function_call>', '<escape>'),
    }),
  ],
  callsEndReasoning: true,
  stops: ['<end_of_turn>', '<start_function_response>'],
};

const toolCode: CallForm = pythonCalls({
  openers: ['```tool_code'],
  closers: ['```'],
  nameEnds: ['('],
  grammar: pythonGrammar('```tool_code\n', '\n```', ['```tool_code']),
});

const gemmaJson: CallForm = jsonCalls({
  openers: ['{'],
  closers: [],
  where: 'start',
  grammar: jsonGrammar({ argumentsKey: 'parameters', between: '\n', triggers: [] }),
});

export const gemma3: Family = {
  name: 'gemma3',
  matches: (template) => template.includes('<start_of_turn>'),
  calls: () => [gemmaJson, toolCode, fencedJson('parameters'), bareList, bareJson],
  stops: ['<end_of_turn>'],
  describeTools: (tools: readonly ToolDescription[]) =>
    'You have access to functions. If you decide to call any of them, answer with JSON only, in the form\n' +
    '{"name": the function\'s name, "parameters": an object of argument names and values}\n' +
    'and with nothing before or after it. Otherwise answer as usual.\n' +
    tools.map((tool) => JSON.stringify(tool)).join('\n'),
};
