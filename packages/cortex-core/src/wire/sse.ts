/**
 * Server-sent events (WHATWG HTML, section 9.2) on bytes. The parser takes any chunking, LF, CR or CRLF, and
 * decodes text only where an event is whole, so that a character split over two chunks stays one character.
 */

export interface SseEvent {
  /** The `event:` field, empty when there was none. */
  readonly event: string;
  readonly data: string;
}

const LF = 10;
const CR = 13;
/** Of whole lines: it keeps nothing between two of them. */
const decoder = new TextDecoder('utf-8');

export class SseParser {
  readonly #lineBytesMax: number;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #skipLf = false;
  #event = '';
  #data: string[] = [];

  constructor(lineBytesMax = 16 * 1024 * 1024) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** Events that this chunk completed. Throws RangeError when a line exceeds the limit. */
  push(chunk: Uint8Array): SseEvent[] {
    const events: SseEvent[] = [];
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i];
      if (this.#skipLf) {
        this.#skipLf = false;
        if (byte === LF) {
          start = i + 1;
          continue;
        }
      }
      if (byte !== LF && byte !== CR) continue;
      this.#skipLf = byte === CR;
      this.#line(this.#takeLine(chunk.subarray(start, i)), events);
      start = i + 1;
    }
    // a copy: what is held for long must not hold the chunk it came in, and a Buffer's slice() is a view
    if (start < chunk.length) this.#keep(new Uint8Array(chunk.subarray(start)));
    return events;
  }

  #keep(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes > this.#lineBytesMax) throw new RangeError('an event line is too long');
  }

  #takeLine(tail: Uint8Array): string {
    if (this.#pending.length === 0) return decoder.decode(tail);
    const whole = new Uint8Array(this.#pendingBytes + tail.length);
    let at = 0;
    for (const part of this.#pending) {
      whole.set(part, at);
      at += part.length;
    }
    whole.set(tail, at);
    this.#pending = [];
    this.#pendingBytes = 0;
    return decoder.decode(whole);
  }

  #line(line: string, events: SseEvent[]): void {
    if (line === '') {
      if (this.#data.length > 0) events.push({ event: this.#event, data: this.#data.join('\n') });
      this.#event = '';
      this.#data = [];
      return;
    }
    if (line.startsWith(':')) return;
    const colon = line.indexOf(':');
    const field = colon === -1 ? line : line.slice(0, colon);
    let value = colon === -1 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
  }
}

/** `data: {...}` with an optional `event:` line. */
export function encodeSse(value: unknown, event?: string): string {
  const data = typeof value === 'string' ? value : JSON.stringify(value);
  return event === undefined ? `data: ${data}\n\n` : `event: ${event}\ndata: ${data}\n\n`;
}

/** A comment frame: keeps a connection alive, means nothing. */
export const sseKeepAlive = ': keep-alive\n\n';

export const sseHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
} as const;
