import type { Clock } from 'cortex-core/daemon/clock';
import type { NeuronModel } from 'cortex-core/wire/neuron';
import { FileCapabilities, watchedTokens } from './file-capabilities.ts';
import { readGgufHeader } from './gguf-header.ts';
import { HeaderCache } from './header-cache.ts';
import type { ModelLoader } from './loader.ts';
import type { ModelSources } from './sources.ts';

/** A list is asked for by every poll and page; the disk is looked at this often. */
const ttlMs = 5000;

/** What this machine's disk has, loaded or not. */
export class AvailableModels {
  readonly #sources: Pick<ModelSources, 'list'>;
  readonly #loader: Pick<ModelLoader, 'estimateMb'>;
  readonly #clock: Clock;
  readonly #headers = new HeaderCache((file) => readGgufHeader(file, watchedTokens));
  readonly #capabilities = new FileCapabilities(this.#headers);
  #last: { readonly atMs: number; readonly models: readonly NeuronModel[] } | null = null;
  #running: Promise<readonly NeuronModel[]> | null = null;

  constructor(sources: Pick<ModelSources, 'list'>, loader: Pick<ModelLoader, 'estimateMb'>, clock: Clock) {
    this.#sources = sources;
    this.#loader = loader;
    this.#clock = clock;
  }

  async list(): Promise<readonly NeuronModel[]> {
    const last = this.#last;
    if (last !== null && this.#clock.monotonicMs() - last.atMs < ttlMs) return last.models;
    this.#running ??= this.#scan().finally(() => {
      this.#running = null;
    });
    return this.#running;
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
        vram_estimate_mb: await this.#loader.estimateMb(entry.files, (file) => this.#headers.read(file)),
        ...(await this.#capabilities.of(entry.files)),
        digest: null,
      });
    }
    // From its end: a scan may take longer than what it says is good for.
    this.#last = { atMs: this.#clock.monotonicMs(), models };
    return models;
  }
}
