/** The configuration that is in force: what the file says now, but for what only a restart can change. */
import { diffConfig, type ReloadReport, toReloadReport } from 'cortex-core/config/diff-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import type { ModelSpec } from 'cortex-core/wire/neuron';

/** What is read at each use, or applied by a reload. */
const liveKeys = ['key', 'default_models', 'admission', 'limits', 'watch_config', 'log'] as const;

export interface NeuronReload {
  readonly report: ReloadReport;
  /** Default models that are new in the file. */
  readonly added: readonly ModelSpec[];
}

export class LiveConfig {
  #config: NeuronConfig;

  constructor(config: NeuronConfig) {
    this.#config = config;
  }

  get config(): NeuronConfig {
    return this.#config;
  }

  replace(next: NeuronConfig): NeuronReload {
    const before = this.#config;
    const changes = diffConfig(before, next);
    const { key, default_models, admission, limits, watch_config, log } = next;
    const { key: _, ...kept } = before;
    const live = { default_models, admission, limits, watch_config, log };
    this.#config = { ...kept, ...live, ...(key === undefined ? {} : { key }) };
    const known = new Set(before.default_models.map(({ model_id }) => model_id));
    return {
      report: toReloadReport(changes, needsRestart, notesOf(before.default_models, default_models)),
      added: default_models.filter(({ model_id }) => !known.has(model_id)),
    };
  }
}

function needsRestart(key: string): boolean {
  return !liveKeys.some((live) => key === live || key.startsWith(`${live}.`));
}

/** Models that serve are left alone. */
function notesOf(before: readonly ModelSpec[], after: readonly ModelSpec[]): string[] {
  return before.flatMap((spec) => {
    const id = spec.model_id;
    const now = after.find(({ model_id }) => model_id === id);
    if (now === undefined) return [`${id} is no longer a default model; where it is loaded it stays loaded`];
    const isSame = JSON.stringify(now) === JSON.stringify(spec);
    return isSame ? [] : [`the change of ${id} counts when it is loaded next`];
  });
}
