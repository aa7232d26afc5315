/**
 * Functionary. v3.1 (Llama 3.1): `<function=NAME>{...}</function>`, and code behind `<|python_tag|>`. v3.2:
 * the turn is a row of messages `>>>RECIPIENT\nBODY`; `all` is the user, every other recipient a tool; the
 * prompt ends with the first `>>>`.
 * Source: the chat templates of meetkai/functionary-medium-v3.1 and v3.2.
 */
import { attempt } from '../attempt.ts';
import type { CallForm, ChatFormat } from '../chat-format.ts';
import { Markers, rejection, type Steps } from '../cursor.ts';
import { jsonCalls } from '../json-calls.ts';
import { text } from '../json-grammar.ts';
import { copyJson } from '../json-value.ts';
import { namedCalls, readToolName } from '../named-calls.ts';
import { readCode } from '../python-calls.ts';
import type { Turn } from '../turn.ts';
import type { Family } from './family.ts';
import { pythonTagCalls } from './llama.ts';

const functionCalls = namedCalls({
  callOpen: '<function=',
  callClose: ['</function>'],
  *readName(turn) {
    const [tool] = yield* readToolName(turn, ['>']);
    return { tool };
  },
  grammar: {
    begin: '',
    between: '',
    end: '',
    triggers: ['<function='],
    isParallel: true,
    call: ({ name }) => [text(`<function=${name}>`), { kind: 'arguments' }, text('</function>')],
  },
});

export const functionary31: Family = {
  name: 'functionary-v3.1',
  matches: (template) =>
    template.includes('<function=') && !template.includes('<parameter=') && template.includes('</function>'),
  calls: () => [functionCalls, pythonTagCalls],
  stops: ['<|eom_id|>', '<|eot_id|>'],
};

const next = '>>>';

/** Behind `>>>` (or where the turn begins): a recipient that is a tool, its line end, its arguments. */
const recipientCalls: CallForm = {
  openers: [next, ''],
  where: 'start',
  closers: [next],
  *read(turn: Turn): Steps {
    const { cursor } = turn;
    const [tool] = yield* readToolName(turn, ['\n']);
    yield* cursor.takeBlanks();
    const first = yield* cursor.peek();
    if (first === '{') {
      turn.startCall(tool);
      yield* copyJson(cursor, turn.callArguments);
      turn.endCall();
      yield* cursor.takeBlanks();
    } else if (tool.name === 'python' && first !== '') yield* readCode(turn, tool);
    else throw rejection;
  },
  grammar: {
    begin: '',
    between: next,
    end: '',
    triggers: [],
    isParallel: true,
    call: ({ name }) => [text(`${name}\n`), { kind: 'arguments' }],
  },
};

function* readMessages(turn: Turn, format: ChatFormat): Steps {
  const { cursor } = turn;
  const markers = new Markers([next]);
  let opener = (yield* cursor.lookingAt([next])) ?? '';
  for (;;) {
    if ((yield* cursor.takeOneOf([`${opener}all\n`])) !== null) turn.marker('content');
    else if (!turn.tools.isEmpty) yield* attempt(turn, format.calls, opener, 'content');
    else turn.text('content', cursor.take(opener.length));
    if ((yield* cursor.until(markers, (piece) => turn.text('content', piece))) === null) return;
    opener = next;
  }
}

export const functionary32: Family = {
  name: 'functionary-v3.2',
  matches: (template) => template.includes('>>>all'),
  calls: () => [recipientCalls],
  stops: ['<|eot_id|>'],
  readTurn: readMessages,
};

/** FireFunction v2 and Phi's older fine-tunes: ` functools[{...}, ...]`. */
export const functoolsCalls: CallForm = jsonCalls({
  openers: ['functools'],
  closers: [],
  grammar: {
    begin: ' functools[',
    between: ', ',
    end: ']',
    triggers: [' functools['],
    isParallel: true,
    call: ({ name }) => [
      text(`{"name": ${JSON.stringify(name)}, "arguments": `),
      { kind: 'arguments' },
      text('}'),
    ],
  },
});

export const functools: Family = {
  name: 'functools',
  matches: (template) => template.includes('functools'),
  calls: () => [functoolsCalls],
  stops: ['<|eot_id|>'],
};
