/**
 * Server-sent events of a provider that pass as they came, each looked at first. Those before a fault pass;
 * the next call throws it. What of the last event is still missing is held.
 */
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import { WholeEvents } from '../whole-events.ts';
import type { ProviderStream } from './provider-wire.ts';

const LF = 10;

export class CheckedEvents implements ProviderStream {
  readonly #check: (data: string) => void;
  readonly #atEnd: () => void;
  readonly #whole = new WholeEvents();
  readonly #parser = new SseParser();
  #failure: AppError | null = null;

  /** `check` throws an AppError for an event that may not pass; `atEnd` where the answer is not complete. */
  constructor(check: (data: string) => void, atEnd: () => void = () => {}) {
    this.#check = check;
    this.#atEnd = atEnd;
  }

  push(chunk: Uint8Array): Uint8Array {
    if (this.#failure !== null) throw this.#failure;
    const bytes = this.#whole.push(chunk);
    const good = this.#goodUntil(bytes);
    if (good === 0 && this.#failure !== null) throw this.#failure;
    return bytes.subarray(0, good);
  }

  end(): Uint8Array {
    if (this.#failure !== null) throw this.#failure;
    this.#atEnd();
    return this.#whole.drop();
  }

  /** Offset behind the last event that may pass; all of them when there is no fault. */
  #goodUntil(bytes: Uint8Array): number {
    let good = 0;
    try {
      for (let from = 0; from < bytes.length; ) {
        const found = bytes.indexOf(LF, from);
        const to = found === -1 ? bytes.length : found + 1;
        const events = this.#parser.push(bytes.subarray(from, to));
        for (const { data } of events) this.#check(data);
        if (events.length > 0) good = to;
        from = to;
      }
      return bytes.length;
    } catch (thrown) {
      this.#failure =
        thrown instanceof AppError
          ? thrown
          : new AppError('upstream_malformed_response', 'the provider sent an event beyond all measure');
      return good;
    }
  }
}
