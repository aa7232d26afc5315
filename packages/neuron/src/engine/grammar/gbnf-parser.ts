/**
 * GBNF, the grammar notation of llama.cpp (grammars/README.md there), as a tree.
 *
 * Its own reader and not libllama's: that one recurses without a bound on input from the network, and says
 * "failed to parse" where a person needs a line.
 */
import { AppError } from 'cortex-core/wire/errors';

/** Inclusive ranges of code points, in any order. */
export type Ranges = readonly (readonly [number, number])[];

export type GbnfNode =
  | { readonly kind: 'chars'; readonly ranges: Ranges; readonly isInverted: boolean }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'sequence'; readonly items: readonly GbnfNode[] }
  | { readonly kind: 'choice'; readonly options: readonly GbnfNode[] }
  | { readonly kind: 'repeat'; readonly item: GbnfNode; readonly min: number; readonly max: number | null }
  | { readonly kind: 'rule'; readonly name: string }
  | { readonly kind: 'token'; readonly token: number; readonly isInverted: boolean };

export type GbnfRules = ReadonlyMap<string, GbnfNode>;

const depthMax = 200;
const repeatMax = 1_000_000;
const escapes: Readonly<Record<string, string>> = { t: '\t', r: '\r', n: '\n' };
const hexDigits: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

interface Reader {
  readonly text: string;
  readonly toToken: (text: string) => number | null;
  at: number;
  depth: number;
}

/**
 * `toToken` gives the one token that `<name>` spells, null when there is none.
 * Errors: `invalid_request` with param `grammar`, naming the line.
 */
export function parseGbnf(text: string, toToken: (text: string) => number | null): GbnfRules {
  const reader: Reader = { text, toToken, at: 0, depth: 0 };
  const rules = new Map<string, GbnfNode>();
  skipSpace(reader, true);
  while (reader.at < text.length) {
    const name = readName(reader);
    skipSpace(reader, false);
    if (!text.startsWith('::=', reader.at)) throw bad(reader, `needs "::=" after the name ${name}`);
    if (rules.has(name)) throw bad(reader, `defines ${name} again`);
    reader.at += 3;
    skipSpace(reader, true);
    rules.set(name, readChoice(reader, false));
    if (reader.at < text.length && !'\r\n'.includes(text[reader.at] as string)) {
      throw bad(reader, `has "${text[reader.at]}" where a rule should end`);
    }
    skipSpace(reader, true);
  }
  return rules;
}

function readChoice(reader: Reader, isNested: boolean): GbnfNode {
  if (++reader.depth > depthMax) throw bad(reader, `nests parentheses deeper than ${depthMax}`);
  const options = [readSequence(reader, isNested)];
  while (reader.text[reader.at] === '|') {
    reader.at++;
    skipSpace(reader, true);
    options.push(readSequence(reader, isNested));
  }
  reader.depth--;
  return options.length === 1 ? (options[0] as GbnfNode) : { kind: 'choice', options };
}

function readSequence(reader: Reader, isNested: boolean): GbnfNode {
  const items: GbnfNode[] = [];
  for (;;) {
    const item = readItem(reader);
    if (item !== null) {
      items.push(item);
      skipSpace(reader, isNested);
      continue;
    }
    const bounds = readRepeat(reader);
    if (bounds === null) break;
    const last = items.pop();
    if (last === undefined) throw bad(reader, 'repeats nothing');
    items.push({ kind: 'repeat', item: last, ...bounds });
    skipSpace(reader, isNested);
  }
  return items.length === 1 ? (items[0] as GbnfNode) : { kind: 'sequence', items };
}

function readItem(reader: Reader): GbnfNode | null {
  const char = reader.text[reader.at];
  if (char === undefined) return null;
  if (char === '"') return readText(reader);
  if (char === '[') return readClass(reader);
  if (char === '<' || char === '!') return readToken(reader);
  if (/[a-zA-Z0-9-]/.test(char)) return { kind: 'rule', name: readName(reader) };
  if (char === '.') {
    reader.at++;
    return { kind: 'chars', ranges: [], isInverted: true };
  }
  if (char !== '(') return null;
  reader.at++;
  skipSpace(reader, true);
  const inner = readChoice(reader, true);
  if (reader.text[reader.at] !== ')') throw bad(reader, 'has a "(" that is not closed');
  reader.at++;
  return inner;
}

function readText(reader: Reader): GbnfNode {
  reader.at++;
  const chars: string[] = [];
  while (reader.text[reader.at] !== '"') chars.push(String.fromCodePoint(readChar(reader)));
  reader.at++;
  return { kind: 'text', text: chars.join('') };
}

function readClass(reader: Reader): GbnfNode {
  reader.at++;
  const isInverted = reader.text[reader.at] === '^';
  if (isInverted) reader.at++;
  const ranges: [number, number][] = [];
  while (reader.text[reader.at] !== ']') {
    const from = readChar(reader);
    const isRange = reader.text[reader.at] === '-' && reader.text[reader.at + 1] !== ']';
    if (isRange) reader.at++;
    const to = isRange ? readChar(reader) : from;
    if (to < from) throw bad(reader, 'has a character range that ends before it begins');
    ranges.push([from, to]);
  }
  reader.at++;
  return { kind: 'chars', ranges, isInverted };
}

/** One code point of a text or class, escapes read. */
function readChar(reader: Reader): number {
  const code = reader.text.codePointAt(reader.at);
  if (code === undefined) throw bad(reader, 'ends inside a text or a character class');
  reader.at += code > 0xffff ? 2 : 1;
  if (code !== 0x5c) return code;
  const letter = reader.text[reader.at++] ?? '';
  const digits = hexDigits[letter];
  if (digits === undefined) {
    if (!'\\"[]-tnr'.includes(letter) || letter === '')
      throw bad(reader, `has an unknown escape \\${letter}`);
    return (escapes[letter] ?? letter).charCodeAt(0);
  }
  const hex = reader.text.slice(reader.at, reader.at + digits);
  const value = /^[0-9a-fA-F]+$/.test(hex) && hex.length === digits ? Number.parseInt(hex, 16) : -1;
  if (value < 0 || value > 0x10ffff)
    throw bad(reader, `needs ${digits} hex digits of a character after \\${letter}`);
  reader.at += digits;
  return value;
}

function readToken(reader: Reader): GbnfNode {
  const isInverted = reader.text[reader.at] === '!';
  if (isInverted) reader.at++;
  const end = reader.text.indexOf('>', reader.at);
  if (reader.text[reader.at] !== '<' || end < 0)
    throw bad(reader, 'has a token that is not <name> or <[id]>');
  const text = reader.text.slice(reader.at, end + 1);
  reader.at = end + 1;
  const token = reader.toToken(text);
  if (token === null) throw bad(reader, `names ${text.slice(0, 60)}, which is no token of this model`);
  return { kind: 'token', token, isInverted };
}

function readRepeat(reader: Reader): { readonly min: number; readonly max: number | null } | null {
  const char = reader.text[reader.at];
  if (char === '*' || char === '+' || char === '?') {
    reader.at++;
    return { min: char === '+' ? 1 : 0, max: char === '?' ? 1 : null };
  }
  if (char !== '{') return null;
  const found = /^\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}/.exec(reader.text.slice(reader.at, reader.at + 60));
  if (found === null) throw bad(reader, 'has a repetition that is not {n}, {n,} or {n,m}');
  reader.at += found[0].length;
  const min = Number(found[1]);
  const max = found[2] === undefined ? min : found[3] === '' ? null : Number(found[3]);
  if (min > repeatMax || (max ?? 0) > repeatMax) throw bad(reader, `repeats more than ${repeatMax} times`);
  if (max !== null && max < min) throw bad(reader, 'has a repetition that ends before it begins');
  return { min, max };
}

function readName(reader: Reader): string {
  const start = reader.at;
  while (/[a-zA-Z0-9-]/.test(reader.text[reader.at] ?? '')) reader.at++;
  if (reader.at === start) throw bad(reader, 'needs a rule name');
  return reader.text.slice(start, reader.at);
}

/** Blanks and comments; line ends only where the rule goes on after them. */
function skipSpace(reader: Reader, withLines: boolean): void {
  for (;;) {
    const char = reader.text[reader.at];
    if (char === ' ' || char === '\t' || (withLines && (char === '\n' || char === '\r'))) reader.at++;
    else if (char === '#') {
      while (reader.at < reader.text.length && !'\r\n'.includes(reader.text[reader.at] as string))
        reader.at++;
    } else return;
  }
}

function bad(reader: Reader, why: string): AppError {
  const line = reader.text.slice(0, reader.at).split('\n').length;
  return new AppError('invalid_request', `grammar is not valid GBNF: line ${line} ${why}`, {
    param: 'grammar',
  });
}
