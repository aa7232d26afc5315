/** Loads `default_models` one after another behind a listener that is already up, and says how far it is. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import { toAppError } from 'cortex-core/wire/errors';
import type { Activation, ModelSpec } from 'cortex-core/wire/neuron';
import type { ModelRegistry } from './registry.ts';
import { configuredFile, configuredPath } from './sources.ts';

/** A hub that cannot be reached at boot may be reachable soon; other faults will not mend themselves. */
const retrySecs = [10, 20, 40, 80, 160, 300];

export interface ActivationDeps {
  readonly registry: ModelRegistry;
  readonly clock: Clock;
  readonly log: Log;
  /** Relative paths in default_models start here. */
  readonly baseDir: string;
}

interface PendingModel {
  readonly spec: ModelSpec;
  readonly file: string | null;
}

export class DefaultModels {
  readonly #deps: ActivationDeps;
  readonly #pending: PendingModel[];
  readonly #completed: string[] = [];
  readonly #failed: { model_id: string; error: string }[] = [];
  #inProgress: string | null = null;
  #running: Promise<void> | null = null;

  constructor(models: readonly ModelSpec[], deps: ActivationDeps) {
    this.#deps = deps;
    this.#pending = models.map((model) => toPending(model, deps.baseDir));
  }

  get state(): Activation {
    return {
      state: this.#inProgress === null && this.#pending.length === 0 ? 'ready' : 'pre_warming',
      pending: this.#pending.map(({ spec }) => spec.model_id),
      in_progress: this.#inProgress,
      completed: [...this.#completed],
      failed: [...this.#failed],
    };
  }

  /** Ends when all are loaded or failed, early on abort. Never rejects. A call during a run joins it. */
  run(signal: AbortSignal): Promise<void> {
    this.#running ??= this.#loadAll(signal).finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** Loads these too, after those that wait already. */
  add(models: readonly ModelSpec[], signal: AbortSignal): Promise<void> {
    this.#pending.push(...models.map((model) => toPending(model, this.#deps.baseDir)));
    return this.run(signal);
  }

  async #loadAll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const next = this.#pending.shift();
      if (next === undefined) return;
      const id = next.spec.model_id;
      this.#inProgress = id;
      try {
        await this.#loadWithRetries(next.spec, next.file, signal);
        this.#completed.push(id);
      } catch (thrown) {
        const error = signal.aborted ? 'the neuron was stopped' : toAppError(thrown).message;
        this.#failed.push({ model_id: id, error });
        if (!signal.aborted) this.#deps.log.error(`default model failed: ${error}`, { model: id });
      }
      this.#inProgress = null;
    }
  }

  async #loadWithRetries(spec: ModelSpec, file: string | null, signal: AbortSignal): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        if (!this.#deps.registry.isLoaded(spec.model_id)) await this.#deps.registry.load(spec, file);
        return;
      } catch (thrown) {
        const secs = retrySecs[attempt];
        const error = toAppError(thrown);
        if (error.code !== 'repo_fetch_failed' || secs === undefined || signal.aborted) throw thrown;
        this.#deps.log.warn(`default model: ${error.message}; next attempt in ${secs} s`, {
          model: spec.model_id,
        });
        await this.#deps.clock.sleep(secs * 1000, signal);
      }
    }
  }
}

function toPending(model: ModelSpec, baseDir: string): PendingModel {
  const lora = model.lora?.map((each) => ({ ...each, file: configuredPath(each.file, baseDir) }));
  const spec = lora === undefined ? model : { ...model, lora };
  const path = configuredFile(spec.model_id, baseDir);
  return path === null ? { spec, file: null } : { spec: { ...spec, model_id: path.name }, file: path.file };
}
