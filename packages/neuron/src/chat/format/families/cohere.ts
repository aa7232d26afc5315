/**
 * Command-R and R+: `Action:` and a fenced JSON list of `tool_name` and `parameters`. Command-R7B, Command-A
 * and later: `<|START_ACTION|>[...]<|END_ACTION|>`, thoughts and answers between tokens too.
 * Source: the chat templates of CohereForAI/c4ai-command-r-plus and c4ai-command-r7b-12-2024.
 */
import type { CallGrammar } from '../chat-format.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar, text } from '../json-grammar.ts';
import type { Family } from './family.ts';
import { cohereThinking } from './reasoning.ts';

const begin = '<|START_ACTION|>[\n';

const actionGrammar: CallGrammar = {
  begin,
  between: ',\n',
  end: '\n]<|END_ACTION|>',
  triggers: ['<|START_ACTION|>'],
  isParallel: true,
  call: ({ name }) => [
    text('    {"tool_call_id": "'),
    { kind: 'pattern', gbnf: '[0-9]{1,3}' },
    text(`", "tool_name": ${JSON.stringify(name)}, "parameters": `),
    { kind: 'arguments' },
    text('}'),
  ],
};

export const commandA: Family = {
  name: 'command-a',
  matches: (template) => template.includes('<|START_ACTION|>'),
  calls: () => [
    jsonCalls({
      openers: ['<|START_ACTION|>'],
      closers: ['<|END_ACTION|>'],
      grammar: actionGrammar,
    }),
  ],
  callsEndReasoning: true,
  stops: ['<|END_OF_TURN_TOKEN|>'],
  reasoning: [cohereThinking],
  dropped: ['<|START_RESPONSE|>', '<|END_RESPONSE|>', '<|START_TEXT|>', '<|END_TEXT|>'],
};

export const commandR: Family = {
  name: 'command-r',
  matches: (template) => template.includes('<|CHATBOT_TOKEN|>'),
  calls: () => [
    jsonCalls({
      openers: ['Action:'],
      closers: ['```'],
      fence: '```json',
      grammar: jsonGrammar({
        begin: 'Action:\n```json\n[\n',
        between: ',\n',
        end: '\n]\n```',
        nameKey: 'tool_name',
        argumentsKey: 'parameters',
        // "Action:" alone begins many an English line.
        triggers: ['Action:\n```json'],
      }),
    }),
  ],
  stops: ['<|END_OF_TURN_TOKEN|>'],
};
