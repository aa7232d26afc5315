/** Progress of one load as the wire shows it, with an estimate of the rest only when it is an honest one. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { LoadProgress } from 'cortex-core/wire/neuron';

/** Below these there is no rate to speak of. */
const honestAfterMs = 1000;
const honestFraction = 0.05;

export class LoadMeter {
  readonly #modelId: string;
  readonly #clock: Clock;
  #phase: LoadProgress['phase'] = 'queued';
  #phaseSinceMs = 0;
  #phaseStartBytes = 0;
  #bytesDone = 0;
  #bytesTotal = 0;

  constructor(modelId: string, clock: Clock) {
    this.#modelId = modelId;
    this.#clock = clock;
  }

  /** Bytes that were there before this attempt (a resumed download) do not count into the rate. */
  report(phase: LoadProgress['phase'], bytesDone: number, bytesTotal: number): void {
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.#phaseSinceMs = this.#clock.monotonicMs();
      this.#phaseStartBytes = bytesDone;
    }
    this.#bytesDone = bytesDone;
    this.#bytesTotal = bytesTotal;
  }

  get progress(): LoadProgress {
    const fraction = this.#bytesTotal === 0 ? 0 : Math.min(1, this.#bytesDone / this.#bytesTotal);
    return {
      model_id: this.#modelId,
      phase: this.#phase,
      percent: Math.round(fraction * 1000) / 10,
      bytes_done: this.#bytesDone,
      bytes_total: this.#bytesTotal,
      eta_secs: this.#etaSecs(),
    };
  }

  #etaSecs(): number | null {
    const elapsedMs = this.#clock.monotonicMs() - this.#phaseSinceMs;
    const read = this.#bytesDone - this.#phaseStartBytes;
    if (this.#phase === 'queued' || elapsedMs < honestAfterMs) return null;
    if (this.#bytesTotal === 0 || read < this.#bytesTotal * honestFraction) return null;
    return Math.ceil(((this.#bytesTotal - this.#bytesDone) / read) * (elapsedMs / 1000));
  }
}
