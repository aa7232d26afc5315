/**
 * Log lines on their way out. A reader that stalls (a pager, a pipe to a hung program) must not hold up the
 * work: beyond a bound lines are dropped, and when there is room again one line says how many.
 */
import type { Writable } from 'node:stream';

/** What may wait for a slow reader. */
const waitingBytesMax = 1024 * 1024;

export class LogSink {
  readonly #stream: Writable;
  #dropped = 0;

  constructor(stream: Writable) {
    this.#stream = stream;
    // a reader that is gone is no reason to end the service
    stream.on('error', () => {});
    stream.on('drain', () => this.#tellDropped());
  }

  write(line: string): void {
    if (this.#stream.writableLength > waitingBytesMax) {
      this.#dropped++;
      return;
    }
    this.#tellDropped();
    this.#stream.write(line);
  }

  #tellDropped(): void {
    if (this.#dropped === 0) return;
    const fields = { level: 40, time: Date.now(), dropped: this.#dropped };
    this.#dropped = 0;
    this.#stream.write(`${JSON.stringify({ ...fields, message: 'log lines dropped: nobody read them' })}\n`);
  }
}
