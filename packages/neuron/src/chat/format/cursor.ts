/**
 * The text of a turn as a parser reads it: forwards, in order, waiting for what has not arrived yet.
 *
 * Problem: a parser that is handed pieces must decide the same whatever the pieces are.
 * Design:  parsers are generators that read one text and `yield` when they need more of it, so that they are
 *          written as if the whole text were there and cannot see where it was cut. A parser that may have to
 *          take back what it read calls `hold()`; until `release()` the text from there on is kept.
 * Limits:  at most `heldMax` characters are held; then the reading is rejected, so that nothing a model says
 *          can keep a stream silent or a buffer growing.
 */

/** A reading in steps: yields when it waits for text, and is resumed when there is more, or the end. */
export type Steps<T = void> = Generator<undefined, T, undefined>;

/** Thrown by a reading that finds something else than what it was made for; see `attempt`. */
export const rejection = Symbol('not what was expected');

const heldMax = 64 * 1024;
const blanks = ' \t\r\n';

function isBlank(char: string): boolean {
  return char !== '' && blanks.includes(char);
}

export class Cursor {
  #text = '';
  /** Index into `#text` of the next character. */
  #at = 0;
  /** Index into `#text` where what may be read again begins; -1 = nothing is held. */
  #held = -1;
  #ended = false;
  /** Characters looked at so far, repeated looks included: the measure of work. */
  steps = 0;

  push(text: string): void {
    const from = this.#held === -1 ? this.#at : this.#held;
    this.#text = this.#text.slice(from) + text;
    this.#at -= from;
    if (this.#held !== -1) this.#held = 0;
  }

  end(): void {
    this.#ended = true;
  }

  hold(): void {
    this.#held = this.#at;
  }

  release(): void {
    this.#held = -1;
  }

  /** Back to where `hold` was called; the hold ends. */
  rewind(): void {
    if (this.#held !== -1) this.#at = this.#held;
    this.#held = -1;
  }

  /** Gives up what was read since `hold` if it passes the test; the hold ends then. */
  takeHeld(test: (text: string) => boolean): boolean {
    if (this.#held === -1 || !test(this.#text.slice(this.#held, this.#at))) return false;
    this.#held = -1;
    return true;
  }

  /** The next character (a UTF-16 unit) without taking it; '' at the end of the turn. */
  *peek(): Steps<string> {
    while (this.#at >= this.#text.length) {
      if (this.#ended) return '';
      yield;
    }
    this.#count(1);
    return this.#text[this.#at] as string;
  }

  /** Takes `count` characters that were seen before. */
  take(count = 1): string {
    this.#at += count;
    return this.#text.slice(this.#at - count, this.#at);
  }

  /** Takes what has arrived up to the next match of a global `pattern` of one character; may be ''. */
  takeUpTo(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    const end = found === null ? this.#text.length : found.index;
    this.#count(end - this.#at);
    return this.take(end - this.#at);
  }

  /** The longest of the literals that the text goes on with, not taken; null when with none. */
  *lookingAt(literals: readonly string[]): Steps<string | null> {
    for (;;) {
      const rest = this.#text.length - this.#at;
      let found: string | null = null;
      let isOpen = false;
      for (const literal of literals) {
        this.#count(1);
        if (literal.length <= rest) {
          if (this.#text.startsWith(literal, this.#at)) {
            if (found === null || literal.length > found.length) found = literal;
          }
        } else if (!this.#ended && literal.startsWith(this.#text.slice(this.#at))) {
          if (found === null || literal.length > found.length) isOpen = true;
        }
      }
      if (!isOpen) return found;
      yield;
    }
  }

  /** Takes one of the literals if the text goes on with it. */
  *takeOneOf(literals: readonly string[]): Steps<string | null> {
    const found = yield* this.lookingAt(literals);
    if (found !== null) this.take(found.length);
    return found;
  }

  *expect(literal: string): Steps {
    if ((yield* this.takeOneOf([literal])) === null) throw rejection;
  }

  /** Takes blanks (space, tab, line ends) and gives them back. */
  *takeBlanks(): Steps<string> {
    let taken = '';
    while (isBlank(yield* this.peek())) taken += this.take();
    return taken;
  }

  /**
   * Hands on everything before the next marker, as soon as it is certain to be before it, and stops in front
   * of the marker. Null at the end of the turn; what the turn ends with may begin a marker, and `onText`
   * gets it too unless `dropsBroken`.
   */
  *until(markers: Markers, onText: (text: string) => void, dropsBroken = false): Steps<string | null> {
    for (;;) {
      const whole = markers.find(this.#text, this.#at);
      const begun = markers.findBegun(this.#text, this.#at, whole);
      const isBroken = begun < whole && this.#ended && !dropsBroken;
      const end = isBroken ? whole : begun;
      this.#count(2 * (end - this.#at) + 1);
      if (end > this.#at) onText(this.take(end - this.#at));
      if (begun === whole && whole < this.#text.length) {
        const found = yield* this.lookingAt(markers.literals);
        if (found !== null) return found;
      }
      if (this.#ended) {
        if (begun === this.#text.length || dropsBroken) {
          this.#at = this.#text.length;
          return null;
        }
      } else yield;
    }
  }

  /** Takes the rest of the turn if the turn ended within one of the literals. */
  takeCut(literals: readonly string[]): boolean {
    const rest = this.#text.slice(this.#at);
    if (!this.#ended || !literals.some((literal) => literal.startsWith(rest))) return false;
    this.take(rest.length);
    return true;
  }

  #count(count: number): void {
    this.steps += count;
    if (this.#held !== -1 && this.#at - this.#held > heldMax) throw rejection;
  }
}

/** Literals to search for together. */
export class Markers {
  readonly literals: readonly string[];
  readonly #any: RegExp | null;
  readonly #lengthMax: number;

  constructor(literals: readonly string[]) {
    this.literals = [...new Set(literals)].filter((literal) => literal !== '');
    const escaped = this.literals.map((literal) => literal.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'));
    this.#any = escaped.length === 0 ? null : new RegExp(escaped.join('|'), 'g');
    this.#lengthMax = Math.max(0, ...this.literals.map((literal) => literal.length));
  }

  /** Index of the first literal in `text` from `from` on; its length when there is none. */
  find(text: string, from: number): number {
    if (this.#any === null) return text.length;
    this.#any.lastIndex = from;
    return this.#any.exec(text)?.index ?? text.length;
  }

  /**
   * Index in front of `before` where a literal begins that the end of `text` cuts; `before` when there
   * is none.
   */
  findBegun(text: string, from: number, before: number): number {
    for (let at = Math.max(from, text.length - this.#lengthMax + 1); at < before; at++) {
      const rest = text.slice(at);
      if (this.literals.some((literal) => literal.startsWith(rest))) return at;
    }
    return before;
  }
}
