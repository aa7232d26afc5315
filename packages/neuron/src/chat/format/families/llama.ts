/**
 * Llama 3.1 to 3.3: a bare `{"name": ..., "parameters": {...}}` that begins the answer, `;` between several;
 * or `<|python_tag|>` and then such an object, a built-in tool (`brave_search.call(query="...")`) or plain
 * Python for a tool that runs it. Llama 4: `[f(a=1), g()]`, bare or between `<|python_start|>` and
 * `<|python_end|>`.
 * Source: the chat templates of meta-llama/Llama-3.1 and 3.2, Meta's prompt-format pages.
 */
import type { CallForm, CallGrammar } from '../chat-format.ts';
import { rejection, type Steps } from '../cursor.ts';
import { jsonCalls } from '../json-calls.ts';
import { jsonGrammar, text } from '../json-grammar.ts';
import { pythonCalls, readCode } from '../python-calls.ts';
import type { Turn } from '../turn.ts';
import type { Family } from './family.ts';

const pythonTag = '<|python_tag|>';
/** Names under which clients offer the tool that Llama knows as its code interpreter. */
const codeTools = ['python', 'ipython', 'code_interpreter'];

export const bareJson: CallForm = jsonCalls({
  openers: ['{'],
  closers: [],
  where: 'start',
  grammar: jsonGrammar({ argumentsKey: 'parameters', between: '; ', triggers: [] }),
});

const builtin = pythonCalls({
  openers: [''],
  closers: [],
  nameEnds: ['.call('],
  grammar: bareJson.grammar,
});

/** What follows `<|python_tag|>`. */
export const pythonTagCalls: CallForm = {
  openers: [pythonTag],
  where: 'anywhere',
  closers: ['<|eom_id|>', '<|eot_id|>'],
  grammar: bareJson.grammar,
  *read(turn: Turn): Steps {
    const { cursor } = turn;
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf(['{'])) !== null) return yield* bareJson.read(turn, '{');
    const builtins = turn.tools.names.map((name) => `${name}.call(`);
    if ((yield* cursor.lookingAt(builtins)) !== null) return yield* builtin.read(turn, '');
    const tool = codeTools.map((name) => turn.tools.find(name)).find((each) => each !== undefined);
    if (tool === undefined || (yield* cursor.peek()) === '') throw rejection;
    yield* readCode(turn, tool);
  },
};

export const llama: Family = {
  name: 'llama3',
  matches: (template) =>
    template.includes(pythonTag) ||
    (template.includes('<|start_header_id|>') && template.includes('"parameters"')),
  calls: () => [bareJson, pythonTagCalls],
  stops: ['<|eom_id|>', '<|eot_id|>'],
};

/**
 * The grammar of `[f(a=1), g(b="x")]`; values in JSON's spelling, which models of this kind know as well.
 */
export function pythonGrammar(begin: string, end: string, triggers: readonly string[]): CallGrammar {
  return {
    begin: `${begin}[`,
    between: ', ',
    end: `]${end}`,
    triggers,
    isParallel: true,
    call: ({ name }) => [
      text(`${name}(`),
      {
        kind: 'parameters',
        style: { open: (key) => `${key}=`, close: '', between: ', ', values: 'json' },
      },
      text(')'),
    ],
  };
}

export const bareList: CallForm = pythonCalls({
  openers: ['['],
  closers: [],
  where: 'start',
  nameEnds: ['('],
  isList: true,
  grammar: pythonGrammar('', '', []),
});

const pythonStart = pythonCalls({
  openers: ['<|python_start|>'],
  closers: ['<|python_end|>'],
  nameEnds: ['('],
  grammar: pythonGrammar('<|python_start|>', '<|python_end|>', ['<|python_start|>']),
});

export const llama4: Family = {
  name: 'llama4',
  matches: (template) => template.includes('<|python_start|>') || template.includes('<|header_start|>'),
  calls: () => [bareList, pythonStart, bareJson],
  stops: ['<|eom|>', '<|eot|>'],
};
