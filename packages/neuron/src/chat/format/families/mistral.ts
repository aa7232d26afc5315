/**
 * Mistral. Up to Nemo `[TOOL_CALLS][{"name": ..., "arguments": ..., "id": "..."}]`; since Small 3.1
 * `[TOOL_CALLS]NAME[ARGS]{...}` for each call, in some with `[CALL_ID]` before the arguments. Ids are nine
 * characters; the old form writes them behind the arguments, when the call has long gone out with one of
 * ours.
 * Source: the chat templates of mistralai/Mistral-Nemo and Mistral-Small-3.2, mistral-common's tokenizers.
 */
import type { CallForm } from '../chat-format.ts';
import type { Steps } from '../cursor.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar, text } from '../json-grammar.ts';
import { type NamedCall, namedCalls, readToolName, readUntil } from '../named-calls.ts';
import type { Turn } from '../turn.ts';
import type { Family } from './family.ts';
import { thinkToken } from './reasoning.ts';

const open = '[TOOL_CALLS]';
const callIdLengthMax = 64;

function* readName(turn: Turn): Steps<NamedCall> {
  const [tool, end] = yield* readToolName(turn, ['[ARGS]', '[CALL_ID]', '{']);
  if (end === '[CALL_ID]') {
    const [id] = yield* readUntil(turn.cursor, ['[ARGS]'], callIdLengthMax);
    return { tool, id };
  }
  // Small 3.1's own template has nothing between name and arguments.
  if (end === '{') turn.cursor.take(-1);
  return { tool };
}

const oldCalls = jsonCalls({
  openers: [open],
  closers: ['</s>'],
  grammar: jsonGrammar({ begin: `${open}[`, between: ', ', end: ']', triggers: [open] }),
});

function newCalls(hasCallId: boolean): CallForm {
  const ids = hasCallId ? [text('[CALL_ID]'), { kind: 'pattern', gbnf: '[a-zA-Z0-9]{9}' } as const] : [];
  return namedCalls({
    callOpen: open,
    callClose: ['</s>'],
    readName,
    grammar: {
      begin: '',
      between: '',
      end: '',
      triggers: [open],
      isParallel: true,
      call: ({ name }) => [text(`${open}${name}`), ...ids, text('[ARGS]'), { kind: 'arguments' }],
    },
  });
}

export const mistral: Family = {
  name: 'mistral',
  matches: (template) => template.includes(open),
  calls: (template) => {
    const named = newCalls(template.includes('[CALL_ID]'));
    return [...(template.includes('[ARGS]') ? [named, oldCalls] : [oldCalls, named])];
  },
  stops: [],
  reasoning: [thinkToken],
  idStyle: 'nine',
};
