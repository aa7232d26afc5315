/**
 * Where a request goes when a node has failed it.
 *
 * Problem: the next node must be another one, soon, and the fleet must survive the asking; and when there is
 *          no other, the model may be a moment away: loading elsewhere, or on a node that just starts again.
 * Design:  first a replica that serves now; then whatever the fleet offers, a load elsewhere included; then a
 *          node that was down and is up again. A node that failed and was never down is not asked twice.
 * Limits:  attempts, a time from the first failure on, and the gateway's retry budget.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { Ticket } from '../fleet/fleet-options.ts';
import type { Lease } from '../fleet/lease.ts';
import type { RetryBudget } from './retry-budget.ts';

/** What of the fleet is needed here, for one request. */
export interface FailoverFleet {
  /** A replica that serves right now, or null. */
  another(exclude: ReadonlySet<string>): Lease | null;
  /** Also one that has to be waited for. Throws an AppError when there is none. */
  request(exclude: ReadonlySet<string>, signal: AbortSignal): Ticket;
  /** Asks the node now; null when it does not answer, else for how many seconds it has been up. */
  upFor(node: string): Promise<number | null>;
  /** Of the last poll, without asking. */
  lastUpFor(node: string): number;
}

export interface FailoverOptions {
  readonly fleet: FailoverFleet;
  readonly clock: Clock;
  readonly budget: RetryBudget;
  readonly signal: AbortSignal;
  readonly attemptsMax: number;
  /** From the first failure on. */
  readonly giveUpMs: number;
  /** Called when the request begins to wait. */
  readonly onWait: () => void;
}

interface Failed {
  /** Seconds it had been up when it failed. */
  readonly upFor: number;
  wasDown: boolean;
  /** It refused for want of room and may be asked again then; null: it failed. */
  readonly freeAtMs: number | null;
  readonly how: Failure;
}

/**
 * `wire`: it could not be reached, or broke off. `refused`: it said no before it began, which says nothing
 * of it later. `broke`: it said itself that it could not go on.
 */
export type Failure = 'wire' | 'refused' | 'broke';

/** `none`: a replica that serves now. `return`: also a node that comes back. `load`: any way there is. */
export type Patience = 'none' | 'return' | 'load';
type Hope = 'back' | 'maybe' | 'none';

const askAgainMs = 500;

export class Failover {
  readonly #options: FailoverOptions;
  readonly #failed = new Map<string, Failed>();
  #attempts = 0;
  #untilMs: number | null = null;

  constructor(options: FailoverOptions) {
    this.#options = options;
  }

  /** Nodes that failed it, and are not asked again. */
  get failedNodes(): ReadonlySet<string> {
    return new Set(this.#failed.keys());
  }

  /** A request is sent there. */
  sent(): void {
    this.#attempts++;
  }

  /** The answer got on: what comes is another failure, with its own attempts and time. */
  progressed(): void {
    this.#attempts = 1;
    this.#untilMs = null;
    for (const [node, { how }] of this.#failed) if (how === 'refused') this.#failed.delete(node);
  }

  failed(node: string, how: Failure): void {
    const { clock, fleet, giveUpMs } = this.#options;
    this.#untilMs ??= clock.monotonicMs() + giveUpMs;
    this.#failed.set(node, { upFor: fleet.lastUpFor(node), wasDown: false, freeAtMs: null, how });
  }

  /** The node has no room and said when it might. That was no attempt, and costs nothing. */
  busy(node: string, waitMs: number): void {
    const { clock, budget } = this.#options;
    this.failed(node, 'refused');
    const freeAtMs = clock.monotonicMs() + Math.max(askAgainMs, waitMs);
    this.#failed.set(node, { upFor: 0, wasDown: false, freeAtMs, how: 'refused' });
    this.#attempts--;
    budget.giveBack();
  }

  /**
   * The next node's lease, or null when the failure stands.
   * `unfit`: nodes that will not do for this request. Rejects with the signal's reason.
   */
  async next(patience: Patience, unfit: () => readonly string[] = () => []): Promise<Lease | null> {
    const { signal, attemptsMax, budget, fleet } = this.#options;
    signal.throwIfAborted();
    if (this.#attempts >= attemptsMax || this.#leftMs() <= 0 || budget.isSpent) return null;
    const exclude = (): Set<string> => new Set([...this.failedNodes, ...unfit()]);
    const lease =
      fleet.another(exclude()) ?? (patience === 'none' ? null : await this.#wait(exclude, patience));
    if (lease === null || budget.withdraw()) return lease;
    lease.release();
    return null;
  }

  #leftMs(): number {
    const { clock } = this.#options;
    return this.#untilMs === null ? Number.POSITIVE_INFINITY : this.#untilMs - clock.monotonicMs();
  }

  async #wait(exclude: () => Set<string>, patience: Patience): Promise<Lease | null> {
    const { clock, signal } = this.#options;
    const late = new AbortController();
    const timer = clock.setTimer(Math.max(0, this.#leftMs()), () => late.abort());
    try {
      return await this.#waitUntil(exclude, patience, AbortSignal.any([signal, late.signal]));
    } catch (thrown) {
      signal.throwIfAborted();
      // whatever came of it, the failure that began this is what the client should hear of
      if (late.signal.aborted || thrown instanceof AppError) return null;
      throw thrown;
    } finally {
      timer.cancel();
    }
  }

  /** Rejects with an AppError when nobody can serve it, and when the signal aborts. */
  async #waitUntil(
    exclude: () => Set<string>,
    patience: Patience,
    signal: AbortSignal,
  ): Promise<Lease | null> {
    const { clock, fleet, onWait } = this.#options;
    for (let hope: Hope = 'none'; ; ) {
      const mayAsk = patience === 'load' || hope === 'back';
      const ticket = mayAsk ? toTicket(() => fleet.request(exclude(), signal)) : null;
      if (ticket !== null) {
        if (ticket.lease === null) onWait();
        return ticket.lease ?? (await ticket.ready);
      }
      hope = await this.#whoIsBack();
      signal.throwIfAborted();
      if (hope === 'none') return null;
      if (hope === 'back') continue;
      onWait();
      await clock.sleep(askAgainMs, signal);
    }
  }

  async #whoIsBack(): Promise<Hope> {
    const hopes = await Promise.all(
      [...this.#failed].map(async ([node, failed]) => {
        const hope = await this.#hopeFor(node, failed);
        if (hope === 'back') this.#failed.delete(node);
        return hope;
      }),
    );
    return hopes.includes('back') ? 'back' : hopes.includes('maybe') ? 'maybe' : 'none';
  }

  /** A node that was down since it failed, or has started anew, may be asked as a new one. */
  async #hopeFor(node: string, failed: Failed): Promise<Hope> {
    const { clock, fleet } = this.#options;
    if (failed.freeAtMs !== null) return clock.monotonicMs() >= failed.freeAtMs ? 'back' : 'maybe';
    if (failed.how !== 'wire') return 'none';
    const upFor = await fleet.upFor(node);
    if (upFor === null) {
      failed.wasDown = true;
      return 'maybe';
    }
    return failed.wasDown || upFor < failed.upFor ? 'back' : 'none';
  }
}

/** Null when nobody could serve it, now or later. */
function toTicket(ask: () => Ticket): Ticket | null {
  try {
    return ask();
  } catch (thrown) {
    if (thrown instanceof AppError) return null;
    throw thrown;
  }
}
