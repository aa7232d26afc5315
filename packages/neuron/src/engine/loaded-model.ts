import { AppError } from 'cortex-core/wire/errors';
import type {
  EmbedResult,
  GenerateParams,
  KvPrefix,
  KvSnapshot,
  LoadSpec,
  ModelFacts,
  RankResult,
  TokenizeOptions,
} from 'cortex-core/wire/inference';
import type { Libllama } from '../libllama/load-library.ts';
import { BatchLoop } from './batch-loop.ts';
import { Candidates } from './candidates.ts';
import { DecodeBatch } from './decode-batch.ts';
import type { DraftSource } from './draft-source.ts';
import { createEmbedder, type Embedder, type SteppedTask } from './embedder.ts';
import type { EngineFaults } from './engine-faults.ts';
import { createGrammarCache } from './grammar/compiled-grammar.ts';
import { createKvMemory } from './kv-memory.ts';
import { KvSnapshots } from './kv-snapshots.ts';
import { createLogitsReader } from './logits-reader.ts';
import { MtpDraft } from './mtp-draft.ts';
import { withMtp } from './mtp-memory.ts';
import { closeModel, type OpenedModel } from './open-model.ts';
import { PrefixCache } from './prefix-cache.ts';
import { createReservedSequence, type ReservedSequence } from './reserved-sequence.ts';
import type { SamplerHost } from './sampler.ts';
import { readSamplingDefaults, type SamplingDefaults } from './sampling-defaults.ts';
import type { GenerateSink } from './sequence.ts';
import { checkTokens, type Vocabulary } from './vocabulary.ts';

export interface LoadedModelOptions {
  readonly library: Libllama;
  readonly opened: OpenedModel;
  readonly vocabulary: Vocabulary;
  readonly facts: ModelFacts;
  readonly spec: LoadSpec;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  readonly faults?: EngineFaults | undefined;
  /** Closed with the model. */
  readonly drafter: DraftSource | null;
  readonly onClose: (model: LoadedModel) => void;
}

/**
 * A model in memory with its context. Synchronous and bound to the thread that loaded it; the owner calls
 * `step()` as long as `hasWork()`.
 */
export class LoadedModel {
  readonly facts: ModelFacts;
  /** What the model's file recommends; used for what a request leaves open. */
  readonly samplingDefaults: SamplingDefaults;
  readonly #options: LoadedModelOptions;
  readonly #host: SamplerHost & { readonly candidates: Candidates };
  readonly #cache: PrefixCache;
  readonly #batch: DecodeBatch;
  readonly #loop: BatchLoop;
  readonly #reserved: ReservedSequence;
  readonly #snapshots: KvSnapshots;
  readonly #embedder: Embedder;
  #isClosed = false;
  #isStepping = false;

  constructor(options: LoadedModelOptions) {
    const { library, opened, vocabulary, facts, spec } = options;
    const { api } = library;
    const { context, contextTokens } = opened;
    this.#options = options;
    this.facts = facts;
    this.samplingDefaults = readSamplingDefaults(facts.metadata);
    const memory = api.llama_get_memory(context) as bigint | null;
    const own = createKvMemory(api, context, { memory, canTruncate: !facts.recurrent });
    const mtp = options.drafter instanceof MtpDraft ? options.drafter : null;
    const kv = mtp === null ? own : withMtp(own, mtp);
    this.#cache = new PrefixCache({
      kv,
      slots: spec.slots,
      bytesMax: spec.prefixCacheMb * 1024 ** 2,
      now: options.now,
    });
    this.#batch = new DecodeBatch(opened.batchTokens);
    this.#host = {
      api,
      vocabulary,
      context,
      contextTokens,
      logits: createLogitsReader(api, context, vocabulary.size),
      candidates: new Candidates(api, vocabulary.size),
      grammars: createGrammarCache(vocabulary),
      defaults: this.samplingDefaults,
    };
    const shared = { kv, batch: this.#batch, modelId: spec.modelId };
    this.#loop = new BatchLoop({
      ...shared,
      host: this.#host,
      cache: this.#cache,
      ubatch: spec.ubatch,
      speculation: spec.speculation,
      drafter: options.drafter,
      mtp,
      now: options.now,
      faults: options.faults,
    });
    this.#reserved = createReservedSequence({
      ...shared,
      api,
      context,
      contextTokens,
      logits: this.#host.logits,
      id: spec.slots,
    });
    this.#snapshots = new KvSnapshots({ kv, reserved: this.#reserved, modelId: spec.modelId });
    this.#embedder = createEmbedder({
      api,
      context,
      memory,
      batch: this.#batch,
      reserved: this.#reserved,
      facts,
      width: api.llama_model_n_embd_out(opened.model),
      readsWhole: opened.readsWhole,
      sequences: opened.sequences,
      ubatch: spec.ubatch,
      modelId: spec.modelId,
    });
  }

  tokenize(text: string, options: TokenizeOptions): Int32Array {
    this.#requireOpen();
    return this.#options.vocabulary.tokenize(text, options);
  }

  /** Special tokens are rendered. Errors: `invalid_request` for an id outside the vocabulary. */
  detokenize(tokens: Int32Array): string {
    this.#requireOpen();
    return this.#options.vocabulary.detokenize(tokens);
  }

  /** Forgets the reserved sequence and every cached prefix. Running generations keep their cells. */
  clearKv(): void {
    this.#requireOpen();
    this.#reserved.clear();
    this.#cache.clear();
  }

  /** What is cached of ended sequences, most recently used first; for `importPrefixes` of the same file. */
  exportPrefixes(): readonly KvPrefix[] {
    this.#requireOpen();
    return this.#cache.export();
  }

  /** Prefixes that do not fit this model are left out. */
  importPrefixes(prefixes: readonly KvPrefix[]): void {
    this.#requireOpen();
    this.#cache.import(prefixes);
  }

  /**
   * Logits after the last of `tokens`, length vocab, in a sequence of its own: generations are not disturbed.
   * Offset 0 starts afresh; otherwise `tokens` continue that sequence at `offset`, and what lay beyond is
   * forgotten. Errors: `invalid_request`, `context_length_exceeded`, `job_failed`.
   */
  forwardLogits(tokens: Int32Array, offset: number): Float32Array {
    this.#requireOpen();
    this.#requireDecoder();
    if (this.#isStepping) throw new Error('forwardLogits must not be called from inside a step');
    checkTokens(tokens, this.facts.vocabSize);
    return this.#reserved.forward(tokens, offset);
  }

  /**
   * One vector per input, in pieces. What forwardLogits held may be forgotten. Errors, thrown at once:
   * `invalid_request`, `context_length_exceeded`, `wrong_modality`.
   */
  embed(inputs: readonly Int32Array[]): SteppedTask<EmbedResult> {
    this.#requireOpen();
    this.#requireNoEncoder();
    return this.#stepped(this.#embedder.embed(inputs));
  }

  /** One score per input, each a pair that the caller joined. Errors as `embed`. */
  rank(inputs: readonly Int32Array[]): SteppedTask<RankResult> {
    this.#requireOpen();
    this.#requireNoEncoder();
    return this.#stepped(this.#embedder.rank(inputs));
  }

  /** Copies the sequence of forwardLogits. Errors: `overloaded` at the limit, `wrong_modality`. */
  snapshotKv(): KvSnapshot {
    this.#requireOpen();
    this.#requireDecoder();
    return this.#snapshots.take();
  }

  /** The sequence of forwardLogits is then as it was. Errors: `invalid_request` for an unknown id. */
  restoreKv(id: number): KvSnapshot {
    this.#requireOpen();
    this.#requireDecoder();
    return this.#snapshots.restore(id);
  }

  dropKvSnapshot(id: number): KvSnapshot {
    this.#requireOpen();
    this.#requireDecoder();
    return this.#snapshots.drop(id);
  }

  /**
   * Queues a generation; its events come from inside `step()`. Cancelling takes effect at the next step.
   * Errors, thrown at once: `invalid_request`, `context_length_exceeded`, `wrong_modality`, `overloaded`.
   */
  submit(params: GenerateParams, sink: GenerateSink): { cancel(): void } {
    this.#requireOpen();
    this.#requireDecoder();
    return this.#loop.submit(params, sink);
  }

  hasWork(): boolean {
    return !this.#isClosed && !this.#loop.isIdle;
  }

  /** One decode call over all sequences, or a few. */
  step(): void {
    if (this.#isClosed) return;
    this.#isStepping = true;
    try {
      this.#loop.step();
    } finally {
      this.#isStepping = false;
    }
  }

  /**
   * Ends what runs with `model_not_loaded` and frees the native memory. Idempotent; not from inside a step.
   */
  close(): void {
    if (this.#isClosed) return;
    if (this.#isStepping) throw new Error('a model must not be closed from inside its own step');
    this.#isClosed = true;
    const { library, opened, onClose } = this.#options;
    this.#loop.close();
    this.#cache.clear();
    this.#snapshots.close();
    this.#host.candidates.close();
    this.#batch.close();
    this.#options.drafter?.close();
    closeModel(library.api, opened);
    onClose(this);
  }

  #requireOpen(): void {
    if (this.#isClosed) {
      throw new AppError('model_not_loaded', `model "${this.#options.spec.modelId}" was unloaded`);
    }
  }

  #stepped<T>(task: SteppedTask<T>): SteppedTask<T> {
    return {
      step: () => {
        this.#requireOpen();
        return task.step();
      },
    };
  }

  #requireDecoder(): void {
    const { hasDecoder, hasEncoder, pooling } = this.facts;
    if (hasDecoder && !hasEncoder && pooling === 'none') return;
    const why =
      pooling === 'none'
        ? 'has no plain decoder and cannot generate text'
        : pooling === 'rank'
          ? 'is a reranker; ask it for a ranking, or another model for text'
          : 'is an embedding model; ask it for embeddings, or another model for text';
    throw new AppError('wrong_modality', `model "${this.#options.spec.modelId}" ${why}`, { param: 'model' });
  }

  #requireNoEncoder(): void {
    if (this.facts.hasDecoder && !this.facts.hasEncoder) return;
    const { modelId } = this.#options.spec;
    throw new AppError(
      'wrong_modality',
      `model "${modelId}" is of an encoder-decoder kind, which is not served`,
    );
  }
}
