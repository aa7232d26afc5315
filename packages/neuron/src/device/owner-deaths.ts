import type { Log } from 'cortex-core/daemon/log';
import type { OwnerDeath } from './device.ts';
import { callHook } from './pending-jobs.ts';

/** Who hears of the deaths of one device's owners, the log included. */
export class OwnerDeaths {
  readonly #log: Log;
  readonly #listeners = new Set<(death: OwnerDeath) => void>();

  constructor(log: Log) {
    this.#log = log;
  }

  listen(listener: (death: OwnerDeath) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** An owner that was never up had nothing that anybody could lose: only the log hears of it. */
  tell(death: OwnerDeath, { wasReady, wasAsked }: { wasReady: boolean; wasAsked: boolean }): void {
    const { deviceId, ...rest } = death;
    const fields = { device: deviceId, ...rest };
    if (wasAsked) this.#log.info('device owner restarted', fields);
    else this.#log.error('device owner died', fields);
    if (!wasReady) return;
    for (const listener of [...this.#listeners]) {
      const error = callHook(() => listener(death));
      if (error !== null) this.#log.error('an owner death listener failed', { error: error.message });
    }
  }
}
