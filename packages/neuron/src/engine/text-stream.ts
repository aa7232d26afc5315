/**
 * Token bytes -> text that may be shown.
 *
 * Two things are held back: the bytes of a character that is not complete yet, and text that could still
 * become a stop string. Whole characters only go out, and nothing of a stop ever does.
 */

/** What a vocabulary entry adds to the text. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** The same as text, when the bytes are whole characters; null when they are part of one. */
  readonly text: string | null;
}

export interface Pushed {
  /** Safe to show now. */
  readonly text: string;
  /** The stop that ended the text, null while it goes on. */
  readonly stop: string | null;
}

export interface TextStream {
  push(piece: Piece): Pushed;
  /** What is still held, when the answer ends; an unfinished character becomes U+FFFD. */
  flush(): string;
}

export function createTextStream(stops: readonly string[]): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let isMidCharacter = false;
  let held = '';

  const decode = (piece: Piece): string => {
    if (!isMidCharacter && piece.text !== null) return piece.text;
    const text = decoder.decode(piece.bytes, { stream: true });
    isMidCharacter = true;
    return text;
  };
  return {
    push(piece) {
      const text = held + decode(piece);
      if (stops.length === 0) return { text, stop: null };
      const found = findStop(text, stops);
      if (found !== null) {
        held = '';
        return { text: text.slice(0, found.index), stop: found.stop };
      }
      const keep = heldLength(text, stops);
      held = keep === 0 ? '' : text.slice(text.length - keep);
      return { text: keep === 0 ? text : text.slice(0, text.length - keep), stop: null };
    },
    flush() {
      const text = held + (isMidCharacter ? decoder.decode() : '');
      held = '';
      isMidCharacter = false;
      return text;
    },
  };
}

/** The stop that begins first; of two at one place the longer. */
function findStop(text: string, stops: readonly string[]): { index: number; stop: string } | null {
  let best: { index: number; stop: string } | null = null;
  for (const stop of stops) {
    const index = text.indexOf(stop);
    if (index < 0) continue;
    if (best === null || index < best.index || (index === best.index && stop.length > best.stop.length)) {
      best = { index, stop };
    }
  }
  return best;
}

/** Length of the longest end of `text` that is a beginning of a stop. */
function heldLength(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(stop.slice(0, length))) longest = length;
    }
  }
  return longest;
}
