/**
 * Python literals -> JSON, while they arrive: what models write that call functions in the manner of Python.
 * Strings with either quote, tripled too; lists, tuples, dicts; True, False, None and JSON's own spellings.
 */
import { type Cursor, rejection, type Steps } from './cursor.ts';
import { escapeJson, takeWord } from './json-value.ts';

type Out = (text: string) => void;

const depthMax = 64;
const words: Readonly<Record<string, string>> = {
  True: 'true',
  False: 'false',
  None: 'null',
  true: 'true',
  false: 'false',
  null: 'null',
};
const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  v: '\v',
  a: '\u0007',
  '0': '\0',
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
};

/** One value, as JSON text. Takes exactly the value. */
export function* copyPythonValue(cursor: Cursor, out: Out, depth = 0): Steps {
  if (depth > depthMax) throw rejection;
  const char = yield* cursor.peek();
  if (char === '"' || char === "'") return yield* copyString(cursor, out);
  if (char === '{') return yield* copyDict(cursor, out, depth);
  if (char === '[') return yield* copyList(cursor, out, depth, ']');
  if (char === '(') return yield* copyList(cursor, out, depth, ')');
  const word = yield* takeWord(cursor);
  const json = Object.hasOwn(words, word) ? words[word] : toNumber(word);
  if (json === undefined) {
    out(word);
    throw rejection;
  }
  out(json);
}

function toNumber(word: string): string | undefined {
  if (/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(word)) return word;
  // 1_000, .5, 5., +3, 0x1f: what Python reads and JSON does not.
  const value = Number(word.replaceAll('_', ''));
  return /\d/.test(word) && Number.isFinite(value) ? String(value) : undefined;
}

function* copyDict(cursor: Cursor, out: Out, depth: number): Steps {
  out(cursor.take());
  for (let isFirst = true; ; isFirst = false) {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf(['}'])) !== null) return out('}');
    if (!isFirst) {
      yield* cursor.expect(',');
      yield* cursor.takeBlanks();
      if ((yield* cursor.takeOneOf(['}'])) !== null) return out('}');
      out(', ');
    }
    const quote = yield* cursor.peek();
    if (quote !== '"' && quote !== "'") throw rejection;
    yield* copyString(cursor, out);
    yield* cursor.takeBlanks();
    yield* cursor.expect(':');
    out(': ');
    yield* cursor.takeBlanks();
    yield* copyPythonValue(cursor, out, depth + 1);
  }
}

function* copyList(cursor: Cursor, out: Out, depth: number, close: string): Steps {
  cursor.take();
  out('[');
  for (let isFirst = true; ; isFirst = false) {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf([close])) !== null) return out(']');
    if (!isFirst) {
      yield* cursor.expect(',');
      yield* cursor.takeBlanks();
      if ((yield* cursor.takeOneOf([close])) !== null) return out(']');
      out(', ');
    }
    yield* copyPythonValue(cursor, out, depth + 1);
  }
}

function* copyString(cursor: Cursor, out: Out): Steps {
  const quote = cursor.take();
  const isTripled = (yield* cursor.takeOneOf([quote.repeat(2)])) !== null;
  const close = isTripled ? quote.repeat(3) : quote;
  out('"');
  const plain = quote === '"' ? /["\\]/g : /['\\]/g;
  for (;;) {
    const run = cursor.takeUpTo(plain);
    if (run !== '') out(escapeJson(run));
    if ((yield* cursor.peek()) === '') throw rejection;
    if ((yield* cursor.takeOneOf([close])) !== null) return out('"');
    const char = yield* cursor.peek();
    if (char === '\\') out(escapeJson(yield* takeEscape(cursor)));
    else if (char === quote) out(escapeJson(cursor.take()));
  }
}

function* takeEscape(cursor: Cursor): Steps<string> {
  cursor.take();
  const char = yield* cursor.peek();
  if (char === '') return '\\';
  if (Object.hasOwn(escapes, char)) {
    cursor.take();
    return escapes[char] as string;
  }
  const length = { x: 2, u: 4, U: 8 }[char];
  if (length === undefined) return '\\';
  cursor.take();
  let digits = '';
  while (digits.length < length && /^[0-9a-f]$/i.test(yield* cursor.peek())) digits += cursor.take();
  const point = Number.parseInt(digits, 16);
  const isPoint = digits.length === length && point <= 0x10ffff;
  return isPoint ? String.fromCodePoint(point) : `\\${char}${digits}`;
}
