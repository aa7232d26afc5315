/**
 * The events of a stream that several may read, each from where it likes, while they come.
 *
 * Design: an event's place is its `sequence_number`: both count from 0. A slow reader holds nobody up.
 * Limits: characters; the oldest events go, and a reader that still needed them is cut.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { sseHeaders, sseKeepAlive } from 'cortex-core/wire/sse';
import { drained } from './drained.ts';

export class EventLog {
  readonly #charsMax: number;
  readonly #events: string[] = [];
  #chars = 0;
  /** The first that is still there. */
  #first = 0;
  #isOver = false;
  readonly #waiting = new Set<() => void>();

  constructor(charsMax: number) {
    this.#charsMax = charsMax;
  }

  /** The number of the next event. */
  get length(): number {
    return this.#events.length;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** `bytes`: whole events, or none. */
  add(bytes: Uint8Array): void {
    for (const event of splitEvents(Buffer.from(bytes).toString('utf8'))) {
      this.#events.push(event);
      this.#chars += event.length;
    }
    for (; this.#chars > this.#charsMax; this.#first++) {
      this.#chars -= this.#events[this.#first]?.length ?? 0;
      this.#events[this.#first] = '';
    }
    this.#wake();
  }

  /** Nothing comes any more. */
  end(): void {
    this.#isOver = true;
    this.#wake();
  }

  /** The text from that event on, empty where it is still to come; null: some of it is gone. */
  from(at: number): string | null {
    return at < this.#first ? null : this.#events.slice(at).join('');
  }

  /** Resolves when there is more than `length` events, when it is over, or when `signal` aborts. */
  more(length: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.#events.length <= length && !this.#isOver && !signal.aborted) return;
        this.#waiting.delete(look);
        signal.removeEventListener('abort', look);
        resolve();
      };
      this.#waiting.add(look);
      signal.addEventListener('abort', look, { once: true });
      look();
    });
  }

  #wake(): void {
    for (const look of [...this.#waiting]) look();
  }
}

/** Their text, each with the empty line that ends it. */
export function splitEvents(text: string): readonly string[] {
  return text === '' ? [] : text.split(/(?<=\n\n)/);
}

/** Sends what there is from event `from` on, and what comes, to its end, or until the client leaves. */
export async function sendEvents(
  { response, signal }: Pick<Exchange, 'response' | 'signal'>,
  log: EventLog,
  from: number,
  { clock, keepAliveMs }: { readonly clock: Clock; readonly keepAliveMs: number },
): Promise<void> {
  response.writeHead(200, sseHeaders);
  response.flushHeaders();
  const keepAlive = (): void => {
    if (response.writableLength === 0) response.write(sseKeepAlive);
    timer = clock.setTimer(keepAliveMs, keepAlive);
  };
  let timer = clock.setTimer(keepAliveMs, keepAlive);
  try {
    for (let at = from; !signal.aborted; await log.more(at, signal)) {
      const text = log.from(at);
      if (text === null) return void response.destroy();
      at = Math.max(at, log.length);
      if (text !== '' && !response.write(text)) await drained(response, signal, clock);
      if (log.isOver && at >= log.length) break;
    }
    // one that closed its half only is let go too
    if (signal.aborted) response.destroy();
    else response.end();
  } finally {
    timer.cancel();
  }
}
