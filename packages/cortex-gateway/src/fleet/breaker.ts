/**
 * A circuit breaker: a node whose requests fail although its polls succeed gets none for a while, then one,
 * and the rest only when that one went well.
 *
 *     closed ── failuresMax in a row ──► open ── back-off ──► half open ── one request answers ──► closed
 *                                         ▲                                     │ fails
 *                                         └──────── twice the back-off ─────────┘
 *
 * The one request closes it with its first byte, on probation: should it or the next fail, it opens again.
 *
 * A failure is a connection error, silence, a break in the answer, or 500, 502, 504. What a node refuses for
 * want of room (503) or for the request's own fault is none. Limits: back-off grows to a minute.
 */
import type { Clock } from 'cortex-core/daemon/clock';

export type CircuitState = 'closed' | 'open' | 'half_open';
/** `unknown`: the client left before anything could be said of the node. */
export type Outcome = 'ok' | 'failed' | 'unknown';

/** One request; each is called at most once, `end` last. */
export interface Attempt {
  /** The first byte of its answer is here. */
  readonly answered: () => void;
  readonly end: (outcome: Outcome) => void;
}

export interface BreakerOptions {
  readonly clock: Clock;
  /** 0 = it never opens. */
  readonly failuresMax: () => number;
  /** It is another state now. */
  readonly onCircuit: (state: CircuitState) => void;
  /** What it says of new requests may have changed. */
  readonly onChange?: () => void;
}

const backoffMsFirst = 5000;
const backoffMsMax = 60_000;

export class Breaker {
  readonly #options: BreakerOptions;
  #state: CircuitState = 'closed';
  #failures = 0;
  #opened = 0;
  #isProbing = false;
  #timer: { cancel(): void } | null = null;

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  get state(): CircuitState {
    return this.#state;
  }

  /** Why no request may go there now; null = it may. */
  get refusal(): string | null {
    if (this.#state === 'open') return `failed ${this.#failures} requests in a row and rests`;
    if (this.#state === 'half_open' && this.#isProbing) return 'is being tried with one request';
    return null;
  }

  /** A request goes there. */
  begin(): Attempt {
    let isProbe = this.#state === 'half_open' && !this.#isProbing;
    if (isProbe) {
      this.#isProbing = true;
      this.#options.onChange?.();
    }
    return {
      answered: () => {
        if (!isProbe) return;
        isProbe = false;
        this.#isProbing = false;
        this.#failures = Math.max(0, this.#options.failuresMax() - 1);
        this.#to('closed', true);
      },
      end: (outcome) => this.#end(outcome, isProbe),
    };
  }

  /** Another one is asked now: what failed says nothing of it. */
  reset(): void {
    this.close();
    this.#failures = 0;
    this.#opened = 0;
    this.#isProbing = false;
    this.#to('closed', true);
  }

  /** Idempotent. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #end(outcome: Outcome, isProbe: boolean): void {
    if (isProbe) this.#isProbing = false;
    if (outcome === 'ok') {
      this.#failures = 0;
      this.#opened = 0;
      this.close();
      this.#to('closed', isProbe);
      return;
    }
    if (outcome === 'unknown') {
      this.#to(this.#state, isProbe);
      return;
    }
    if (this.#state === 'closed' || isProbe) this.#failures++;
    const max = this.#options.failuresMax();
    const trips = this.#state === 'closed' && max > 0 && this.#failures >= max;
    if (trips || isProbe) this.#open();
  }

  #open(): void {
    const ms = Math.min(backoffMsMax, backoffMsFirst * 2 ** this.#opened++);
    this.close();
    this.#timer = this.#options.clock.setTimer(ms, () => this.#to('half_open', true));
    this.#to('open', true);
  }

  #to(state: CircuitState, isChange: boolean): void {
    const isOther = state !== this.#state;
    this.#state = state;
    if (isOther) this.#options.onCircuit(state);
    if (isOther || isChange) this.#options.onChange?.();
  }
}
