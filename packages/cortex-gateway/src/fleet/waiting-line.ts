/**
 * The requests that cannot be served at once: each is attached to a load job, or parked until a state
 * changes, and then decides again. Limits: waiting requests, attempts per request.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
import type { RouteDecision } from '../decide/route.ts';
import type { Lease } from './lease.ts';
import type { LoadJob, Waiter } from './load-job.ts';
import type { LoadJobs } from './load-jobs.ts';
import { doesNotStay, toError } from './rejections.ts';

export interface WaitingLineOptions {
  readonly waitersMax: number;
  readonly jobs: LoadJobs;
  /** Decides for a request on the current view. */
  readonly decide: (requested: string, exclude: ReadonlySet<string>) => RouteDecision;
  /** Takes the lease of a request that waited, in the tick of the decision. */
  readonly lease: (decision: RouteDecision & { kind: 'forward' }) => Lease;
}

const attemptsMax = 4;

export class WaitingLine {
  readonly #options: WaitingLineOptions;
  readonly #parked = new Set<Waiter>();
  readonly #waiting = new Set<Waiter>();

  constructor(options: WaitingLineOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Throws an AppError when the line is full; rejects with the cause when no lease can be had. */
  enter(
    requested: string,
    decision: RouteDecision & { kind: 'load' | 'wait' },
    signal: AbortSignal,
    exclude: ReadonlySet<string>,
  ): Promise<Lease> {
    if (this.#waiting.size >= this.#options.waitersMax) {
      throw new AppError('overloaded', 'too many requests wait for a model to load; try again', {
        retryAfterSecs: 5,
      });
    }
    return this.#wait(requested, decision, signal, exclude);
  }

  /** A job's waiters decide again, or hear why it failed. */
  jobEnded(job: LoadJob, waiters: readonly Waiter[], error: unknown): void {
    for (const waiter of waiters) {
      if (error === null) this.#settle(waiter);
      else if (toAppError(error).retryable && waiter.attempts < attemptsMax) {
        waiter.exclude.add(job.node);
        this.#settle(waiter, error);
      } else waiter.reject(error);
    }
  }

  /** States changed: who is parked decides again. */
  wake(): void {
    for (const waiter of [...this.#parked]) this.#settle(waiter);
  }

  rejectAll(cause: () => AppError): void {
    for (const waiter of [...this.#waiting]) waiter.reject(cause());
  }

  async #wait(
    requested: string,
    decision: RouteDecision & { kind: 'load' | 'wait' },
    signal: AbortSignal,
    exclude: ReadonlySet<string>,
  ): Promise<Lease> {
    let settle: Waiter | null = null;
    const onAbort = (): void => settle?.reject(signal.reason);
    try {
      return await new Promise<Lease>((resolve, reject) => {
        const end = (): void => {
          waiter.done = true;
          this.#waiting.delete(waiter);
          this.#parked.delete(waiter);
          this.#options.jobs.leave(waiter);
        };
        const waiter: Waiter = {
          requested,
          exclude: new Set(exclude),
          attempts: 0,
          done: false,
          resolve: (lease) => {
            end();
            resolve(lease);
          },
          reject: (cause) => {
            end();
            reject(cause);
          },
        };
        settle = waiter;
        this.#waiting.add(waiter);
        if (signal.aborted) return waiter.reject(signal.reason);
        signal.addEventListener('abort', onAbort, { once: true });
        this.#attach(waiter, decision);
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #attach(waiter: Waiter, decision: RouteDecision & { kind: 'load' | 'wait' }): void {
    const { jobs } = this.#options;
    const running = jobs.find(decision.node, decision.model);
    if (decision.kind === 'load') jobs.start(decision.node, decision.model).waiters.add(waiter);
    else if (running !== null) running.waiters.add(waiter);
    else this.#parked.add(waiter);
  }

  /** Decides again for a waiter. `cause`: why its last attempt failed, preferred to a routing error. */
  #settle(waiter: Waiter, cause: unknown = null): void {
    if (waiter.done) return;
    this.#parked.delete(waiter);
    const decision = this.#options.decide(waiter.requested, waiter.exclude);
    switch (decision.kind) {
      case 'forward':
        waiter.resolve(this.#options.lease(decision));
        break;
      case 'reject':
        waiter.reject(cause ?? toError(decision));
        break;
      case 'wait':
        this.#attach(waiter, decision);
        break;
      case 'load':
        waiter.attempts++;
        if (waiter.attempts < attemptsMax) this.#attach(waiter, decision);
        else waiter.reject(cause ?? doesNotStay(decision.model, decision.node));
        break;
      default:
        decision satisfies never;
    }
  }
}
