/**
 * Models without a form of their own: told in the system text to answer with JSON in `<tool_call>`, and read
 * in every common form, because a model falls back on what it was trained on: bare, fenced, in other tags.
 */
import type { CallForm, ToolDescription } from '../chat-format.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar } from '../json-grammar.ts';
import type { Family } from './family.ts';
import { hermesCalls } from './hermes-calls.ts';

/** A code fence with a call in it; any other fence stays text. */
export function fencedJson(argumentsKey: string): CallForm {
  return jsonCalls({
    openers: ['```json', '```tool_call', '```tool_calls'],
    closers: ['```'],
    grammar: jsonGrammar({ before: '```json\n', after: '\n```', argumentsKey, between: '\n', triggers: [] }),
  });
}

const bare = jsonCalls({
  openers: ['{', '['],
  closers: [],
  where: 'start',
  grammar: jsonGrammar({ between: '\n', triggers: [] }),
});

const tags = jsonCalls({
  openers: ['<tool_calls>', '<function_call>', '<tools>', '<|tool_call|>'],
  closers: ['</tool_calls>', '</function_call>', '</tools>', '<|/tool_call|>'],
  grammar: jsonGrammar({ triggers: [] }),
});

export const generic: Family = {
  name: 'generic',
  matches: () => true,
  calls: () => [hermesCalls, bare, fencedJson('arguments'), tags],
  stops: [],
  describeTools: genericToolText,
};

export function genericToolText(tools: readonly ToolDescription[]): string {
  return [
    'You can call functions. Here are their signatures, one JSON object a line:',
    '<tools>',
    ...tools.map((tool) => JSON.stringify({ type: 'function', function: tool })),
    '</tools>',
    'To call one, answer with a JSON object inside tool_call tags, once for each call:',
    '<tool_call>',
    '{"name": <name of the function>, "arguments": <object with its arguments>}',
    '</tool_call>',
    'Call a function only when it helps to answer; otherwise answer in plain text.',
  ].join('\n');
}
