/** The configuration that is in force: what the files say now, but for what only a restart can change. */
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { diffConfig, type ReloadReport, toReloadReport } from 'cortex-core/config/diff-config';
import type { ModelsConfig } from 'cortex-core/config/models-config';

const restartKeys: ReadonlySet<string> = new Set(['gateway.listen', 'gateway.metrics_listen']);

export class LiveConfig {
  #config: CortexConfig;
  #models: ModelsConfig;

  constructor(config: CortexConfig, models: ModelsConfig) {
    this.#config = config;
    this.#models = models;
  }

  get config(): CortexConfig {
    return this.#config;
  }

  get models(): ModelsConfig {
    return this.#models;
  }

  /** What needs a restart stays as it is, so that every reload until then says so. */
  replace(config: CortexConfig, models: ModelsConfig): ReloadReport {
    const changes = [...diffConfig(this.#config, config), ...diffConfig(this.#models, models)];
    const { listen, metrics_listen } = this.#config.gateway;
    const notes = goneModels(this.#models, models).map(
      (id) => `${id} is no longer in the catalogue; where it is loaded it stays loaded`,
    );
    this.#config = { ...config, gateway: { ...config.gateway, listen, metrics_listen } };
    this.#models = models;
    return toReloadReport(changes, (key) => restartKeys.has(key), notes);
  }
}

function goneModels(before: ModelsConfig, after: ModelsConfig): string[] {
  const kept = new Set(after.models.map(({ id }) => id));
  return before.models.map(({ id }) => id).filter((id) => !kept.has(id));
}
