import type { Clock } from 'cortex-core/daemon/clock';
import type { NeuronModel } from 'cortex-core/wire/neuron';
import { FileCapabilities } from './file-capabilities.ts';
import type { ModelLoader } from './loader.ts';
import type { ModelSources } from './sources.ts';

/** A list is asked for by every poll and page; the disk is looked at this often. */
const ttlMs = 5000;

/** What this machine's disk has, loaded or not. */
export class AvailableModels {
  readonly #sources: ModelSources;
  readonly #loader: ModelLoader;
  readonly #clock: Clock;
  readonly #capabilities = new FileCapabilities();
  #last: { readonly atMs: number; readonly models: Promise<readonly NeuronModel[]> } | null = null;

  constructor(sources: ModelSources, loader: ModelLoader, clock: Clock) {
    this.#sources = sources;
    this.#loader = loader;
    this.#clock = clock;
  }

  list(): Promise<readonly NeuronModel[]> {
    const atMs = this.#clock.monotonicMs();
    if (this.#last !== null && atMs - this.#last.atMs < ttlMs) return this.#last.models;
    const models = this.#scan();
    this.#last = { atMs, models };
    models.catch(() => {
      this.#last = null;
    });
    return models;
  }

  async #scan(): Promise<readonly NeuronModel[]> {
    const models: NeuronModel[] = [];
    for (const [id, entry] of await this.#sources.list()) {
      models.push({
        id,
        harness: 'llamacpp',
        status: 'available',
        devices: [],
        vram_used_mb: null,
        vram_estimate_mb: await this.#loader.estimateMb(entry.files),
        ...(await this.#capabilities.of(entry.files)),
        digest: null,
      });
    }
    return models;
  }
}
