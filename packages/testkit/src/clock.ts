import type { Clock } from 'cortex-core/daemon/clock';

interface Timer {
  readonly dueMs: number;
  readonly fire: () => void;
}

/**
 * A clock that stands still until a test moves it. Timers fire in the order of their due time, those due at
 * the same time in the order they were set; between two of them all that waits on a settled promise runs.
 */
export class FakeClock implements Clock {
  readonly #startMs: number;
  #elapsedMs = 0;
  #timers: readonly Timer[] = [];

  /** `startMs`: what `now()` says at first, in ms since the epoch. */
  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#startMs = startMs;
  }

  /** How many timers and sleeps are waiting: a test's proof that nothing was left behind. */
  get pending(): number {
    return this.#timers.length;
  }

  now(): number {
    return this.#startMs + this.#elapsedMs;
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        timer.cancel();
        reject(signal?.reason);
      };
      const timer = this.setTimer(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  setTimer(ms: number, fire: () => void): { cancel(): void } {
    const timer: Timer = { dueMs: this.#elapsedMs + Math.max(0, ms), fire };
    this.#timers = [...this.#timers, timer];
    return { cancel: () => this.#remove(timer) };
  }

  /** Moves time on by `ms`, firing what falls due, also what is set on the way. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#elapsedMs + ms;
    await settle();
    for (let timer = this.#nextDue(untilMs); timer !== undefined; timer = this.#nextDue(untilMs)) {
      this.#elapsedMs = timer.dueMs;
      this.#remove(timer);
      timer.fire();
      await settle();
    }
    this.#elapsedMs = untilMs;
  }

  #nextDue(untilMs: number): Timer | undefined {
    return this.#timers
      .filter((timer) => timer.dueMs <= untilMs)
      .reduce<Timer | undefined>(
        (first, timer) => (first && first.dueMs <= timer.dueMs ? first : timer),
        undefined,
      );
  }

  #remove(timer: Timer): void {
    this.#timers = this.#timers.filter((other) => other !== timer);
  }
}

/** Lets every promise that can go on do so: microtasks run dry before an immediate. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
