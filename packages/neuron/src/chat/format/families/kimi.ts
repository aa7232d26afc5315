/**
 * Kimi K2: a section of `<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{...}`. The id
 * is the model's own. Kimi K2 Thinking calls without closing its thoughts at times.
 * Source: the chat template of moonshotai/Kimi-K2-Instruct and its tool-call guide.
 */
import type { Steps } from '../cursor.ts';
import { rejection } from '../cursor.ts';
import { text } from '../json-grammar.ts';
import { type NamedCall, namedCalls, readUntil } from '../named-calls.ts';
import type { Turn } from '../turn.ts';
import type { Family } from './family.ts';

const argumentBegin = '<|tool_call_argument_begin|>';

function* readName(turn: Turn): Steps<NamedCall> {
  const [given] = yield* readUntil(turn.cursor, [argumentBegin], turn.tools.nameLengthMax + 16);
  const id = given.trim();
  const tool = turn.tools.find(id.replace(/:\d+$/, ''));
  if (tool === undefined) throw rejection;
  return { tool, id: /:\d+$/.test(id) ? id : undefined };
}

export const kimi: Family = {
  name: 'kimi',
  matches: (template) => template.includes('<|tool_call_begin|>'),
  calls: () => [
    namedCalls({
      section: { open: '<|tool_calls_section_begin|>', close: '<|tool_calls_section_end|>' },
      callOpen: '<|tool_call_begin|>',
      callClose: ['<|tool_call_end|>'],
      readName,
      grammar: {
        begin: '<|tool_calls_section_begin|>',
        between: '',
        end: '<|tool_calls_section_end|>',
        triggers: ['<|tool_calls_section_begin|>'],
        isParallel: true,
        call: ({ name }) => [
          text(`<|tool_call_begin|>functions.${name}:`),
          { kind: 'pattern', gbnf: '[0-9]{1,3}' },
          text(argumentBegin),
          { kind: 'arguments' },
          text('<|tool_call_end|>'),
        ],
      },
    }),
  ],
  callsEndReasoning: true,
  stops: ['<|im_end|>'],
  idStyle: 'kimi',
};
