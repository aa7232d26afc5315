/**
 * Server-sent events with the token ids that they are made of, between a neuron and a gateway.
 *
 * Problem: to go on with a broken answer one has to know which tokens the client has seen the text of, to the
 *          token; and what the client gets must be the neuron's bytes, with no work for each of them.
 * Design:  a comment line says how many bytes of events follow and their ids:
 *
 *              : tok 214 1178 9           events of one step, whole; ids of the tokens they show
 *              : err 120                  an error event: the answer broke here, for the reason it says
 *
 *          A frame is passed on whole or not at all, so ids and events never part. What is no frame is either
 *          a keep-alive, or the stream is an older neuron's, and all of it passes as it comes.
 *          To a reader that knows nothing of frames they are comments, which mean nothing.
 * Limits:  16 MiB a frame.
 */
import { sseKeepAlive } from './sse.ts';

export type Frame =
  /** `bytes` are whole events. */
  | { readonly kind: 'events'; readonly bytes: Uint8Array; readonly tokens: readonly number[] }
  | { readonly kind: 'error'; readonly bytes: Uint8Array }
  | { readonly kind: 'keepAlive' }
  /** The stream has no frames: these bytes and all that follow are as the neuron sent them. */
  | { readonly kind: 'plain'; readonly bytes: Uint8Array };

const frameBytesMax = 16 * 1024 * 1024;
/** Ids of a long text that was held back, e.g. a large tool call: 10 digits each. */
const lineBytesMax = 4 * 1024 * 1024;
const tokMark = ': tok ';
const errMark = ': err ';
const markLength = 6;
const encoder = new TextEncoder();
const decoder = new TextDecoder('latin1');
const keepAliveBytes = encoder.encode(sseKeepAlive);
const LF = 10;
const nothing = new Uint8Array(0);

/** `events`: whole events as text. */
export function encodeFrame(events: string, tokens: readonly number[]): string {
  const bytes = encoder.encode(events).length;
  const ids = tokens.length === 0 ? '' : ` ${tokens.join(' ')}`;
  return `${tokMark}${bytes}${ids}\n${events}`;
}

export function encodeErrorFrame(event: string): string {
  return `${errMark}${encoder.encode(event).length}\n${event}`;
}

/** Takes any chunking. */
export class FrameReader {
  #held: Uint8Array = nothing;
  #isPlain = false;

  /** Whether something has come that is not whole yet. */
  get isMidFrame(): boolean {
    return this.#held.length > 0;
  }

  /** Throws RangeError for a frame beyond the limit. */
  push(chunk: Uint8Array): readonly Frame[] {
    if (this.#isPlain) return [{ kind: 'plain', bytes: chunk }];
    let rest = this.#held.length === 0 ? chunk : join(this.#held, chunk);
    const frames: Frame[] = [];
    while (rest.length > 0) {
      const found = this.#next(rest);
      if (found === null) break;
      frames.push(found.frame);
      rest = rest.subarray(found.length);
    }
    // a copy: what is held for long must not hold the chunk it came in, and a Buffer's slice() is a view
    this.#held = rest.length === 0 ? nothing : new Uint8Array(rest);
    return frames;
  }

  #next(bytes: Uint8Array): { readonly frame: Frame; readonly length: number } | null {
    if (startsLike(bytes, keepAliveBytes)) {
      if (bytes.length < keepAliveBytes.length) return null;
      return { frame: { kind: 'keepAlive' }, length: keepAliveBytes.length };
    }
    const mark = decoder.decode(bytes.subarray(0, markLength));
    if (!tokMark.startsWith(mark) && !errMark.startsWith(mark)) return this.#plain(bytes);
    if (bytes.length < markLength) return null;
    const end = bytes.indexOf(LF, markLength);
    if (end === -1) {
      if (bytes.length > lineBytesMax) throw new RangeError('the line of a frame is too long');
      return null;
    }
    const numbers = numbersIn(bytes, markLength, end);
    const size = numbers?.[0];
    if (numbers === null || size === undefined) return this.#plain(bytes);
    if (size > frameBytesMax) throw new RangeError('a frame is too large');
    const length = end + 1 + size;
    if (bytes.length < length) return null;
    const events = bytes.subarray(end + 1, length);
    if (mark === errMark) return { frame: { kind: 'error', bytes: events }, length };
    return { frame: { kind: 'events', bytes: events, tokens: numbers.slice(1) }, length };
  }

  #plain(bytes: Uint8Array): { readonly frame: Frame; readonly length: number } {
    this.#isPlain = true;
    return { frame: { kind: 'plain', bytes }, length: bytes.length };
  }
}

/** Whole numbers with one blank between; null for anything else. */
function numbersIn(bytes: Uint8Array, start: number, end: number): number[] | null {
  const numbers: number[] = [];
  let value = -1;
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte === 0x20) {
      if (value < 0) return null;
      numbers.push(value);
      value = -1;
    } else if (byte >= 0x30 && byte <= 0x39 && value < 0x0fffffff) {
      value = (value < 0 ? 0 : value * 10) + (byte - 0x30);
    } else return null;
  }
  if (value < 0) return null;
  numbers.push(value);
  return numbers;
}

function startsLike(bytes: Uint8Array, whole: Uint8Array): boolean {
  // ": " begins a frame too: only what has more than that is told apart
  if (bytes.length < 3) return false;
  for (let at = 0; at < whole.length && at < bytes.length; at++) if (bytes[at] !== whole[at]) return false;
  return true;
}

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}
