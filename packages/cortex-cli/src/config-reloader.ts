/** Reads configuration again when told, one reading after another, and logs what came of it. */
import type { ReloadReport } from 'cortex-core/config/diff-config';
import { ConfigError } from 'cortex-core/config/load';
import type { Log } from 'cortex-core/daemon/log';
import { CliError } from './cli-error.ts';

/** Who asked: `POST /admin/reload`, a signal, or a file that changed. */
export type ReloadTrigger = 'request' | 'signal' | 'file';

export interface ReloaderOptions {
  readonly log: Log;
  /** Reads the files and puts them into force; throws, and changes nothing, when one has a fault. */
  readonly apply: () => ReloadReport | Promise<ReloadReport>;
}

export class ConfigReloader {
  readonly #options: ReloaderOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: ReloaderOptions) {
    this.#options = options;
  }

  /** Rejects with a `ConfigError` that has every fault. */
  reload(trigger: ReloadTrigger): Promise<ReloadReport> {
    const result = this.#last.then(() => this.#once(trigger));
    this.#last = result.catch(() => {});
    return result;
  }

  /** For triggers that nobody waits for: the log says what happened. */
  trigger(trigger: ReloadTrigger): void {
    this.reload(trigger).catch(() => {});
  }

  async #once(trigger: ReloadTrigger): Promise<ReloadReport> {
    const { log, apply } = this.#options;
    try {
      const report = await apply();
      const { changed, needsRestart, notes } = report;
      const isSame = changed.length === 0 && needsRestart.length === 0;
      const fields = { trigger, changed, needs_restart: needsRestart, notes };
      if (!isSame) log.info('configuration reloaded', fields);
      else if (trigger === 'file') log.debug('configuration is the same', { trigger });
      else log.info('configuration is the same', { trigger });
      return report;
    } catch (thrown) {
      const error = toConfigError(thrown);
      log.error('configuration not reloaded, nothing was changed', {
        trigger,
        faults: error.message.split('\n'),
      });
      throw error;
    }
  }
}

/** What the command line makes of the files can be at fault too. */
function toConfigError(thrown: unknown): Error {
  if (!(thrown instanceof CliError)) return thrown instanceof Error ? thrown : new Error(String(thrown));
  const place = { source: 'command line', line: null, column: null, key: '', suggestion: null };
  return new ConfigError([{ ...place, message: thrown.message }]);
}
