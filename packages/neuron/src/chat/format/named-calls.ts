/** Calls with the name between markers and the arguments as JSON: `<open>NAME<sep>{...}<close>`. */
import type { CallForm, CallGrammar } from './chat-format.ts';
import { type Cursor, rejection, type Steps } from './cursor.ts';
import { copyArguments, isAtArguments } from './json-value.ts';
import type { OfferedTool } from './offered-tools.ts';
import type { Turn } from './turn.ts';

export interface NamedCalls {
  /** Frames all calls; models leave it out at times. */
  readonly section?: { readonly open: string; readonly close: string };
  readonly callOpen: string;
  readonly callClose: readonly string[];
  /** May stand between the arguments and `callClose`, e.g. the end of a code fence. */
  readonly afterArguments?: readonly string[];
  /** From behind `callOpen` to in front of the arguments; throws `rejection` when it is no name. */
  readonly readName: (turn: Turn) => Steps<NamedCall>;
  readonly grammar: CallGrammar;
}

export interface NamedCall {
  readonly tool: OfferedTool;
  readonly id?: string | undefined;
}

export function namedCalls(options: NamedCalls): CallForm {
  const { section, callOpen, callClose } = options;
  const sections = section === undefined ? [] : [section.open];
  return {
    openers: [...sections, callOpen],
    closers: [...callClose, ...(section === undefined ? [] : [section.close]), callOpen],
    where: 'anywhere',
    grammar: options.grammar,
    read: (turn, opener) => readCalls(turn, options, opener),
  };
}

function* readCalls(turn: Turn, options: NamedCalls, opener: string): Steps {
  const { cursor } = turn;
  if (opener !== options.callOpen) {
    yield* cursor.takeBlanks();
    yield* cursor.expect(options.callOpen);
  }
  do {
    yield* readCall(turn, options);
    yield* cursor.takeBlanks();
  } while ((yield* cursor.takeOneOf([options.callOpen])) !== null);
  if (options.section !== undefined) yield* cursor.takeOneOf([options.section.close]);
}

function* readCall(turn: Turn, options: NamedCalls): Steps {
  const { cursor } = turn;
  const { tool, id } = yield* options.readName(turn);
  yield* cursor.takeBlanks();
  if (yield* isAtArguments(cursor)) {
    turn.startCall(tool, id);
    yield* copyArguments(cursor, turn.callArguments);
  } else if ((yield* cursor.lookingAt(options.callClose)) !== null) {
    turn.startCall(tool, id);
    turn.callArguments('{}');
  } else throw rejection;
  turn.endCall();
  yield* cursor.takeBlanks();
  if ((yield* cursor.takeOneOf(options.afterArguments ?? [])) !== null) yield* cursor.takeBlanks();
  yield* cursor.takeOneOf(options.callClose);
  cursor.hold();
}

/** The text up to one of the literals, which is taken too; rejected when it is longer than `max`. */
export function* readUntil(cursor: Cursor, ends: readonly string[], max: number): Steps<[string, string]> {
  for (let text = ''; text.length <= max; text += cursor.take()) {
    const end = yield* cursor.takeOneOf(ends);
    if (end !== null) return [text, end];
    if ((yield* cursor.peek()) === '') break;
  }
  throw rejection;
}

/** A name in front of one of the literals. */
export function* readToolName(turn: Turn, ends: readonly string[]): Steps<[OfferedTool, string]> {
  const [name, end] = yield* readUntil(turn.cursor, ends, turn.tools.nameLengthMax);
  const tool = turn.tools.find(name);
  if (tool === undefined) throw rejection;
  return [tool, end];
}
