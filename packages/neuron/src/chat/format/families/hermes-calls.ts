/**
 * `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form that most other families fall back on.
 */
import type { CallForm } from '../chat-format.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar } from '../json-grammar.ts';

export const hermesCalls: CallForm = jsonCalls({
  openers: ['<tool_call>'],
  closers: ['</tool_call>'],
  grammar: jsonGrammar({
    before: '<tool_call>\n',
    after: '\n</tool_call>',
    between: '\n',
    triggers: ['<tool_call>'],
  }),
});
