/** A request that ends when its client leaves, or when it has been silent for too long. */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { Dispatcher } from 'undici';

export interface Watched {
  readonly signal: AbortSignal;
  /** Silence after which the request fails. */
  readonly idleMs: number;
  /** Asked when the silence is over: true waits on. */
  readonly stillAlive?: () => boolean;
  /** Only a line that ends breaks the silence, as in a stream of events: single bytes may be none ever. */
  readonly byLines?: boolean;
}

const lineEnd = '\n'.charCodeAt(0);

/** Aborts a request that the client left or that has been silent for too long. */
export class IdleWatch {
  readonly #controller = new AbortController();
  readonly #clock: Clock;
  readonly #name: string;
  readonly #request: Watched;
  readonly #toError: (cause: unknown) => AppError;
  readonly #onAbort: () => void;
  #lastMs: number;
  #timer: { cancel(): void } | null = null;
  /** Since when a chunk is with its reader: what comes behind it is not waited for meanwhile. */
  #heldMs: number | null = null;

  /** `toError`: what a failed connection is called. */
  constructor(clock: Clock, name: string, request: Watched, toError: (cause: unknown) => AppError) {
    this.#clock = clock;
    this.#name = name;
    this.#request = request;
    this.#toError = toError;
    this.#lastMs = clock.monotonicMs();
    this.#onAbort = () => this.stop(request.signal.reason);
    if (request.signal.aborted) this.#onAbort();
    else request.signal.addEventListener('abort', this.#onAbort, { once: true });
    this.#arm(request.idleMs);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  hold(): void {
    this.#heldMs = this.#clock.monotonicMs();
  }

  /** The reader is done with that chunk. */
  release(chunk: Uint8Array): void {
    const nowMs = this.#clock.monotonicMs();
    const isLife = this.#request.byLines !== true || chunk.includes(lineEnd);
    // the time that its reader took is not the sender's
    this.#lastMs = isLife ? nowMs : this.#lastMs + nowMs - (this.#heldMs ?? nowMs);
    this.#heldMs = null;
  }

  touch(): void {
    this.#lastMs = this.#clock.monotonicMs();
  }

  stop(reason: unknown, answer?: Dispatcher.ResponseData): void {
    this.end();
    this.#controller.abort(reason);
    answer?.body.on('error', () => {});
    answer?.body.destroy();
  }

  end(): void {
    this.#timer?.cancel();
    this.#request.signal.removeEventListener('abort', this.#onAbort);
  }

  /** The reason of the abort if there was one, else a connection error. */
  explain(thrown: unknown): unknown {
    return this.signal.aborted ? this.signal.reason : this.#toError(thrown);
  }

  #arm(ms: number): void {
    this.#timer = this.#clock.setTimer(ms, () => {
      const left = this.#request.idleMs - (this.#clock.monotonicMs() - this.#lastMs);
      if (left > 0) return this.#arm(left);
      if (this.#heldMs !== null || this.#request.stillAlive?.()) return this.#arm(this.#request.idleMs);
      const secs = Math.round(this.#request.idleMs / 1000);
      const what = this.#request.byLines === true ? 'no event' : 'nothing';
      this.stop(new AppError('upstream_timeout', `${this.#name} sent ${what} for ${secs} s; try again`));
    });
  }
}

/** The body's bytes; ends the watch with them. */
export async function* chunksOf(
  answer: Dispatcher.ResponseData,
  watch: IdleWatch,
  name: string,
): AsyncGenerator<Buffer, void, void> {
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      watch.hold();
      yield chunk;
      watch.release(chunk);
    }
  } catch (thrown) {
    if (watch.signal.aborted) throw watch.signal.reason;
    throw new AppError(
      'upstream_connection_error',
      `${name} broke off in the middle of its answer; try again`,
      {
        cause: thrown,
      },
    );
  } finally {
    watch.end();
  }
}
