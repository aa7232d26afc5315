/**
 * Calls as JSON objects, `{"name": ..., "arguments": {...}}`, alone or in an array, between markers.
 *
 * The arguments are handed on while they arrive. That needs the name, which models write first; arguments
 * that come before it are kept until it is known. Keys may also be `function` (name and arguments one level
 * deeper) and bookkeeping (`id`, `type`, `index`); an object with other keys is no call.
 */
import type { CallForm, CallGrammar } from './chat-format.ts';
import { type Cursor, rejection, type Steps } from './cursor.ts';
import { copyArguments, copyJson, readJsonString } from './json-value.ts';
import type { OfferedTool } from './offered-tools.ts';
import type { Turn } from './turn.ts';

export interface JsonCalls {
  readonly openers: readonly string[];
  readonly closers: readonly string[];
  readonly where?: 'anywhere' | 'start';
  /** Text between the opener and the JSON, e.g. a code fence. */
  readonly fence?: string;
  /** A call is `{"the name": {arguments}}`. */
  readonly nameIsKey?: boolean;
  readonly grammar: CallGrammar;
}

const nameKeys = ['name', 'tool_name', 'function_name'];
const argumentKeys = ['arguments', 'parameters', 'args', 'input'];
const idKeys = ['id', 'tool_call_id', 'call_id'];
const ignoredKeys = ['type', 'index', 'thought', 'thoughts'];
const keyLengthMax = 64;
const idLengthMax = 128;

export function jsonCalls(options: JsonCalls): CallForm {
  return {
    openers: options.openers,
    closers: options.closers,
    where: options.where ?? 'anywhere',
    grammar: options.grammar,
    read: (turn, opener) => readCalls(turn, options, opener),
  };
}

function* readCalls(turn: Turn, options: JsonCalls, opener: string): Steps {
  const { cursor } = turn;
  yield* cursor.takeBlanks();
  if (options.fence !== undefined) {
    yield* cursor.expect(options.fence);
    yield* cursor.takeBlanks();
  }
  const opened = opener === '{' || opener === '[' ? opener : yield* cursor.peek();
  if (opened === '[') {
    if (opener !== '[') cursor.take();
    yield* readArray(turn, options);
  } else yield* readSequence(turn, options, opener === '{');
  yield* cursor.takeBlanks();
  yield* cursor.takeOneOf(options.closers);
}

function* readArray(turn: Turn, options: JsonCalls): Steps {
  const { cursor } = turn;
  for (;;) {
    yield* cursor.takeBlanks();
    yield* cursor.expect('{');
    yield* readCall(turn, options);
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf([','])) === null) break;
  }
  // Some models forget the bracket, none goes on with text here.
  const next = yield* cursor.lookingAt([']', ...options.closers]);
  if (next === ']') cursor.take();
  else if (next === null && (yield* cursor.peek()) !== '') throw rejection;
  turn.cursor.hold();
}

/** Objects one after the other, with nothing, a comma or a semicolon between them. */
function* readSequence(turn: Turn, options: JsonCalls, isOpen: boolean): Steps {
  const { cursor } = turn;
  if (!isOpen) yield* cursor.expect('{');
  for (;;) {
    yield* readCall(turn, options);
    yield* cursor.takeBlanks();
    const separator = yield* cursor.takeOneOf([';', ',']);
    if (separator !== null) yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf(['{'])) === null) {
      if (separator !== null) throw rejection;
      return;
    }
  }
}

/** What is known of a call while its object is read. */
interface Draft {
  tool: OfferedTool | null;
  id: string | undefined;
  /** Arguments that came before the name. */
  kept: string | null;
  isDone: boolean;
}

/** From behind the `{` of an object to behind its `}`. */
function* readCall(turn: Turn, options: JsonCalls): Steps {
  const draft: Draft = { tool: null, id: undefined, kept: null, isDone: false };
  if (options.nameIsKey) yield* readNamedByKey(turn, draft);
  else yield* readMembers(turn, options, draft);
  if (!draft.isDone) {
    if (draft.tool === null) throw rejection;
    begin(turn, draft);
    turn.callArguments(draft.kept ?? '{}');
    turn.endCall();
  }
  turn.cursor.hold();
}

function* readMembers(turn: Turn, options: JsonCalls, draft: Draft): Steps {
  const { cursor } = turn;
  for (;;) {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf(['}'])) !== null) return;
    const key = yield* readJsonString(cursor, keyLengthMax);
    yield* cursor.takeBlanks();
    yield* cursor.expect(':');
    yield* cursor.takeBlanks();
    yield* readMember(turn, options, draft, key);
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf([','])) !== null) continue;
    if ((yield* cursor.takeOneOf(['}'])) !== null) return;
    // A small model's slip: the brace that closes the call is missing in front of the closer.
    if (draft.isDone && (yield* cursor.lookingAt(options.closers)) !== null) return;
    throw rejection;
  }
}

function* readMember(turn: Turn, options: JsonCalls, draft: Draft, key: string): Steps {
  const { cursor, tools } = turn;
  const first = yield* cursor.peek();
  if (key === 'function' && first === '{') {
    cursor.take();
    yield* readMembers(turn, options, draft);
  } else if (nameKeys.includes(key) || key === 'function') {
    const tool = tools.find(yield* readJsonString(cursor, tools.nameLengthMax));
    if (tool === undefined) throw rejection;
    if (!draft.isDone) draft.tool = tool;
    if (draft.kept !== null && !draft.isDone) {
      begin(turn, draft);
      turn.callArguments(draft.kept);
      turn.endCall();
    }
  } else if (argumentKeys.includes(key) && !draft.isDone) {
    yield* readArguments(turn, draft, first);
  } else if (idKeys.includes(key)) {
    const id = first === '"' ? yield* readJsonString(cursor, idLengthMax) : yield* takeJson(cursor);
    if (id !== 'null') draft.id = id;
  } else if (ignoredKeys.includes(key) || draft.isDone) yield* copyJson(cursor, () => undefined);
  else throw rejection;
}

function* readArguments(turn: Turn, draft: Draft, first: string): Steps {
  const { cursor } = turn;
  if (first === 'n') {
    if ((yield* takeJson(cursor)) !== 'null') throw rejection;
    draft.kept = '{}';
    if (draft.tool !== null) finishKept(turn, draft);
    return;
  }
  if (first !== '{' && first !== '"') throw rejection;
  if (draft.tool === null) {
    let kept = '';
    yield* copyArguments(cursor, (text) => {
      kept += text;
    });
    draft.kept = kept;
    return;
  }
  begin(turn, draft);
  yield* copyArguments(cursor, turn.callArguments);
  turn.endCall();
}

function finishKept(turn: Turn, draft: Draft): void {
  begin(turn, draft);
  turn.callArguments(draft.kept ?? '{}');
  turn.endCall();
}

/** Commits: from here on it is a call. */
function begin(turn: Turn, draft: Draft): void {
  if (draft.tool === null) throw rejection;
  draft.isDone = true;
  turn.startCall(draft.tool, draft.id);
}

function* takeJson(cursor: Cursor): Steps<string> {
  let text = '';
  yield* copyJson(cursor, (piece) => {
    text += piece;
  });
  return text;
}

/** `{"the name": {...}}`. */
function* readNamedByKey(turn: Turn, draft: Draft): Steps {
  const { cursor, tools } = turn;
  yield* cursor.takeBlanks();
  draft.tool = tools.find(yield* readJsonString(cursor, tools.nameLengthMax)) ?? null;
  yield* cursor.takeBlanks();
  yield* cursor.expect(':');
  yield* cursor.takeBlanks();
  yield* readArguments(turn, draft, yield* cursor.peek());
  yield* cursor.takeBlanks();
  yield* cursor.expect('}');
}
