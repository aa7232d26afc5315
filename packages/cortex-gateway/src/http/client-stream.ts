/**
 * The client's side of an answer: waits when it reads slowly, keeps it alive when there is nothing to say.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { sseHeaders } from 'cortex-core/wire/sse';

export class ClientStream {
  readonly #exchange: Exchange;
  readonly #clock: Clock;
  #timer: { cancel(): void } | null = null;
  #lastMs = 0;
  /** It was opened as one: what fails now can be said in it. */
  isStream = false;

  constructor(exchange: Exchange, clock: Clock) {
    this.#exchange = exchange;
    this.#clock = clock;
  }

  get opened(): boolean {
    return this.#exchange.response.headersSent;
  }

  /** Sends 200 and the headers of a stream at once. */
  openStream(headers: Readonly<Record<string, string>> = sseHeaders): void {
    if (this.opened) return;
    this.isStream = true;
    this.#exchange.response.writeHead(200, headers);
    this.#exchange.response.flushHeaders();
  }

  /** From now on `bytes` are sent whenever nothing else was for `everyMs`. */
  keepAlive(everyMs: number, bytes: () => Uint8Array): void {
    this.stopKeepAlive();
    this.#lastMs = this.#clock.monotonicMs();
    const arm = (ms: number): void => {
      this.#timer = this.#clock.setTimer(ms, () => {
        const left = everyMs - (this.#clock.monotonicMs() - this.#lastMs);
        if (left > 0) return arm(left);
        const { response } = this.#exchange;
        // a client that does not read gets none: they would only pile up
        if (response.writableLength === 0 && !response.writableEnded) response.write(bytes());
        this.#lastMs = this.#clock.monotonicMs();
        arm(everyMs);
      });
    };
    arm(everyMs);
  }

  stopKeepAlive(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** Resolves when the client can take more; rejects when it is gone. */
  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    this.#lastMs = this.#clock.monotonicMs();
    const { response, signal } = this.#exchange;
    if (response.write(bytes)) return;
    await new Promise<void>((resolve, reject) => {
      const done = (): void => {
        response.off('drain', onDrain);
        signal.removeEventListener('abort', onAbort);
      };
      const onDrain = (): void => {
        done();
        resolve();
      };
      const onAbort = (): void => {
        done();
        reject(signal.reason);
      };
      if (signal.aborted) return onAbort();
      response.once('drain', onDrain);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  end(last?: Uint8Array): void {
    this.stopKeepAlive();
    const { response } = this.#exchange;
    if (last !== undefined && last.length > 0) response.end(last);
    else response.end();
  }
}
