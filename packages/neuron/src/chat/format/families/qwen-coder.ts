/**
 * Calls with a tag per parameter: Qwen3-Coder, Qwen3.5, Nemotron 3 and StepFun in `<tool_call>`, Seed-OSS in
 * `<seed:tool_call>`. Qwen3-Coder leaves `<tool_call>` out at times, and `</function>` closes either way.
 * Source: the chat templates of Qwen/Qwen3-Coder and ByteDance-Seed/Seed-OSS.
 */
import type { CallForm, CallGrammar } from '../chat-format.ts';
import { text } from '../json-grammar.ts';
import { taggedCalls } from '../tagged-calls.ts';
import type { Family } from './family.ts';
import { hermesCalls } from './hermes-calls.ts';

function grammar(open: string, close: string, line: string): CallGrammar {
  return {
    begin: '',
    between: '\n',
    end: '',
    triggers: [open],
    isParallel: true,
    call: ({ name }) => [
      text(`${open}\n<function=${name}>\n`),
      {
        kind: 'parameters',
        style: {
          open: (key) => `<parameter=${key}>${line}`,
          close: `${line}</parameter>`,
          between: '\n',
          values: 'bare',
        },
      },
      text(`\n</function>\n${close}`),
    ],
  };
}

function calls(open: string, close: string, isFramed: boolean): CallForm {
  return taggedCalls({
    section: { open, close },
    callOpen: '<function=',
    alsoOpens: ['<function='],
    nameEnds: ['>'],
    callClose: '</function>',
    parameterOpen: '<parameter=',
    keyEnds: ['>'],
    valueOpen: '',
    valueClose: '</parameter>',
    isFramed,
    grammar: grammar(open, close, isFramed ? '\n' : ''),
  });
}

export const qwenCoderCalls = calls('<tool_call>', '</tool_call>', true);

export const qwenCoder: Family = {
  name: 'qwen-coder',
  matches: (template) =>
    template.includes('<tool_call>') && template.includes('<function=') && template.includes('<parameter='),
  calls: () => [qwenCoderCalls, hermesCalls],
  callsEndReasoning: true,
  stops: ['<|im_end|>'],
};

export const seed: Family = {
  name: 'seed-oss',
  matches: (template) => template.includes('<seed:tool_call>'),
  calls: () => [calls('<seed:tool_call>', '</seed:tool_call>', false)],
  callsEndReasoning: true,
  stops: ['<seed:eos>'],
  reasoning: [{ open: '<seed:think>', close: '</seed:think>', anywhere: false }],
};
