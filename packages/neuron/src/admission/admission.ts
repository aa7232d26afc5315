/**
 * May this request run now? One `Admission` per loaded model.
 *
 * Design: permits equal to the engine's useful concurrency; waiters stand in one first-in
 * first-out queue with
 * a bound on its length and on each wait. Every state change is synchronous, so no counter can be seen half
 * changed, and each waiter leaves the queue exactly once: granted, timed out, aborted or refused.
 * Limits: max_in_flight, max_queue_depth, max_wait_secs, max_per_principal (0 = off).
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';

export interface AdmissionLimits {
  readonly maxInFlight: number;
  readonly maxQueueDepth: number;
  readonly maxWaitMs: number;
  /** Requests of one principal, running and waiting; 0 = no limit. */
  readonly maxPerPrincipal: number;
}

export interface AdmissionCounters {
  readonly inFlight: number;
  readonly queueDepth: number;
  readonly rejectedQueueFull: number;
  readonly rejectedTimeout: number;
  readonly rejectedPerPrincipal: number;
}

export interface Permit {
  /** Milliseconds spent in the queue. */
  readonly queueMs: number;
  /** Idempotent. */
  release(): void;
}

interface Waiter {
  readonly principal: string | null;
  readonly grant: () => void;
  readonly refuse: (error: unknown) => void;
}

export class Admission {
  readonly #limits: AdmissionLimits;
  readonly #clock: Clock;
  readonly #queue: Waiter[] = [];
  readonly #perPrincipal = new Map<string, number>();
  readonly #idleListeners = new Set<() => void>();
  #inFlight = 0;
  #rejectedQueueFull = 0;
  #rejectedTimeout = 0;
  #rejectedPerPrincipal = 0;
  #closed: (() => AppError) | null = null;

  constructor(limits: AdmissionLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  get counters(): AdmissionCounters {
    return {
      inFlight: this.#inFlight,
      queueDepth: this.#queue.length,
      rejectedQueueFull: this.#rejectedQueueFull,
      rejectedTimeout: this.#rejectedTimeout,
      rejectedPerPrincipal: this.#rejectedPerPrincipal,
    };
  }

  get limits(): AdmissionLimits {
    return this.#limits;
  }

  /** Resolves when the request may run; rejects with the refusal, or with the signal's reason. */
  acquire(principal: string | null, signal: AbortSignal): Promise<Permit> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      this.#refuseNow(principal);
      this.#count(principal, 1);
      if (this.#inFlight < this.#limits.maxInFlight && this.#queue.length === 0) {
        this.#inFlight++;
        return resolve(this.#permit(principal, 0));
      }
      this.#enqueue(principal, signal, resolve, reject);
    });
  }

  /** Refuses everyone who waits and whoever comes, with `reason()`. Who runs goes on. Idempotent. */
  close(reason: () => AppError = shuttingDown): void {
    this.#closed ??= reason;
    for (const waiter of [...this.#queue]) waiter.refuse(reason());
  }

  /** Resolves when nothing runs any more. */
  async idle(signal: AbortSignal): Promise<void> {
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.#idleListeners.delete(done);
        reject(signal.reason);
      };
      const done = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal.aborted) return reject(signal.reason);
      this.#idleListeners.add(done);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Seconds until a retry makes sense: two for everyone who is ahead. */
  retryAfterSecs(): number {
    const pending = this.#inFlight + this.#queue.length;
    const ahead = Math.max(pending - this.#limits.maxInFlight, 0) + 1;
    return Math.min(Math.max(ahead * 2, 1), 120);
  }

  #refuseNow(principal: string | null): void {
    if (this.#closed !== null) throw this.#closed();
    const { maxPerPrincipal, maxQueueDepth, maxInFlight } = this.#limits;
    if (
      principal !== null &&
      maxPerPrincipal > 0 &&
      (this.#perPrincipal.get(principal) ?? 0) >= maxPerPrincipal
    ) {
      this.#rejectedPerPrincipal++;
      throw new AppError(
        'rate_limit_exceeded',
        `this account already has ${maxPerPrincipal} requests here; wait for one to end`,
        { retryAfterSecs: this.retryAfterSecs() },
      );
    }
    const full = this.#inFlight >= maxInFlight || this.#queue.length > 0;
    if (full && this.#queue.length >= maxQueueDepth) {
      this.#rejectedQueueFull++;
      throw this.#overloaded('the queue of this model is full; retry later');
    }
  }

  #enqueue(
    principal: string | null,
    signal: AbortSignal,
    resolve: (permit: Permit) => void,
    reject: (error: unknown) => void,
  ): void {
    const sinceMs = this.#clock.monotonicMs();
    const leave = (): void => {
      const at = this.#queue.indexOf(waiter);
      if (at !== -1) this.#queue.splice(at, 1);
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    };
    const waiter: Waiter = {
      principal,
      grant: () => {
        leave();
        this.#inFlight++;
        resolve(this.#permit(principal, this.#clock.monotonicMs() - sinceMs));
      },
      refuse: (error) => {
        leave();
        this.#count(principal, -1);
        reject(error);
      },
    };
    const onAbort = (): void => waiter.refuse(signal.reason);
    const timer = this.#clock.setTimer(this.#limits.maxWaitMs, () => {
      this.#rejectedTimeout++;
      waiter.refuse(this.#overloaded('waited too long for a free slot of this model; retry later'));
    });
    signal.addEventListener('abort', onAbort, { once: true });
    this.#queue.push(waiter);
  }

  #permit(principal: string | null, queueMs: number): Permit {
    let released = false;
    return {
      queueMs,
      release: () => {
        if (released) return;
        released = true;
        this.#inFlight--;
        this.#count(principal, -1);
        if (this.#closed === null && this.#inFlight < this.#limits.maxInFlight) this.#queue[0]?.grant();
        if (this.#inFlight === 0) {
          for (const listener of this.#idleListeners) listener();
          this.#idleListeners.clear();
        }
      },
    };
  }

  #count(principal: string | null, by: number): void {
    if (principal === null) return;
    const count = (this.#perPrincipal.get(principal) ?? 0) + by;
    if (count === 0) this.#perPrincipal.delete(principal);
    else this.#perPrincipal.set(principal, count);
  }

  #overloaded(message: string): AppError {
    return new AppError('overloaded', message, { retryAfterSecs: this.retryAfterSecs() });
  }
}

function shuttingDown(): AppError {
  return new AppError('shutting_down', 'this neuron is shutting down; retry elsewhere', {
    retryAfterSecs: 15,
  });
}
