/**
 * What is there of a JSON object whose text was cut off: open texts, lists and objects are closed, a name
 * without a value and half a word are left away. Null when nothing can be made of it.
 */
import type { JsonObject } from './request-body.ts';

/** The longest escape in a JSON text: \\u0000. */
const escapeChars = 6;

export function readPartialObject(text: string): JsonObject | null {
  const trimmed = text.trim();
  if (trimmed === '') return {};
  const whole = parseObjectOrNull(trimmed);
  if (whole !== null) return whole;
  for (const cut of cutsOf(trimmed)) {
    const value = parseObjectOrNull(cut);
    if (value !== null) return value;
  }
  return null;
}

/**
 * The arguments of a call that nothing cut: an object, or nothing, for which some models write null. Null
 * where they are something else.
 */
export function readArguments(text: string): JsonObject | null {
  const given = text.trim();
  return given === '' || given === 'null' ? {} : parseObjectOrNull(given);
}

/**
 * Whether a JSON text ends inside of a text, a list or an object: what would follow was cut off. Not so where
 * a text is followed by what cannot follow it: then its quotes are wrong, and say nothing about the end.
 */
export function isCutJson(text: string): boolean {
  const end = new JsonEnd();
  end.push(text);
  return end.isCut;
}

/** The same of a text that comes in pieces, of which nothing is kept. */
export class JsonEnd {
  #depth = 0;
  #inText = false;
  #isEscaped = false;
  #isBehindText = false;
  #isWrong = false;

  get isCut(): boolean {
    return !this.#isWrong && (this.#inText || this.#depth > 0);
  }

  push(piece: string): void {
    for (const char of piece) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (this.#inText && char === '\\') this.#isEscaped = true;
      else if (this.#inText) {
        if (char !== '"') continue;
        this.#inText = false;
        this.#isBehindText = true;
      } else this.#outside(char);
    }
  }

  #outside(char: string): void {
    if (char.trim() === '') return;
    if (this.#isBehindText && !',:}]'.includes(char)) this.#isWrong = true;
    this.#isBehindText = false;
    if (char === '"') this.#inText = true;
    else if (char === '{' || char === '[') this.#depth++;
    else if (char === '}' || char === ']') this.#depth--;
  }
}

function parseObjectOrNull(text: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as JsonObject)
      : null;
  } catch {
    return null;
  }
}

/** The text closed where it ends, then closed behind the last value that was whole, then the one before. */
function* cutsOf(text: string): Generator<string, void, void> {
  const closers: string[] = [];
  const safe: { readonly at: number; readonly close: string }[] = [];
  let inText = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (inText) {
      if (char === '\\') at++;
      else if (char === '"') inText = false;
      continue;
    }
    if (char === '"') {
      inText = true;
    } else if (char === '{' || char === '[') {
      closers.push(char === '{' ? '}' : ']');
      safe.push({ at: at + 1, close: closers.toReversed().join('') });
    } else if (char === '}' || char === ']') {
      closers.pop();
    } else if (char === ',') safe.push({ at, close: closers.toReversed().join('') });
  }
  const end = closers.toReversed().join('');
  if (!inText) yield text + end;
  // without what may be an escape that was cut in two
  for (let cut = 0; inText && cut < escapeChars; cut++) yield `${text.slice(0, text.length - cut)}"${end}`;
  // the last few are enough: each names a value fewer
  for (const { at, close } of safe.slice(-4).toReversed()) yield text.slice(0, at) + close;
}
