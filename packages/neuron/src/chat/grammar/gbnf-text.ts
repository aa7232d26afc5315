/** Writing GBNF, the grammar notation of llama.cpp (grammars/README.md there). Pure text. */
import type { CharSet } from './char-set.ts';

/** A quoted literal that matches exactly `text`; the empty text matches nothing more. */
export function toLiteral(text: string): string {
  return `"${[...text].map((char) => escapeChar(char.codePointAt(0) as number, '"\\')).join('')}"`;
}

/** A character class that matches one code point of `set`. */
export function toClass(set: CharSet): string {
  const part = ([from, to]: readonly [number, number]): string => {
    const [first, last] = [escapeChar(from, '[]\\-^'), escapeChar(to, '[]\\-^')];
    return from === to ? first : `${first}-${last}`;
  };
  return `[${set.map(part).join('')}]`;
}

/** A character class that matches one code point that is not in `chars`. */
export function toClassExcept(chars: Iterable<string>): string {
  return `[^${[...chars].map((char) => escapeChar(char.codePointAt(0) as number, '[]\\-^')).join('')}]`;
}

/** Alternatives in parentheses; one alone stands as it is. */
export function toAlternatives(bodies: readonly string[]): string {
  return bodies.length === 1 ? (bodies[0] as string) : `(${bodies.join(' | ')})`;
}

/** `body` from `min` to `max` times; null = without end. */
export function toRepeat(body: string, min: number, max: number | null): string {
  if (min === 1 && max === 1) return body;
  if (max === 0) return '""';
  const item = isAtom(body) ? body : `(${body})`;
  if (min === 0 && max === 1) return `${item}?`;
  if (max === null) return min === 0 ? `${item}*` : min === 1 ? `${item}+` : `${item}{${min},}`;
  return min === max ? `${item}{${min}}` : `${item}{${min},${max}}`;
}

/** One rule name or one character class, which a repetition may follow directly. */
function isAtom(body: string): boolean {
  return /^[a-zA-Z0-9-]+$/.test(body) || /^\[(?:[^\]\\]|\\.)*\]$/.test(body);
}

/** A plain printable ASCII character as itself, everything else by its number. */
function escapeChar(code: number, special: string): string {
  const char = String.fromCodePoint(code);
  if (code >= 0x20 && code < 0x7f && !special.includes(char)) return char;
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, '0')}`;
  if (code <= 0xffff) return `\\u${code.toString(16).padStart(4, '0')}`;
  return `\\U${code.toString(16).padStart(8, '0')}`;
}
