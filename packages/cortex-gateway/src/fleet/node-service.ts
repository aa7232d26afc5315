/**
 * Whether a node takes work, apart from whether it answers polls: drained or cordoned by a person, or its
 * circuit is open. Soft: a gateway that starts again knows nothing of it, and other gateways do not either.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import { type Attempt, Breaker, type CircuitState } from './breaker.ts';

/** `cordoned`: serves what it has, loads nothing. `drained`: no new requests either; running ones end. */
export type ServiceMode = 'open' | 'cordoned' | 'drained';

export interface NodeServiceOptions {
  readonly clock: Clock;
  readonly failuresMax: () => number;
  /** What is said here may have changed. */
  readonly onChange: () => void;
  readonly onCircuit: (state: CircuitState) => void;
}

/** One request on its way. */
interface Running {
  readonly cut: (reason: AppError) => void;
}

export class NodeService {
  readonly #name: string;
  readonly #options: NodeServiceOptions;
  readonly #breaker: Breaker;
  readonly #running = new Set<Running>();
  #mode: ServiceMode = 'open';
  #deadline: { cancel(): void } | null = null;

  constructor(name: string, options: NodeServiceOptions) {
    this.#name = name;
    this.#options = options;
    this.#breaker = new Breaker(options);
  }

  get mode(): ServiceMode {
    return this.#mode;
  }

  get circuit(): CircuitState {
    return this.#breaker.state;
  }

  /** Why no new request goes there, as the end of a sentence about the node; null = it may. */
  get refusal(): string | null {
    if (this.#mode === 'drained') return 'is drained by an operator';
    return this.#breaker.refusal;
  }

  /** `deadlineMs`: when requests that still run are cut; null = they may end. */
  close(mode: 'cordoned' | 'drained', deadlineMs: number | null): void {
    this.#deadline?.cancel();
    this.#mode = mode;
    this.#deadline =
      deadlineMs === null ? null : this.#options.clock.setTimer(deadlineMs, () => this.#cutAll());
    this.#options.onChange();
  }

  open(): void {
    this.#deadline?.cancel();
    this.#deadline = null;
    this.#mode = 'open';
    this.#options.onChange();
  }

  /** A request goes there; `cut` ends it from this side. */
  begin(cut: Running['cut']): Attempt {
    const running: Running = { cut };
    this.#running.add(running);
    const attempt = this.#breaker.begin();
    return {
      answered: attempt.answered,
      end: (outcome) => {
        if (this.#running.delete(running)) attempt.end(outcome);
      },
    };
  }

  /** Another neuron, or another life of it, answers there. */
  renew(): void {
    this.#breaker.reset();
  }

  /** Takes its timers along. Idempotent. */
  stop(): void {
    this.#deadline?.cancel();
    this.#breaker.close();
  }

  #cutAll(): void {
    const message = `${this.#name} is being drained and its time is over; try again`;
    for (const { cut } of [...this.#running]) {
      cut(new AppError('upstream_connection_error', message, { retryAfterSecs: 1 }));
    }
  }
}
