/**
 * Calls in the manner of Python, `[f(city="Paris", days=3), g()]`; the arguments become JSON on the way.
 */
import type { CallForm, CallGrammar } from './chat-format.ts';
import { rejection, type Steps } from './cursor.ts';
import { escapeJson, toJsonString } from './json-value.ts';
import { readToolName, readUntil } from './named-calls.ts';
import { type OfferedTool, parameterNames } from './offered-tools.ts';
import { copyPythonValue } from './python-value.ts';
import type { Turn } from './turn.ts';

export interface PythonCalls {
  readonly openers: readonly string[];
  readonly closers: readonly string[];
  readonly where?: 'anywhere' | 'start';
  /** What stands between name and parenthesis, e.g. `.call`. */
  readonly nameEnds: readonly string[];
  /** The calls must be in brackets; else brackets, and a `print(...)` around a call, may be there. */
  readonly isList?: boolean;
  readonly grammar: CallGrammar;
}

const keyLengthMax = 256;

export function pythonCalls(options: PythonCalls): CallForm {
  return {
    openers: options.openers,
    closers: options.closers,
    where: options.where ?? 'anywhere',
    grammar: options.grammar,
    read: (turn, opener) => readPythonCalls(turn, options, opener),
  };
}

function* readPythonCalls(turn: Turn, options: PythonCalls, opener: string): Steps {
  const { cursor } = turn;
  yield* cursor.takeBlanks();
  const isList = opener === '[' || (yield* cursor.takeOneOf(['['])) !== null;
  if (!isList && options.isList) throw rejection;
  for (;;) {
    yield* cursor.takeBlanks();
    const isPrinted = (yield* cursor.takeOneOf(['print('])) !== null;
    yield* readCall(turn, options);
    if (isPrinted) yield* cursor.takeOneOf([')']);
    cursor.hold();
    yield* cursor.takeBlanks();
    if (isList) {
      if ((yield* cursor.takeOneOf([','])) !== null) continue;
      if ((yield* cursor.lookingAt([']', ...options.closers])) === null) throw rejection;
      yield* cursor.takeOneOf([']']);
      break;
    }
    yield* cursor.takeOneOf([',', ';']);
    yield* cursor.takeBlanks();
    if ((yield* cursor.peek()) === '' || options.closers.length === 0) break;
    if ((yield* cursor.lookingAt(options.closers)) !== null) break;
  }
  yield* cursor.takeBlanks();
  yield* cursor.takeOneOf(options.closers);
}

/** `name(key=value, ...)`; values without a key go to the schema's parameters in their order. */
function* readCall(turn: Turn, options: PythonCalls): Steps {
  const { cursor } = turn;
  const [tool] = yield* readToolName(turn, options.nameEnds);
  turn.startCall(tool);
  turn.callArguments('{');
  const order = parameterNames(tool);
  for (let at = 0; ; at++) {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf([')'])) !== null) break;
    if (at > 0) {
      yield* cursor.expect(',');
      yield* cursor.takeBlanks();
      if ((yield* cursor.takeOneOf([')'])) !== null) break;
      turn.callArguments(', ');
    }
    yield* readKey(turn, order[at]);
    yield* copyPythonValue(cursor, turn.callArguments);
  }
  turn.callArguments('}');
  turn.endCall();
}

function* readKey(turn: Turn, positional: string | undefined): Steps {
  const { cursor } = turn;
  const first = yield* cursor.peek();
  let key = positional;
  if (/[A-Za-z_]/.test(first)) {
    const [name] = yield* readUntil(cursor, ['='], keyLengthMax);
    key = name.trim();
    yield* cursor.takeBlanks();
  }
  if (key === undefined) throw rejection;
  turn.callArguments(`${toJsonString(key)}: `);
}

/** Bare source code as the one string argument of a tool that runs code. */
export function* readCode(turn: Turn, tool: OfferedTool): Steps {
  const { cursor } = turn;
  const key = parameterNames(tool)[0] ?? 'code';
  turn.startCall(tool);
  turn.callArguments(`{${toJsonString(key)}: "`);
  for (;;) {
    const piece = cursor.takeUpTo(/(?!)/g);
    if (piece !== '') turn.callArguments(escapeJson(piece));
    if ((yield* cursor.peek()) === '') break;
  }
  turn.callArguments('"}');
  turn.endCall();
}
