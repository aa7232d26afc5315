/**
 * One server-sent event stream to one client.
 *
 * Problem: the engine yields on its own beat and must not wait for a slow reader; headers that are out turn a
 * clear status into an error event; silence makes proxies hang up.
 * Design: headers go out with the first event, or after a short grace, so that what fails at once still gets
 * its status. From then on a comment follows every few seconds of silence. What the socket does not take
 * piles up to a bound; beyond it the client is cut, which aborts the exchange and with it the generation.
 * After the last event the rest has a while to leave. A gateway may ask for frames that say which tokens the
 * events are made of (cortex-core/wire/token-frames.ts).
 * Limits: 4 MiB unread, 60 s to read the rest.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { type AppError, toOpenAiEnvelope } from 'cortex-core/wire/errors';
import { encodeSse, sseHeaders, sseKeepAlive } from 'cortex-core/wire/sse';
import { encodeErrorFrame, encodeFrame } from 'cortex-core/wire/token-frames';

const headerGraceMs = 200;
const keepAliveMs = 5000;
const bufferedBytesMax = 4 * 1024 * 1024;
const lingerMs = 60_000;

export class SseStream {
  readonly #exchange: Exchange;
  readonly #clock: Clock;
  #timer: { cancel(): void };
  #closed = false;
  #buffered = '';
  #flushing = false;
  readonly #isFramed: boolean;
  /** Of tokens that no event has shown yet. */
  #tokens: number[] = [];

  constructor(exchange: Exchange, clock: Clock, isFramed = false) {
    this.#exchange = exchange;
    this.#clock = clock;
    this.#isFramed = isFramed;
    this.#timer = clock.setTimer(headerGraceMs, () => this.#beat());
    exchange.response.once('close', () => this.close());
  }

  /** Whether an error can no longer become a status. */
  get isOpen(): boolean {
    return this.#exchange.response.headersSent;
  }

  /** What one step shows, and the tokens it took. */
  sendStep(values: readonly unknown[], tokens: readonly number[]): void {
    if (this.#isFramed) this.#tokens.push(...tokens);
    if (values.length === 0) return;
    const events = values.map((value) => encodeSse(value)).join('');
    this.#write(this.#isFramed ? encodeFrame(events, this.#tokens) : events);
    this.#tokens = [];
  }

  /** The last events, `[DONE]` and the end. In one frame: a reader has all of them or none. */
  end(last: readonly unknown[] = []): void {
    if (this.#closed) return;
    this.sendStep([...last, '[DONE]'], []);
    this.#end();
  }

  /** The error as an event, and the end without `[DONE]`: nobody takes this answer for a whole one. */
  fail(error: AppError): void {
    if (this.#closed) return;
    const event = encodeSse(toOpenAiEnvelope(error));
    this.#write(this.#isFramed ? encodeErrorFrame(event) : event);
    this.#end();
  }

  /** Stops the timer. Idempotent; ends nothing. */
  close(): void {
    this.#closed = true;
    this.#timer.cancel();
  }

  /** Events of one turn of the event loop become one write. */
  #write(text: string): void {
    if (this.#closed) return;
    this.#buffered += text;
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    const { response } = this.#exchange;
    if (this.#buffered === '' || response.destroyed) return;
    const text = this.#buffered;
    this.#buffered = '';
    if (!response.headersSent) response.writeHead(200, sseHeaders);
    response.write(text);
    if (response.writableLength > bufferedBytesMax) {
      this.close();
      response.destroy();
      return;
    }
    if (this.#closed) return;
    this.#timer.cancel();
    this.#timer = this.#clock.setTimer(keepAliveMs, () => this.#beat());
  }

  /** A client that never reads the end would hold its socket and the unread bytes for good. */
  #end(): void {
    this.#flush();
    this.close();
    const { response } = this.#exchange;
    if (response.destroyed) return;
    const linger = this.#clock.setTimer(lingerMs, () => response.destroy());
    response.once('close', () => linger.cancel());
    response.end();
  }

  #beat(): void {
    if (!this.#closed) this.#write(sseKeepAlive);
  }
}
