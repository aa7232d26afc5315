/** The configuration that is in force: what the files say now, but for what only a restart can change. */
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { diffConfig, type ReloadReport, toReloadReport } from 'cortex-core/config/diff-config';
import type { ModelsConfig } from 'cortex-core/config/models-config';

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

  /**
   * What the parts made at the start were made with stays as it is (docs/operations.md says which), so that
   * every reload until the restart says so.
   */
  replace(config: CortexConfig, models: ModelsConfig): ReloadReport {
    const changes = [...diffConfig(this.#config, config), ...diffConfig(this.#models, models)];
    const { state_dir: _, ...rest } = config;
    const { gateway, failover, responses, state_dir } = this.#config;
    const { listen, metrics_listen, stream_check_every } = gateway;
    const { budget_burst, budget_ratio, attach_mb, attach_total_mb } = failover;
    const notes = goneModels(this.#models, models).map(
      (id) => `${id} is no longer in the catalogue; where it is loaded it stays loaded`,
    );
    this.#config = {
      ...rest,
      ...(state_dir === undefined ? {} : { state_dir }),
      gateway: { ...config.gateway, listen, metrics_listen, stream_check_every },
      failover: { ...config.failover, budget_burst, budget_ratio, attach_mb, attach_total_mb },
      responses,
    };
    this.#models = models;
    // what still differs from what is in force is what waits
    const waiting = new Set(diffConfig(this.#config, config).map(({ key }) => key));
    return toReloadReport(changes, (key) => waiting.has(key), notes);
  }
}

function goneModels(before: ModelsConfig, after: ModelsConfig): string[] {
  const kept = new Set(after.models.map(({ id }) => id));
  return before.models.map(({ id }) => id).filter((id) => !kept.has(id));
}
