/** How fast a node reads weights, as a moving average of what its loads showed. */
const weight = 0.3;
/** Below this an interval says more about the clock than about the disk. */
const intervalMsMin = 200;

export class LoadRate {
  #bytesPerSec: number | null = null;

  /** null = nothing was measured yet. */
  get bytesPerSec(): number | null {
    return this.#bytesPerSec;
  }

  observe(bytes: number, ms: number): void {
    if (bytes <= 0 || ms < intervalMsMin) return;
    const rate = bytes / (ms / 1000);
    this.#bytesPerSec =
      this.#bytesPerSec === null ? rate : this.#bytesPerSec + weight * (rate - this.#bytesPerSec);
  }
}
