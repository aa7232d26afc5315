/**
 * Calls of Gemma 4 and FunctionGemma, `call:f{city:<|"|>Paris<|"|>,days:3}`: like JSON, with bare keys and
 * with a token in place of quotes, so that strings need no escapes. The arguments become JSON on the way.
 */
import type { CallForm, CallGrammar } from './chat-format.ts';
import { type Cursor, Markers, rejection, type Steps } from './cursor.ts';
import { copyJsonString, escapeJson, takeWord, toJsonString } from './json-value.ts';
import { readToolName, readUntil } from './named-calls.ts';
import type { Turn } from './turn.ts';

export interface GemmaCalls {
  readonly open: string;
  readonly close: string;
  /** The token around strings. */
  readonly quote: string;
  readonly grammar: CallGrammar;
}

type Out = (text: string) => void;

const depthMax = 64;
const keyLengthMax = 256;
const wordText = /^(true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)$/;

export function gemmaCalls({ open, close, quote, grammar }: GemmaCalls): CallForm {
  return {
    openers: [open],
    closers: [close],
    where: 'anywhere',
    grammar,
    read: (turn) => readCall(turn, close, quote),
  };
}

function* readCall(turn: Turn, close: string, quote: string): Steps {
  const { cursor } = turn;
  yield* cursor.expect('call:');
  const [tool] = yield* readToolName(turn, ['{']);
  turn.startCall(tool);
  turn.callArguments('{');
  yield* copyMembers(cursor, quote, turn.callArguments, 0);
  turn.endCall();
  yield* cursor.takeBlanks();
  yield* cursor.takeOneOf([close]);
}

/** From behind the brace to behind its partner. */
function* copyMembers(cursor: Cursor, quote: string, out: Out, depth: number): Steps {
  for (let isFirst = true; ; isFirst = false) {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf(['}'])) !== null) return out('}');
    if (!isFirst) {
      yield* cursor.expect(',');
      yield* cursor.takeBlanks();
      out(', ');
    }
    if ((yield* cursor.lookingAt([quote, '"'])) !== null) {
      yield* copyValue(cursor, quote, out, depth + 1);
      yield* cursor.takeBlanks();
      yield* cursor.expect(':');
    } else {
      const [key] = yield* readUntil(cursor, [':'], keyLengthMax);
      out(toJsonString(key.trim()));
    }
    out(': ');
    yield* cursor.takeBlanks();
    yield* copyValue(cursor, quote, out, depth + 1);
  }
}

function* copyValue(cursor: Cursor, quote: string, out: Out, depth: number): Steps {
  if (depth > depthMax) throw rejection;
  const found = yield* cursor.takeOneOf([quote, '{', '[']);
  if (found === quote) return yield* copyString(cursor, quote, out);
  if (found === '{') {
    out('{');
    return yield* copyMembers(cursor, quote, out, depth);
  }
  if (found === '[') return yield* copyItems(cursor, quote, out, depth);
  if ((yield* cursor.peek()) === '"') return yield* copyJsonString(cursor, out);
  if (cursor.takeCut([quote])) throw rejection;
  const word = yield* takeWord(cursor);
  out(word);
  if (!wordText.test(word)) throw rejection;
}

function* copyString(cursor: Cursor, quote: string, out: Out): Steps {
  out('"');
  const found = yield* cursor.until(new Markers([quote]), (text) => out(escapeJson(text)), true);
  if (found === null) throw rejection;
  cursor.take(quote.length);
  out('"');
}

function* copyItems(cursor: Cursor, quote: string, out: Out, depth: number): Steps {
  out('[');
  for (let isFirst = true; ; isFirst = false) {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf([']'])) !== null) return out(']');
    if (!isFirst) {
      yield* cursor.expect(',');
      yield* cursor.takeBlanks();
      out(', ');
    }
    yield* copyValue(cursor, quote, out, depth + 1);
  }
}
