import { freemem, totalmem } from 'node:os';
import { AppError } from 'cortex-core/wire/errors';
import type { BackendDevice, DeviceMemory, LoadSpec, ModelFacts } from 'cortex-core/wire/inference';
import {
  type Libllama,
  type LoadLibraryOptions,
  listDevices,
  loadLibrary,
} from '../libllama/load-library.ts';
import { checkModelFiles } from './check-model-file.ts';
import { DraftModel } from './draft-model.ts';
import type { DraftSource } from './draft-source.ts';
import type { EngineFaults } from './engine-faults.ts';
import { LoadedModel } from './loaded-model.ts';
import { MtpContext } from './mtp-context.ts';
import { MtpDraft } from './mtp-draft.ts';
import { closeModel, type OpenedModel, openModel } from './open-model.ts';
import { readFacts } from './read-facts.ts';
import { readVocabulary, type Vocabulary } from './vocabulary.ts';
import { VocabularyFile } from './vocabulary-file.ts';

export interface EngineOptions extends LoadLibraryOptions {
  /** An opened library instead of the one that the other options would find. */
  readonly library?: Libllama;
  /** Milliseconds, monotonic; default performance.now. */
  readonly now?: () => number;
  readonly faults?: EngineFaults | undefined;
}

interface Drafter {
  readonly source: DraftSource | null;
  readonly by: NonNullable<ModelFacts['drafts']>;
  readonly why?: string | undefined;
}

const noDrafter: Drafter = { source: null, by: 'off' };

/** Everything native of one owner. Synchronous; every call from the thread that made it. */
export class Engine {
  readonly #library: Libllama;
  readonly #now: () => number;
  readonly #faults: EngineFaults | undefined;
  readonly #models = new Set<LoadedModel>();
  #isClosed = false;

  /** Errors: `load_failed` when libllama is missing or another version. */
  constructor(options: EngineOptions = {}) {
    this.#library = options.library ?? loadLibrary(options);
    this.#faults = options.faults;
    this.#now = options.now ?? (() => performance.now());
  }

  /** e.g. `0.4.0-dev`. */
  get version(): string {
    return this.#library.version;
  }

  devices(): BackendDevice[] {
    return listDevices(this.#library.api).map((device) =>
      device.kind === 'cpu' ? { ...device, memory: hostMemory() } : device,
    );
  }

  /** Of all GPUs together; of the host when there is none. MiB. */
  memory(): DeviceMemory {
    const gpus = listDevices(this.#library.api).filter(isGpu);
    if (gpus.length === 0) return hostMemory();
    return {
      freeMb: gpus.reduce((sum, { memory }) => sum + memory.freeMb, 0),
      totalMb: gpus.reduce((sum, { memory }) => sum + memory.totalMb, 0),
    };
  }

  /**
   * Blocks until the model is loaded. `onProgress` is called with 0..1 from inside; false aborts.
   * Errors: `model_file_not_found`, `invalid_model_file`, `invalid_request`, `insufficient_vram`,
   * `does_not_fit`, `load_cancelled`, `load_failed`. Nothing stays allocated after an error.
   */
  load(spec: LoadSpec, onProgress: (fraction: number) => boolean = () => true): LoadedModel {
    if (this.#isClosed) throw new AppError('device_gone', 'the engine is closed');
    const startedAt = this.#now();
    const fileBytes = checkModelFiles(spec.modelId, spec.file);
    this.#faults?.onLoad(spec.modelId, onProgress);
    const { api } = this.#library;
    const freeBefore = this.#gpuFreeMb();
    const opened = openModel(this.#library, spec, onProgress);
    let drafter: Drafter = noDrafter;
    try {
      const vocabulary = readVocabulary(api, opened.model);
      drafter = this.#openDrafter(spec, opened, vocabulary, onProgress);
      const freeAfter = this.#gpuFreeMb();
      const deviceMb = freeBefore === null || freeAfter === null ? 0 : freeBefore - freeAfter;
      const { source, by, why } = drafter;
      const facts = readFacts(api, opened, vocabulary, spec, {
        fileBytes,
        loadMs: this.#now() - startedAt,
        deviceBytes: deviceMb > 0 ? deviceMb * 1024 ** 2 : null,
        contextBytes: opened.contextBytes,
        draft: source,
        drafts: { by, why },
      });
      const model = new LoadedModel({
        library: this.#library,
        opened,
        vocabulary,
        facts,
        spec,
        now: this.#now,
        faults: this.#faults,
        drafter: source,
        onClose: (closed) => this.#models.delete(closed),
      });
      this.#models.add(model);
      return model;
    } catch (error) {
      drafter.source?.close();
      closeModel(api, opened);
      throw error;
    }
  }

  /**
   * The vocabulary of a file, without weights or context; to be closed. Blocks for as long as reading the
   * header takes. Errors: `model_file_not_found`, `invalid_model_file`.
   */
  openVocabulary(modelId: string, file: string): VocabularyFile {
    if (this.#isClosed) throw new AppError('device_gone', 'the engine is closed');
    checkModelFiles(modelId, file);
    return new VocabularyFile(this.#library, modelId, file);
  }

  /** Closes every model. Idempotent. The library stays loaded for the process's life. */
  close(): void {
    this.#isClosed = true;
    for (const model of [...this.#models]) model.close();
  }

  #openDrafter(
    spec: LoadSpec,
    opened: OpenedModel,
    vocabulary: Vocabulary,
    onProgress: (fraction: number) => boolean,
  ): Drafter {
    const { speculation, draftFile, modelId } = spec;
    if (speculation === 'mtp') return this.#openMtp(spec, opened);
    if (draftFile === null || speculation === 'off') return { source: null, by: speculation };
    checkModelFiles(modelId, draftFile);
    const parts = { spec, vocabulary, contextTokens: opened.contextTokens };
    return { source: new DraftModel(this.#library, parts, onProgress), by: 'draft_model' };
  }

  /** Nobody asked for them by name: where they cannot be used, the text alone drafts. */
  #openMtp(spec: LoadSpec, opened: OpenedModel): Drafter {
    const { api, nextn } = this.#library;
    const layers = api.llama_model_n_layer_nextn(opened.model);
    if (nextn === null)
      return { source: null, by: 'ngram', why: 'this libllama lacks the functions for them' };
    if (layers < 1) return { source: null, by: 'ngram', why: 'libllama finds none in the file' };
    try {
      const context = new MtpContext(this.#library, nextn, opened, spec);
      return { source: new MtpDraft(context, spec.slots), by: 'mtp' };
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      return { source: null, by: 'ngram', why: error.message };
    }
  }

  #gpuFreeMb(): number | null {
    const gpus = listDevices(this.#library.api).filter(isGpu);
    return gpus.length === 0 ? null : gpus.reduce((sum, { memory }) => sum + memory.freeMb, 0);
  }
}

function isGpu({ kind }: BackendDevice): boolean {
  return kind === 'gpu' || kind === 'igpu';
}

function hostMemory(): DeviceMemory {
  return { freeMb: Math.floor(freemem() / 1024 ** 2), totalMb: Math.floor(totalmem() / 1024 ** 2) };
}
