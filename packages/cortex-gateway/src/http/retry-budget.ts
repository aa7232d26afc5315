/**
 * How much a fleet in trouble may be asked again.
 *
 * Problem: when many nodes fail, every request that is sent again makes it worse for those that still stand.
 * Design:  a token bucket for the whole gateway, as in Finagle and linkerd: each new request puts a fraction
 *          of a token in, each further attempt takes one out. So attempts stay below that fraction of the
 *          requests however sick the fleet is. The bucket is full at first and fills in a minute of silence:
 *          one node's death, with all its streams, is paid from it.
 */
import type { Clock } from 'cortex-core/daemon/clock';

export interface RetryBudgetOptions {
  readonly clock: Clock;
  /** Attempts that may come at once. */
  readonly burst: number;
  /** Further attempts per request, over time. */
  readonly ratio: number;
}

const refillMs = 60_000;
/** Ten tenths of a token are one. */
const rounding = 1e-6;

export class RetryBudget {
  readonly #options: RetryBudgetOptions;
  #tokens: number;
  #atMs: number;

  constructor(options: RetryBudgetOptions) {
    this.#options = options;
    this.#tokens = options.burst;
    this.#atMs = options.clock.monotonicMs();
  }

  /** A new request came. */
  deposit(): void {
    this.#tokens = Math.min(this.#options.burst, this.#tokens + this.#options.ratio);
  }

  /** What was paid for an attempt that was none. */
  giveBack(): void {
    this.#tokens = Math.min(this.#options.burst, this.#tokens + 1);
  }

  get isSpent(): boolean {
    const { burst, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#tokens = Math.min(burst, this.#tokens + (burst * (nowMs - this.#atMs)) / refillMs);
    this.#atMs = nowMs;
    return this.#tokens < 1 - rounding;
  }

  /** Whether one more attempt may be made; then it is paid. */
  withdraw(): boolean {
    if (this.isSpent) return false;
    this.#tokens--;
    return true;
  }
}
