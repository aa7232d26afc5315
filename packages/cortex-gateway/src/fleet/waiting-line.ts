/**
 * The requests that cannot be served at once: each is attached to a load job, or parked until a state
 * changes or a slot is free, and then decides again. Who is next is `nextInLine`'s decision: fair between
 * keys and sessions, and nobody who is due is passed by. Limits: waiting requests, attempts per request.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError, toAppError } from 'cortex-core/wire/errors';
import { chargeShare, createFairShare, enterShare, nextInLine } from '../decide/fair-share.ts';
import type { Forward, RouteDecision } from '../decide/route.ts';
import type { Ask, Asker } from './ask.ts';
import type { Lease } from './lease.ts';
import type { LoadJob, Waiter } from './load-job.ts';
import type { LoadJobs } from './load-jobs.ts';
import { doesNotStay, toError } from './rejections.ts';

type Unserved = RouteDecision & { readonly kind: 'forward' | 'load' | 'wait' };

export interface WaitingLineOptions {
  readonly clock: Clock;
  readonly waitersMax: () => number;
  /** Who has waited that long is served by age, ms. */
  readonly maxWaitMs: () => number;
  readonly jobs: LoadJobs;
  /** Decides for a request on the current view. */
  readonly decide: (ask: Ask, exclude: ReadonlySet<string>) => RouteDecision;
  /** Whether the replica takes another request now. */
  readonly hasSlot: (decision: Forward) => boolean;
  /** Takes the lease of a request that waited, in the tick of the decision. */
  readonly lease: (ask: Ask, decision: Forward) => Lease;
}

const nobody: Asker = { key: '', session: '', priority: 0 };

const attemptsMax = 4;

export class WaitingLine {
  readonly #options: WaitingLineOptions;
  /** By model, in the order they came. */
  readonly #parked = new Map<string, Set<Waiter>>();
  readonly #waiting = new Set<Waiter>();
  readonly #share = createFairShare();

  constructor(options: WaitingLineOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Requests that are parked for a model: who comes now stands behind them. */
  parkedFor(model: string): number {
    return this.#parked.get(model)?.size ?? 0;
  }

  /** Counts what a request was served, for the shares of those that wait. */
  charge({ asker = nobody }: Ask, promptTokens: number, answerTokens: number): void {
    chargeShare(this.#share, asker, promptTokens, answerTokens);
  }

  /** Throws an AppError when the line is full; rejects with the cause when no lease can be had. */
  enter(ask: Ask, decision: Unserved, signal: AbortSignal, exclude: ReadonlySet<string>): Promise<Lease> {
    if (this.#waiting.size >= this.#options.waitersMax()) {
      throw new AppError('overloaded', 'too many requests wait for a model; try again', {
        retryAfterSecs: 5,
      });
    }
    return this.#wait(ask, decision, signal, exclude);
  }

  /** A job's waiters decide again, or hear why it failed. */
  jobEnded(job: LoadJob, waiters: readonly Waiter[], error: unknown): void {
    if (error === null) {
      for (const waiter of waiters) this.#park(waiter);
      this.wakeModel(job.model);
      return;
    }
    for (const waiter of waiters) {
      if (mayGoOn(error) && waiter.attempts < attemptsMax) {
        waiter.exclude.add(job.node);
        this.#settle(waiter, error);
      } else waiter.reject(error);
    }
  }

  /** The node of that job does not answer: who can be served elsewhere goes there, the others wait on. */
  leaveSilent(job: LoadJob): void {
    for (const waiter of [...job.waiters]) {
      const exclude = new Set([...waiter.exclude, job.node]);
      if (this.#options.decide(waiter.ask, exclude).kind === 'reject') continue;
      job.waiters.delete(waiter);
      waiter.exclude.add(job.node);
      this.#settle(waiter);
    }
  }

  /** States changed: who is parked decides again. */
  wake(): void {
    for (const model of [...this.#parked.keys()]) this.wakeModel(model);
  }

  /** A slot or a replica of that model may be free. */
  wakeModel(model: string): void {
    const { clock, maxWaitMs } = this.#options;
    const line = new Set(this.#parked.get(model) ?? []);
    while (line.size > 0) {
      const next = nextInLine(line, this.#share, clock.monotonicMs(), maxWaitMs());
      if (next === null) return;
      line.delete(next);
      this.#settle(next);
      // still parked, and not because of what it must avoid: those behind it fare no better
      if (next.exclude.size === 0 && this.#parked.get(model)?.has(next)) return;
    }
  }

  rejectAll(cause: () => AppError): void {
    for (const waiter of [...this.#waiting]) waiter.reject(cause());
  }

  async #wait(
    ask: Ask,
    decision: Unserved,
    signal: AbortSignal,
    exclude: ReadonlySet<string>,
  ): Promise<Lease> {
    const { asker = nobody } = ask;
    let settle: Waiter | null = null;
    const onAbort = (): void => settle?.reject(signal.reason);
    try {
      return await new Promise<Lease>((resolve, reject) => {
        const end = (): void => {
          waiter.done = true;
          this.#waiting.delete(waiter);
          this.#unpark(waiter);
          this.#options.jobs.leave(waiter);
        };
        const waiter: Waiter = {
          ...asker,
          ask,
          model: decision.model,
          sinceMs: this.#options.clock.monotonicMs(),
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
        enterShare(this.#share, asker, this.#waiting);
        this.#waiting.add(waiter);
        if (signal.aborted) return waiter.reject(signal.reason);
        signal.addEventListener('abort', onAbort, { once: true });
        this.#attach(waiter, decision);
        if (decision.kind === 'forward') this.wakeModel(decision.model);
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #attach(waiter: Waiter, decision: Unserved): void {
    const { jobs } = this.#options;
    const running = jobs.find(decision.node, decision.model);
    if (decision.kind === 'load' || (decision.kind === 'wait' && running !== null)) {
      jobs.start(decision.node, decision.model, waiter);
    } else this.#park(waiter);
  }

  /** Decides again for a waiter. `cause`: why its last attempt failed, preferred to a routing error. */
  #settle(waiter: Waiter, cause: unknown = null): void {
    if (waiter.done) return;
    const decision = this.#options.decide(waiter.ask, waiter.exclude);
    switch (decision.kind) {
      case 'forward':
        if (this.#options.hasSlot(decision)) this.#grant(waiter, decision);
        else {
          // it is up and full: earlier loads did not fail
          waiter.attempts = 0;
          this.#park(waiter);
        }
        break;
      case 'reject':
        waiter.reject(cause ?? toError(decision));
        break;
      case 'wait':
        this.#unpark(waiter);
        this.#attach(waiter, decision);
        break;
      case 'load':
        this.#unpark(waiter);
        waiter.attempts++;
        if (waiter.attempts < attemptsMax) this.#attach(waiter, decision);
        else waiter.reject(cause ?? doesNotStay(decision.model, decision.node));
        break;
      default:
        decision satisfies never;
    }
  }

  /** Out of the line first: what the lease changes may wake the line before it is here. */
  #grant(waiter: Waiter, decision: Forward): void {
    waiter.done = true;
    this.#unpark(waiter);
    try {
      waiter.resolve(this.#options.lease(waiter.ask, decision));
    } catch (thrown) {
      waiter.reject(thrown);
    }
  }

  #park(waiter: Waiter): void {
    if (waiter.done) return;
    const line = this.#parked.get(waiter.model) ?? new Set();
    line.add(waiter);
    this.#parked.set(waiter.model, line);
  }

  #unpark(waiter: Waiter): void {
    const line = this.#parked.get(waiter.model);
    if (line?.delete(waiter) && line.size === 0) this.#parked.delete(waiter.model);
  }
}

/** Whether another node may be tried; a load that somebody cancelled is not wanted there either. */
function mayGoOn(error: unknown): boolean {
  const { retryable, code } = toAppError(error);
  return retryable && code !== 'load_cancelled';
}
