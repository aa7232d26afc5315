import type { Clock } from 'cortex-core/daemon/clock';
import type { OwnerDeviceLimits } from './owner-device-options.ts';

export type RespawnLimits = Pick<OwnerDeviceLimits, 'respawnMsMin' | 'respawnMsMax' | 'respawnResetMs'>;

/** When the next owner follows: exponential back-off, which a long life resets. */
export class Respawn {
  readonly #clock: Clock;
  readonly #limits: RespawnLimits;
  readonly #spawn: () => void;
  #nextMs: number;
  #timer: { cancel(): void } | null = null;

  constructor(clock: Clock, limits: RespawnLimits, spawn: () => void) {
    this.#clock = clock;
    this.#limits = limits;
    this.#spawn = spawn;
    this.#nextMs = limits.respawnMsMin;
  }

  get isPending(): boolean {
    return this.#timer !== null;
  }

  /** After an owner that lived so long. */
  backOff(livedMs: number): void {
    if (livedMs >= this.#limits.respawnResetMs) this.#nextMs = this.#limits.respawnMsMin;
    const delayMs = this.#nextMs;
    this.#nextMs = Math.min(this.#nextMs * 2, this.#limits.respawnMsMax);
    this.after(delayMs);
  }

  after(delayMs: number): void {
    this.cancel();
    this.#timer = this.#clock.setTimer(delayMs, () => {
      this.#timer = null;
      this.#spawn();
    });
  }

  /** Idempotent. */
  cancel(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }
}
