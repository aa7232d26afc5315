/**
 * How a model was used since its load. Several gateways may send requests to one neuron, and each knows only
 * its own: here they see those of all, and an unload can name the use that it saw.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from 'cortex-core/daemon/clock';
import type { ModelLoad, UseMark } from 'cortex-core/wire/neuron';
import type { Gate } from './gate.ts';

/** A request that named the model and has no slot by then never asks for one: a count, or it gave up. */
const onTheWayMsMax = 10_000;

export class ModelUse {
  readonly #clock: Clock;
  readonly #gate: Pick<Gate, 'counters'>;
  #loadId = '';
  #loadedMs = 0;
  #requests = 0;
  #askedMs: number | null = null;

  constructor(clock: Clock, gate: Pick<Gate, 'counters'>) {
    this.#clock = clock;
    this.#gate = gate;
  }

  /** A new copy is there, with nothing cached. */
  loaded(): void {
    this.#loadId = randomUUID();
    this.#loadedMs = this.#clock.monotonicMs();
    this.#requests = 0;
    this.#askedMs = null;
  }

  /** A request names it; it asks for a slot when its prompt is read. */
  asked(): void {
    this.#requests++;
    this.#askedMs = this.#clock.monotonicMs();
  }

  isUnusedSince({ load_id, requests }: UseMark): boolean {
    return !this.#isBusy && !this.#isOnTheWay && load_id === this.#loadId && requests === this.#requests;
  }

  toWire(): ModelLoad['use'] {
    const nowMs = this.#clock.monotonicMs();
    const { endedMs } = this.#gate.counters;
    const usedMs = this.#askedMs === null ? null : Math.max(this.#askedMs, endedMs ?? 0);
    return {
      load_id: this.#loadId,
      requests: this.#requests,
      loaded_secs: toSecs(nowMs - this.#loadedMs),
      idle_secs: this.#isBusy ? 0 : usedMs === null ? null : toSecs(nowMs - usedMs),
    };
  }

  /** The last one that named it has not been served since. */
  get #isOnTheWay(): boolean {
    const askedMs = this.#askedMs;
    if (askedMs === null || askedMs <= (this.#gate.counters.endedMs ?? Number.NEGATIVE_INFINITY))
      return false;
    return this.#clock.monotonicMs() - askedMs < onTheWayMsMax;
  }

  get #isBusy(): boolean {
    const { inFlight, queueDepth } = this.#gate.counters;
    return inFlight + queueDepth > 0;
  }
}

function toSecs(ms: number): number {
  return Math.round(ms) / 1000;
}
