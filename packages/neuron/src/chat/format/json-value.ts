/**
 * JSON as models write it, copied while it arrives.
 *
 * What is copied is the model's own text, byte for byte, as soon as it cannot be anything but JSON. Two
 * slips inside strings, which would make the whole unreadable for every client, are mended on the way: a raw
 * control character is escaped, and a backslash that escapes nothing is taken as a backslash (`"\d+"`).
 * Everything else that is not JSON rejects the reading in front of the first wrong character.
 */
import { type Cursor, rejection, type Steps } from './cursor.ts';

type Out = (text: string) => void;

/** What may come next; a frame of the stack is `{` or `[`. */
type Expected = 'value' | 'valueOrEnd' | 'key' | 'keyOrEnd' | 'colon' | 'commaOrEnd';

/** Quote, backslash and the control characters: where a run of plain characters ends. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON strings may not hold them
const notPlain = /["\\\u0000-\u001f]/g;
const depthMax = 512;

/** One JSON value. Takes exactly the value; blanks before it must be gone. */
export function* copyJson(cursor: Cursor, out: Out): Steps {
  const stack: string[] = [];
  let expected: Expected = 'value';
  for (;;) {
    if (stack.length > 0) {
      const blank = yield* cursor.takeBlanks();
      if (blank !== '') out(blank);
    }
    const char = yield* cursor.peek();
    if (char === '') throw rejection;
    const isClose = char === (stack.at(-1) === '{' ? '}' : ']') && stack.length > 0;
    if (isClose && (expected === 'commaOrEnd' || expected === 'valueOrEnd' || expected === 'keyOrEnd')) {
      out(cursor.take());
      stack.pop();
      if (stack.length === 0) return;
      expected = 'commaOrEnd';
    } else if (expected === 'commaOrEnd' || expected === 'colon') {
      if (char !== (expected === 'colon' ? ':' : ',')) throw rejection;
      out(cursor.take());
      expected = expected === 'colon' || stack.at(-1) === '[' ? 'value' : 'key';
    } else if (expected === 'key' || expected === 'keyOrEnd') {
      if (char !== '"') throw rejection;
      yield* copyJsonString(cursor, out);
      expected = 'colon';
    } else if (char === '{' || char === '[') {
      if (stack.length >= depthMax) throw rejection;
      stack.push(cursor.take());
      out(char);
      expected = char === '{' ? 'keyOrEnd' : 'valueOrEnd';
    } else {
      yield* copyScalar(cursor, char, out);
      if (stack.length === 0) return;
      expected = 'commaOrEnd';
    }
  }
}

/** A string with its quotes. */
export function* copyJsonString(cursor: Cursor, out: Out): Steps {
  out(cursor.take());
  for (;;) {
    const plain = cursor.takeUpTo(notPlain);
    if (plain !== '') out(plain);
    const char = yield* cursor.peek();
    if (char === '') throw rejection;
    if (char === '"') return out(cursor.take());
    if (char === '\\') out(yield* takeEscape(cursor));
    else if (char < ' ') out(escapeControl(cursor.take()));
  }
}

/** `\n`, `\u00e9`: as written. A backslash before anything else is made two. */
function* takeEscape(cursor: Cursor): Steps<string> {
  cursor.take();
  const char = yield* cursor.peek();
  if (char === '') return '\\';
  if ('"\\/bfnrt'.includes(char)) return `\\${cursor.take()}`;
  if (char !== 'u') return char === "'" ? cursor.take() : '\\\\';
  let digits = '';
  cursor.take();
  while (digits.length < 4) {
    const digit = yield* cursor.peek();
    if (digit === '') return `\\u${digits}`;
    if (!/[0-9a-f]/i.test(digit)) return `\\\\u${digits}`;
    digits += cursor.take();
  }
  return `\\u${digits}`;
}

const numberText = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const numberLengthMax = 400;

function* copyScalar(cursor: Cursor, first: string, out: Out): Steps {
  if (first === '"') return yield* copyJsonString(cursor, out);
  const word = yield* takeWord(cursor);
  if (word !== 'true' && word !== 'false' && word !== 'null' && !numberText.test(word)) {
    out(word);
    throw rejection;
  }
  out(word);
}

/** Letters, digits, signs and points. */
export function* takeWord(cursor: Cursor): Steps<string> {
  let word = '';
  for (;;) {
    const char = yield* cursor.peek();
    if (char === '' || !/[\w.+-]/.test(char) || word.length > numberLengthMax) return word;
    word += cursor.take();
  }
}

/** A JSON string's value; at most `max` characters. */
export function* readJsonString(cursor: Cursor, max: number): Steps<string> {
  if ((yield* cursor.peek()) !== '"') throw rejection;
  let raw = '';
  yield* copyJsonString(cursor, (text) => {
    raw += text;
    // An escape takes up to six characters.
    if (raw.length > 6 * max + 2) throw rejection;
  });
  return JSON.parse(raw) as string;
}

/**
 * The value of a JSON string while it arrives: arguments that a model put into a string. The opening quote
 * is taken already.
 */
function* copyDecodedString(cursor: Cursor, out: Out): Steps {
  for (;;) {
    const plain = cursor.takeUpTo(notPlain);
    if (plain !== '') out(plain);
    const char = yield* cursor.peek();
    if (char === '') throw rejection;
    if (char === '"') return void cursor.take();
    if (char !== '\\') out(cursor.take());
    else {
      const written = yield* takeEscape(cursor);
      const isWhole = written.length > 1 && (written[1] !== 'u' || written.length === 6);
      out(isWhole ? (JSON.parse(`"${written}"`) as string) : written);
    }
  }
}

/** How arguments begin; a string that holds them is what models write that saw them so in their history. */
const argumentsBegin = ['{', '"{', '""'];

export function* isAtArguments(cursor: Cursor): Steps<boolean> {
  return (yield* cursor.lookingAt(argumentsBegin)) !== null;
}

/** An object, or a string: one that holds an object is given out as that, another as it is. */
export function* copyArguments(cursor: Cursor, out: Out): Steps {
  if ((yield* cursor.peek()) !== '"') return yield* copyJson(cursor, out);
  const inside = yield* cursor.lookingAt(argumentsBegin);
  if (inside === null) return yield* copyJsonString(cursor, out);
  cursor.take(inside.length);
  if (inside === '""') return out('{}');
  out('{');
  yield* copyDecodedString(cursor, out);
}

/**
 * The inside of a JSON string that stands for `text`. Piece by piece gives the same as all at once:
 * surrogates stay as they are (JSON.stringify escapes a lone one, thus half a pair).
 */
export function escapeJson(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must be escaped
  return text.replace(/["\\\u0000-\u001f]/g, (char) => (char < ' ' ? escapeControl(char) : `\\${char}`));
}

export function toJsonString(text: string): string {
  return `"${escapeJson(text)}"`;
}

function escapeControl(char: string): string {
  const short = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[char];
  return short ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
