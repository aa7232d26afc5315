/**
 * When a load has had its time. Pure.
 *
 * Problem: one constant for all models is too short for large ones and too long for small ones, and a load
 * that moves must not be given up at all. Design: a base, and several times what the missing bytes need at
 * the rate that was measured; every noticeable step forward counts the time anew.
 * Limits: less than a thousandth of the model within that time is no progress.
 */

/** A neuron's word on a load; `phase` is any text that changes when the work does. */
export interface LoadStep {
  readonly phase: string;
  readonly percent: number;
  readonly bytes_done: number;
  readonly bytes_total: number;
}

export interface LoadDeadlineOptions {
  readonly startedMs: number;
  readonly baseMs: number;
  /** Size of the weights as far as it is known; 0 = unknown. */
  readonly bytes: number;
  /** null = this node has not loaded anything yet. */
  readonly bytesPerSec: number | null;
}

const generosity = 3;
/** A disk of the slower kind, where nothing was measured. */
const bytesPerSecDefault = 100e6;
const noticeableFraction = 0.001;

export class LoadDeadline {
  readonly #options: LoadDeadlineOptions;
  #last: LoadStep | null = null;
  #sinceMs: number;
  #atMs: number;

  constructor(options: LoadDeadlineOptions) {
    this.#options = options;
    this.#sinceMs = options.startedMs;
    this.#atMs = options.startedMs + this.#allowedMs(options.bytes);
  }

  /** Milliseconds on the clock of `startedMs`. */
  get atMs(): number {
    return this.#atMs;
  }

  /** When it last moved. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  note(step: LoadStep | null, nowMs: number): void {
    if (step === null || !isForward(this.#last, step)) return;
    this.#last = step;
    this.#sinceMs = nowMs;
    const total = step.bytes_total > 0 ? step.bytes_total : this.#options.bytes;
    this.#atMs = nowMs + this.#allowedMs(Math.max(0, total - step.bytes_done));
  }

  #allowedMs(bytes: number): number {
    const { baseMs, bytesPerSec } = this.#options;
    const rate = bytesPerSec !== null && bytesPerSec > 0 ? bytesPerSec : bytesPerSecDefault;
    return baseMs + generosity * (bytes / rate) * 1000;
  }
}

function isForward(last: LoadStep | null, step: LoadStep): boolean {
  if (last === null || last.phase !== step.phase) return true;
  if (step.bytes_total > 0) {
    return step.bytes_done - last.bytes_done >= step.bytes_total * noticeableFraction;
  }
  return step.percent - last.percent >= 100 * noticeableFraction;
}
