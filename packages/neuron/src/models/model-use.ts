/**
 * How a model was used since its load. Several gateways may send requests to one neuron, and each knows only
 * its own: here they see those of all, and an unload can name the use that it saw.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from 'cortex-core/daemon/clock';
import type { ModelLoad, UseMark } from 'cortex-core/wire/neuron';
import type { Gate } from './gate.ts';

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

  /** A request names it: counted before its prompt is read, so that none on its way to a slot is missed. */
  asked(): void {
    this.#requests++;
    this.#askedMs = this.#clock.monotonicMs();
  }

  isUnusedSince({ load_id, requests }: UseMark): boolean {
    return !this.#isBusy && load_id === this.#loadId && requests === this.#requests;
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

  get #isBusy(): boolean {
    const { inFlight, queueDepth } = this.#gate.counters;
    return inFlight + queueDepth > 0;
  }
}

function toSecs(ms: number): number {
  return Math.round(ms) / 1000;
}
