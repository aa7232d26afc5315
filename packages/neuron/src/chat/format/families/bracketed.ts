/**
 * Families whose calls are a JSON list between two markers: Nemotron (`<TOOLCALL>[...]</TOOLCALL>`), Apriel
 * and MiniMax M1 (`<tool_calls>`), GigaChat 3 (one object), Apertus (`<|tools_prefix|>[{"NAME":
 * {...}}]<|tools_suffix|>`).
 * Source: the chat templates of nvidia/NVIDIA-Nemotron-Nano-9B-v2, ServiceNow-AI/Apriel-1.5,
 * MiniMaxAI/MiniMax-M1 and swiss-ai/Apertus-8B-Instruct.
 */
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar, text } from '../json-grammar.ts';
import type { Family } from './family.ts';

function bracketed(name: string, open: string, close: string, stops: readonly string[]): Family {
  return {
    name,
    matches: (template) => template.includes(open),
    calls: () => [
      jsonCalls({
        openers: [open],
        closers: [close],
        grammar: jsonGrammar({ begin: `${open}[`, between: ', ', end: `]${close}`, triggers: [open] }),
      }),
    ],
    stops,
  };
}

export const nemotron = bracketed('nemotron', '<TOOLCALL>', '</TOOLCALL>', ['<SPECIAL_12>', '<|eot_id|>']);
export const toolCallsTag: Family = {
  ...bracketed('tool-calls-tag', '<tool_calls>', '</tool_calls>', ['<|end|>', '<end_of_sentence>']),
  // Apriel 1.6 closes what it opened with its reasoning's end.
  dropped: ['[END FINAL RESPONSE]'],
};

/** One call a turn; 3.0 writes it as a message of its own, 3.1 behind a token. */
export const gigachat: Family = {
  name: 'gigachat',
  matches: (template) => template.includes('<|role_sep|>') && template.includes('<|message_sep|>'),
  calls: (template) => {
    const [message, token] = ['<|message_sep|>\n\nfunction call<|role_sep|>\n', '<|function_call|>'];
    const own = template.includes(token) ? token : message;
    return [
      jsonCalls({
        openers: [message, token],
        closers: ['<|message_sep|>'],
        grammar: jsonGrammar({ before: own, triggers: [own], isParallel: false }),
      }),
    ];
  },
  stops: [],
};

export const apertus: Family = {
  name: 'apertus',
  matches: (template) => template.includes('<|tools_prefix|>'),
  calls: () => [
    jsonCalls({
      openers: ['<|tools_prefix|>'],
      closers: ['<|tools_suffix|>'],
      nameIsKey: true,
      grammar: {
        begin: '<|tools_prefix|>[',
        between: ', ',
        end: ']<|tools_suffix|>',
        triggers: ['<|tools_prefix|>'],
        isParallel: true,
        call: ({ name }) => [text(`{${JSON.stringify(name)}: `), { kind: 'arguments' }, text('}')],
      },
    }),
  ],
  stops: ['<|assistant_end|>'],
  reasoning: [{ open: '<|inner_prefix|>', close: '<|inner_suffix|>', anywhere: true }],
};
