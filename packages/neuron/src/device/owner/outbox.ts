import type { StepEvent } from 'cortex-core/wire/inference';
import type { JobId, Settled, StepOfJob } from '../jobs.ts';

export interface OutboxContent {
  readonly steps: readonly StepOfJob[];
  readonly settled: readonly Settled[];
  /** The first token of a stream is in it. */
  readonly begins: boolean;
}

/**
 * Steps closer together than this leave in one message; or when the next step ends, where that takes longer
 * (a long draft). What sends a message (this process's other threads, the kernel, the client beside it) takes
 * 0.4 to 0.8 ms of a core; where all cores compute, a tenth of a step of SmolLM2 on two of them, so there a
 * reader sees thirty pictures a second. On a GPU it takes nothing from the steps
 * (docs/decisions/2026-11-25-a-frame-at-a-time.md).
 */
export const gatherMs = { cpu: 33, gpu: 4 };

/**
 * Where all cores compute, whoever sends the first token and reads it waits for one up to 3 ms, the
 * scheduler's slice: this long nothing is computed after it.
 */
export const restMs = 1;

/** What an owner has to say. The first token of a stream and the end of a job go at once. */
export class Outbox {
  #steps: StepOfJob[] = [];
  #settled: Settled[] = [];
  /** Streams whose first token was sent. */
  readonly #begun = new Set<JobId>();
  readonly #gatherMs: number;
  #isUrgent = false;
  #begins = false;
  #takenAtMs = 0;

  constructor(ms: number) {
    this.#gatherMs = ms;
  }

  addStep(id: JobId, event: StepEvent): void {
    this.#steps.push({ id, event });
    if (this.#begun.has(id)) return;
    this.#begun.add(id);
    this.#begins = true;
    this.#isUrgent = true;
  }

  settle(settled: Settled): void {
    this.#settled.push(settled);
    this.#begun.delete(settled.id);
    this.#isUrgent = true;
  }

  /** Null when there is nothing, or nothing that has to go yet; `isLast`: no later turn will ask again. */
  take(nowMs: number, isLast: boolean): OutboxContent | null {
    if (this.#steps.length === 0 && this.#settled.length === 0) return null;
    if (!this.#isUrgent && !isLast && nowMs - this.#takenAtMs < this.#gatherMs) return null;
    const content = { steps: this.#steps, settled: this.#settled, begins: this.#begins };
    this.#steps = [];
    this.#settled = [];
    this.#isUrgent = false;
    this.#begins = false;
    this.#takenAtMs = nowMs;
    return content;
  }
}
