import type { Clock } from 'cortex-core/daemon/clock';

const deathsMax = 3;
const windowMs = 10 * 60 * 1000;

interface Death {
  readonly id: string;
  readonly atMs: number;
}

/**
 * Deaths of owners that a model is blamed for, by its name: also of one whose loads all failed, and which has
 * nothing else here. Those older than ten minutes are forgotten, so only who kills often fills it.
 */
export class ModelDeaths {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  #deaths: readonly Death[] = [];

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  note(id: string): void {
    this.#deaths = [...this.#recent(), { id, atMs: this.#clock.monotonicMs() }];
  }

  count(id: string): number {
    return this.#recent().filter((death) => death.id === id).length;
  }

  /** So many in so short a time that it stays out. */
  isTooMany(id: string): boolean {
    return this.count(id) >= deathsMax;
  }

  /** Somebody wants it tried again. */
  forget(id: string): void {
    this.#deaths = this.#deaths.filter((death) => death.id !== id);
  }

  #recent(): readonly Death[] {
    const nowMs = this.#clock.monotonicMs();
    return this.#deaths.filter(({ atMs }) => nowMs - atMs < windowMs);
  }
}
