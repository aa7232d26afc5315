import type { Clock } from 'cortex-core/daemon/clock';
import type { NeuronModel } from 'cortex-core/wire/neuron';
import { type CatalogueEntry, findByName } from './catalogue.ts';
import { FileCapabilities, watchedTokens } from './file-capabilities.ts';
import { readGgufHeader } from './gguf-header.ts';
import { HeaderCache } from './header-cache.ts';
import type { ModelLoader } from './loader.ts';
import type { ModelSources } from './sources.ts';

/** A list is asked for by every poll and page; the disk is looked at this often. */
const ttlMs = 5000;

interface Scan {
  readonly models: readonly NeuronModel[];
  readonly entries: ReadonlyMap<string, CatalogueEntry>;
}

/** What this machine's disk has, loaded or not. */
export class AvailableModels {
  readonly #sources: Pick<ModelSources, 'list'>;
  readonly #loader: Pick<ModelLoader, 'estimateMb'>;
  readonly #clock: Clock;
  readonly #headers = new HeaderCache((file) => readGgufHeader(file, watchedTokens));
  readonly #capabilities = new FileCapabilities(this.#headers);
  #last: (Scan & { readonly atMs: number }) | null = null;
  #running: Promise<Scan> | null = null;

  constructor(sources: Pick<ModelSources, 'list'>, loader: Pick<ModelLoader, 'estimateMb'>, clock: Clock) {
    this.#sources = sources;
    this.#loader = loader;
    this.#clock = clock;
  }

  async list(): Promise<readonly NeuronModel[]> {
    return (await this.#current()).models;
  }

  /** The first file of the model that a load of `id` would find here without a network; null = none. */
  async fileOf(id: string): Promise<string | null> {
    const { entries } = await this.#current();
    const exact = entries.get(id) ?? findByName(entries, id, null);
    if (exact !== null) return exact.files[0] ?? null;
    // A repository of several quantisations is listed with each: the tokenizer is the same in all.
    const prefix = `${id.toLowerCase()}:`;
    const name = [...entries.keys()].sort().find((each) => each.toLowerCase().startsWith(prefix));
    return entries.get(name ?? '')?.files[0] ?? null;
  }

  async #current(): Promise<Scan> {
    const last = this.#last;
    if (last !== null && this.#clock.monotonicMs() - last.atMs < ttlMs) return last;
    this.#running ??= this.#scan().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #scan(): Promise<Scan> {
    const models: NeuronModel[] = [];
    const entries = await this.#sources.list();
    for (const [id, entry] of entries) {
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
    this.#last = { atMs: this.#clock.monotonicMs(), models, entries };
    return this.#last;
  }
}

/** What only the file tells: all before it is loaded, then whether it can fill in the middle. */
export function withFile(model: NeuronModel, file: NeuronModel | undefined): NeuronModel {
  if (file === undefined) return model;
  const { capabilities, tool_call, reasoning, vram_estimate_mb } = file;
  if (model.limit === undefined) {
    // not attached: what it will take is what its file says, until a load has measured it
    const size = model.vram_estimate_mb === null ? { vram_estimate_mb } : {};
    return { ...model, ...size, capabilities, tool_call, reasoning };
  }
  const isNew = capabilities.includes('infill') && !model.capabilities.includes('infill');
  return isNew ? { ...model, capabilities: [...model.capabilities, 'infill'] } : model;
}
