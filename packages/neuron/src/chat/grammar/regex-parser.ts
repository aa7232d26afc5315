/** ECMAScript regular expressions, the part of them that is a regular language. */
import { anyChar, type CharSet, invert, setOf, unite } from './char-set.ts';

export type Regex =
  | { readonly kind: 'chars'; readonly set: CharSet }
  | { readonly kind: 'sequence'; readonly items: readonly Regex[] }
  | { readonly kind: 'choice'; readonly options: readonly Regex[] }
  | { readonly kind: 'repeat'; readonly item: Regex; readonly min: number; readonly max: number | null }
  /** What follows must, or must not, begin with `item`. */
  | { readonly kind: 'look'; readonly item: Regex; readonly isNegated: boolean }
  | { readonly kind: 'start' }
  | { readonly kind: 'end' };

/** Why a pattern cannot be enforced; the message ends a sentence that names the keyword. */
export class RegexError extends Error {}

const lengthMax = 10_000;
const depthMax = 50;
const repeatMax = 10_000;
const digit: CharSet = [[0x30, 0x39]];
const word = unite(digit, [[0x41, 0x5a]], [[0x61, 0x7a]], setOf('_'));
const lineEnds = setOf('\n\r\u2028\u2029');
const space = unite(setOf('\t\v\f \u00a0\u1680\u202f\u205f\u3000\ufeff'), [[0x2000, 0x200a]], lineEnds);
const classes: Readonly<Record<string, CharSet>> = {
  d: digit,
  D: invert(digit),
  w: word,
  W: invert(word),
  s: space,
  S: invert(space),
};
const controls: Readonly<Record<string, string>> = { t: '\t', n: '\n', r: '\r', f: '\f', v: '\v' };

interface Reader {
  readonly chars: readonly string[];
  at: number;
  depth: number;
}

/** Errors: RegexError. */
export function parseRegex(pattern: string): Regex {
  if (pattern.length > lengthMax) throw new RegexError(`is longer than ${lengthMax} characters`);
  try {
    new RegExp(pattern, 'u');
  } catch {
    try {
      new RegExp(pattern);
    } catch {
      throw new RegexError('is not a regular expression');
    }
  }
  const reader: Reader = { chars: [...pattern], at: 0, depth: 0 };
  const regex = readChoice(reader);
  if (reader.at < reader.chars.length) throw new RegexError('has a ")" too many');
  return regex;
}

function readChoice(reader: Reader): Regex {
  if (++reader.depth > depthMax) throw new RegexError(`nests groups deeper than ${depthMax}`);
  const options = [readSequence(reader)];
  while (reader.chars[reader.at] === '|') {
    reader.at++;
    options.push(readSequence(reader));
  }
  reader.depth--;
  return options.length === 1 ? (options[0] as Regex) : { kind: 'choice', options };
}

function readSequence(reader: Reader): Regex {
  const items: Regex[] = [];
  for (;;) {
    const char = reader.chars[reader.at];
    if (char === undefined || char === '|' || char === ')') return { kind: 'sequence', items };
    items.push(readRepeat(reader, readAtom(reader)));
  }
}

function readRepeat(reader: Reader, item: Regex): Regex {
  const bounds = readBounds(reader);
  if (bounds === null) return item;
  // Lazy and greedy repetitions match the same texts.
  if (reader.chars[reader.at] === '?') reader.at++;
  if (item.kind === 'start' || item.kind === 'end' || item.kind === 'look') {
    throw new RegexError('repeats an anchor or a lookahead');
  }
  const [min, max] = bounds;
  if (min > repeatMax || (max ?? 0) > repeatMax) {
    throw new RegexError(`repeats more than ${repeatMax} times`);
  }
  return { kind: 'repeat', item, min, max };
}

function readBounds(reader: Reader): readonly [number, number | null] | null {
  const char = reader.chars[reader.at];
  const simple: Readonly<Record<string, readonly [number, number | null]>> = {
    '*': [0, null],
    '+': [1, null],
    '?': [0, 1],
  };
  if (char !== undefined && char in simple) {
    reader.at++;
    return simple[char] as readonly [number, number | null];
  }
  if (char !== '{') return null;
  const found = /^\{(\d+)(?:(,)(\d*))?\}/.exec(reader.chars.slice(reader.at, reader.at + 40).join(''));
  if (found === null) return null;
  reader.at += found[0].length;
  const min = Number(found[1]);
  if (found[2] === undefined) return [min, min];
  return [min, found[3] === '' ? null : Number(found[3])];
}

function readAtom(reader: Reader): Regex {
  const char = reader.chars[reader.at++] as string;
  if (char === '^') return { kind: 'start' };
  if (char === '$') return { kind: 'end' };
  if (char === '.') return { kind: 'chars', set: invert(lineEnds) };
  if (char === '(') return readGroup(reader);
  if (char === '[') return { kind: 'chars', set: readClass(reader) };
  if (char === '\\') return { kind: 'chars', set: readEscape(reader, false) };
  return { kind: 'chars', set: setOf(char) };
}

function readGroup(reader: Reader): Regex {
  const head = reader.chars.slice(reader.at, reader.at + 80).join('');
  if (head.startsWith('?')) {
    const opening = /^\?(?::|=|!|<[A-Za-z_$][\w$]*>)/.exec(head);
    if (opening === null) throw new RegexError('looks behind or has a modifier, which cannot be enforced');
    reader.at += opening[0].length;
  }
  const inner = readChoice(reader);
  reader.at++;
  const isNegated = head.startsWith('?!');
  return isNegated || head.startsWith('?=') ? { kind: 'look', item: inner, isNegated } : inner;
}

function readClass(reader: Reader): CharSet {
  const isInverted = reader.chars[reader.at] === '^';
  if (isInverted) reader.at++;
  const parts: CharSet[] = [];
  for (;;) {
    const char = reader.chars[reader.at++];
    if (char === ']' || char === undefined) break;
    const first = char === '\\' ? readEscape(reader, true) : setOf(char);
    const isRange = reader.chars[reader.at] === '-' && reader.chars[reader.at + 1] !== ']';
    if (!isRange) {
      parts.push(first);
      continue;
    }
    reader.at++;
    const next = reader.chars[reader.at++] as string;
    const last = next === '\\' ? readEscape(reader, true) : setOf(next);
    if (isSingle(first) && isSingle(last)) parts.push([[first[0]?.[0] as number, last[0]?.[0] as number]]);
    // `[\w-.]` without the u flag: the hyphen stands for itself.
    else parts.push(first, setOf('-'), last);
  }
  const set = unite(...parts);
  return isInverted ? invert(set) : set;
}

function isSingle(set: CharSet): boolean {
  return set.length === 1 && set[0]?.[0] === set[0]?.[1];
}

function readEscape(reader: Reader, isInClass: boolean): CharSet {
  const char = reader.chars[reader.at++] as string;
  const named = classes[char] ?? (char in controls ? setOf(controls[char] as string) : undefined);
  if (named !== undefined) return named;
  if (char === 'b' && isInClass) return setOf('\b');
  if (char === 'b' || char === 'B') throw new RegexError('uses \\b, which no grammar can express');
  if (/[1-9]/.test(char) || char === 'k')
    throw new RegexError('refers back to a group, which no grammar can');
  if (char === 'p' || char === 'P') throw new RegexError('uses \\p{...}; write the ranges out');
  if (char === '0') return setOf('\0');
  const rest = reader.chars.slice(reader.at, reader.at + 12).join('');
  const digits = /^x([0-9a-fA-F]{2})|^u([0-9a-fA-F]{4})|^u\{([0-9a-fA-F]{1,6})\}|^c([A-Za-z])/.exec(
    char + rest,
  );
  if (digits === null) return setOf(char);
  reader.at += digits[0].length - 1;
  const [, two, four, braced, control] = digits;
  if (control !== undefined) return setOf(String.fromCharCode(control.charCodeAt(0) % 32));
  const code = Number.parseInt((two ?? four ?? braced) as string, 16);
  if (code >= 0xd800 && code <= 0xdfff) throw new RegexError('names half of a surrogate pair');
  return unite([[code, code]]);
}

/** Any text: what an unanchored pattern may have around it. */
export const anyText: Regex = { kind: 'repeat', item: { kind: 'chars', set: anyChar }, min: 0, max: null };
