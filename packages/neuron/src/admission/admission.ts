/**
 * May this request run now? One `Admission` per loaded model.
 *
 * Problem: a device does a few things at once; whoever is beyond that waits, and must neither wait for ever
 * nor be served after those who came later, nor leave a count behind when it goes away.
 * Design: permits equal to the engine's useful concurrency, and one queue with a bound on its length and on
 * each wait. A free permit goes to the principal that runs least (next-waiter.ts). Every state change is
 * synchronous, so no counter can be seen half changed, and each waiter leaves the queue exactly once:
 * granted, timed out, aborted or refused. How long permits are held is measured, and Retry-After says when
 * those ahead will be through.
 * Limits: max_in_flight, max_queue_depth, max_wait_secs, max_per_principal (0 = off).
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import { chooseNext, retryAfterSecs } from './next-waiter.ts';

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
  /** When a request ended last, by the monotonic clock; null = none has. */
  readonly endedMs: number | null;
}

export interface Permit {
  /** Milliseconds spent in the queue. */
  readonly queueMs: number;
  /** Idempotent. */
  release(): void;
}

interface Waiter {
  readonly principal: string | null;
  overtaken: number;
  readonly grant: () => void;
  readonly refuse: (error: unknown) => void;
}

/** What one principal has here. */
interface Share {
  running: number;
  waiting: number;
}

/** Before anything was measured. */
const heldMsDefault = 2000;
const heldWeight = 0.2;

export class Admission {
  #limits: AdmissionLimits;
  readonly #clock: Clock;
  /** In order of arrival. */
  readonly #queue: Waiter[] = [];
  /** Those who have something here, and nobody else. */
  readonly #shares = new Map<string | null, Share>();
  readonly #idleListeners = new Set<() => void>();
  #inFlight = 0;
  /** How long a permit is held, ms, as a moving average. */
  #heldMs: number | null = null;
  #rejectedQueueFull = 0;
  #rejectedTimeout = 0;
  #rejectedPerPrincipal = 0;
  #endedMs: number | null = null;
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
      endedMs: this.#endedMs,
    };
  }

  get limits(): AdmissionLimits {
    return this.#limits;
  }

  /** Counts at once: more room is given out now; who runs or waits beyond less room goes on. */
  setLimits(limits: AdmissionLimits): void {
    this.#limits = limits;
    for (let before = -1; before !== this.#inFlight; ) {
      before = this.#inFlight;
      this.#grantNext();
    }
  }

  /** Resolves when the request may run; rejects with the refusal, or with the signal's reason. */
  acquire(principal: string | null, signal: AbortSignal): Promise<Permit> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      this.#refuseNow(principal);
      if (this.#inFlight < this.#limits.maxInFlight && this.#queue.length === 0) {
        return resolve(this.#permit(principal, 0));
      }
      this.#enqueue(principal, signal, resolve, reject);
    });
  }

  /** Refuses everyone who waits and whoever comes, with `reason()`. Who runs goes on. Idempotent. */
  close(reason: () => AppError = shuttingDown): void {
    this.#closed ??= reason;
    for (const waiter of [...this.#queue]) waiter.refuse(this.#closed());
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

  /** Seconds until whoever comes next would run, by how long permits were held so far. */
  retryAfterSecs(): number {
    const { maxInFlight } = this.#limits;
    const isFull = this.#inFlight >= maxInFlight || this.#queue.length > 0;
    return retryAfterSecs(isFull ? this.#queue.length + 1 : 0, maxInFlight, this.#heldMs ?? heldMsDefault);
  }

  #refuseNow(principal: string | null): void {
    if (this.#closed !== null) throw this.#closed();
    const { maxPerPrincipal, maxQueueDepth, maxInFlight } = this.#limits;
    const { running, waiting } = this.#shares.get(principal) ?? { running: 0, waiting: 0 };
    if (principal !== null && maxPerPrincipal > 0 && running + waiting >= maxPerPrincipal) {
      this.#rejectedPerPrincipal++;
      throw new AppError(
        'rate_limit_exceeded',
        `this account already has ${maxPerPrincipal} requests here; wait for one to end`,
        { retryAfterSecs: this.#ownRetrySecs(running) },
      );
    }
    const full = this.#inFlight >= maxInFlight || this.#queue.length > 0;
    if (full && this.#queue.length >= maxQueueDepth) {
      this.#rejectedQueueFull++;
      throw this.#overloaded('the queue of this model is full; retry later');
    }
  }

  /** Until one of its own has ended: of those that run, or of those that wait, once they have run. */
  #ownRetrySecs(running: number): number {
    const heldMs = this.#heldMs ?? heldMsDefault;
    if (running > 0) return retryAfterSecs(1, running, heldMs);
    const { maxInFlight } = this.#limits;
    return retryAfterSecs(this.#queue.length + maxInFlight, maxInFlight, heldMs);
  }

  #enqueue(
    principal: string | null,
    signal: AbortSignal,
    resolve: (permit: Permit) => void,
    reject: (error: unknown) => void,
  ): void {
    const sinceMs = this.#clock.monotonicMs();
    const leave = (): void => {
      this.#queue.splice(this.#queue.indexOf(waiter), 1);
      this.#count(principal, 'waiting', -1);
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    };
    const waiter: Waiter = {
      principal,
      overtaken: 0,
      grant: () => {
        leave();
        resolve(this.#permit(principal, this.#clock.monotonicMs() - sinceMs));
      },
      refuse: (error) => {
        leave();
        reject(error);
      },
    };
    const onAbort = (): void => waiter.refuse(signal.reason);
    const timer = this.#clock.setTimer(this.#limits.maxWaitMs, () => {
      this.#rejectedTimeout++;
      leave(); // it is not ahead of itself
      reject(this.#overloaded('waited too long for a free slot of this model; retry later'));
    });
    signal.addEventListener('abort', onAbort, { once: true });
    this.#queue.push(waiter);
    this.#count(principal, 'waiting', 1);
  }

  #permit(principal: string | null, queueMs: number): Permit {
    const sinceMs = this.#clock.monotonicMs();
    this.#inFlight++;
    this.#count(principal, 'running', 1);
    let released = false;
    return {
      queueMs,
      release: () => {
        if (released) return;
        released = true;
        this.#inFlight--;
        this.#count(principal, 'running', -1);
        this.#endedMs = this.#clock.monotonicMs();
        const heldMs = this.#endedMs - sinceMs;
        this.#heldMs = this.#heldMs === null ? heldMs : this.#heldMs + heldWeight * (heldMs - this.#heldMs);
        this.#grantNext();
        if (this.#inFlight > 0) return;
        for (const listener of this.#idleListeners) listener();
        this.#idleListeners.clear();
      },
    };
  }

  #grantNext(): void {
    if (this.#closed !== null || this.#inFlight >= this.#limits.maxInFlight) return;
    const at = chooseNext(this.#queue, (principal) => this.#shares.get(principal)?.running ?? 0);
    if (at === null) return;
    for (const waiter of this.#queue.slice(0, at)) waiter.overtaken++;
    this.#queue[at]?.grant();
  }

  #count(principal: string | null, what: keyof Share, by: number): void {
    const share = this.#shares.get(principal) ?? { running: 0, waiting: 0 };
    share[what] += by;
    if (share.running === 0 && share.waiting === 0) this.#shares.delete(principal);
    else this.#shares.set(principal, share);
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
