/**
 * Notices an owner that has work and says nothing.
 *
 * Problem: a hung native call blocks the owner's thread, so the owner cannot say so; only its silence shows.
 * Design: an owner at work sends something at least about once a second. One timer runs while there is work;
 * when it fires it asks how long silence is allowed now. Before the verdict the event loop gets another
 * turn: after a stall of the daemon itself, messages of a living owner lie unread.
 */
import type { Clock } from 'cortex-core/daemon/clock';

export interface SilenceWatchdogOptions {
  readonly clock: Clock;
  /** Ms of silence allowed now; null = the owner has no work. */
  readonly allowedMs: () => number | null;
  /** How often it is looked at, at least; the smallest limit. */
  readonly checkMs: number;
  readonly onSilence: (ms: number) => void;
}

const graceMsMax = 1000;

export class SilenceWatchdog {
  readonly #options: SilenceWatchdogOptions;
  #sinceMs = 0;
  #hasGrace = true;
  #timer: { cancel(): void } | null = null;

  constructor(options: SilenceWatchdogOptions) {
    this.#options = options;
  }

  /** Work is given to the owner, which had none before if `wasIdle`: its silence until now was no fault. */
  start(wasIdle: boolean): void {
    if (wasIdle) this.heard();
    if (this.#timer === null) this.#arm(this.#options.checkMs);
  }

  /** The owner said something. */
  heard(): void {
    this.#sinceMs = this.#options.clock.monotonicMs();
    this.#hasGrace = true;
  }

  /** Idempotent. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #arm(ms: number): void {
    this.#timer = this.#options.clock.setTimer(ms, () => {
      this.#timer = null;
      this.#check();
    });
  }

  #check(): void {
    const { allowedMs, checkMs, clock, onSilence } = this.#options;
    const allowed = allowedMs();
    if (allowed === null) return;
    const silentMs = clock.monotonicMs() - this.#sinceMs;
    if (silentMs < allowed) this.#arm(Math.min(checkMs, allowed - silentMs));
    else if (this.#hasGrace) {
      this.#hasGrace = false;
      this.#arm(Math.min(graceMsMax, checkMs));
    } else onSilence(silentMs);
  }
}
