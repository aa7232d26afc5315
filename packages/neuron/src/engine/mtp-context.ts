/**
 * The second context of a model with layers for multi-token prediction: it computes those layers alone, each
 * token together with the hidden state that the model had one position before.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { type LlamaApi, LlamaContextType } from '../libllama/bindings.gen.ts';
import type { Libllama } from '../libllama/load-library.ts';
import { viewFloats } from '../libllama/native-memory.ts';
import type { NextnFunctions } from '../libllama/nextn-functions.ts';
import { DecodeBatch } from './decode-batch.ts';
import { createKvMemory, type KvMemory } from './kv-memory.ts';
import { createLogitsReader, type LogitsReader } from './logits-reader.ts';
import { cacheTypeOf, flashAttentionType, type OpenedModel, ownMemoryBytes } from './open-model.ts';

export interface MtpRow {
  readonly token: number;
  /** Position in this context. */
  readonly position: number;
  /** Hidden state that the model, or a layer for prediction, had one position before. */
  readonly state: Float32Array;
}

const viewsMax = 256;

export class MtpContext {
  /** Floats of a hidden state. */
  readonly width: number;
  /** Layers for prediction. */
  readonly heads: number;
  /** Rows that one decode call may hold. */
  readonly capacity: number;
  readonly kv: KvMemory;
  /** Growth of this process's own memory while the context was made. */
  readonly contextBytes: number;
  readonly #api: LlamaApi;
  readonly #nextn: NextnFunctions;
  readonly #trunk: bigint;
  readonly #context: bigint;
  readonly #batch: DecodeBatch;
  readonly #logits: LogitsReader;
  readonly #views = new Map<bigint, Float32Array>();
  #isClosed = false;

  /** Errors: `does_not_fit`, `load_failed` when what the functions give is not what it should be. */
  constructor({ api }: Libllama, nextn: NextnFunctions, opened: OpenedModel, spec: LoadSpec) {
    const { model, contextTokens, threads } = opened;
    this.#api = api;
    this.#nextn = nextn;
    this.#trunk = opened.context;
    this.width = api.llama_model_n_embd_out(model);
    this.heads = api.llama_model_n_layer_nextn(model);
    this.capacity = spec.ubatch;
    const ownBefore = ownMemoryBytes();
    this.#context = createMtpContext(api, opened, spec);
    this.contextBytes = Math.max(0, ownMemoryBytes() - ownBefore);
    if (threads !== null) api.llama_attach_threadpool(this.#context, threads.address, threads.address);
    const memory = api.llama_get_memory(this.#context) as bigint | null;
    this.kv = createKvMemory(api, this.#context, { memory, canTruncate: true });
    this.#batch = new DecodeBatch(this.capacity, this.width);
    const vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model));
    this.#logits = createLogitsReader(api, this.#context, vocabulary);
    nextn.setStates(this.#trunk, true, false);
    nextn.setStates(this.#context, true, true);
    const why = this.#fault(contextTokens);
    if (why === null) return;
    this.close();
    throw new AppError('load_failed', `the prediction layers of "${spec.modelId}" cannot be used: ${why}`);
  }

  /**
   * One decode call. `hasOutputs`: of every row; of some alone the architectures number the states
   * differently. False when it failed: then the rows are in no cell.
   */
  decode(slot: number, rows: readonly MtpRow[], hasOutputs: boolean, head = 0): boolean {
    this.#batch.clear();
    for (const { token, position, state } of rows) {
      const at = this.#batch.add(token, position, slot, hasOutputs);
      this.#batch.stateAt(at).set(state);
    }
    // Another layer is another graph: it is named for as long as it is computed.
    if (head > 0) this.#nextn.setLayer(this.#context, head);
    const code = this.#api.llama_decode(this.#context, this.#batch.struct);
    if (head > 0) this.#nextn.setLayer(this.#context, 0);
    return code === 0;
  }

  /** Logits of a row of the last call; valid until the next one. */
  logitsOf(row: number): Float32Array {
    return this.#logits.rowAt(this.#logits.addressOf(row));
  }

  /** Hidden state of a row of the last call, a copy; null when there is none. */
  stateOf(row: number): Float32Array | null {
    const address = this.#nextn.stateOf(this.#context, row);
    return address === null ? null : this.#floatsAt(address, this.width).slice();
  }

  /**
   * The model's own states of `count` entries of its last decode call, from `row` on; valid until the next.
   * They lie in the order in which they were computed, which is that of the batch where it held one sequence,
   * or one token each of several, their ids ascending (llama-batch.cpp, split_equal).
   */
  trunkStates(row: number, count: number): Float32Array | null {
    const address = this.#nextn.states(this.#trunk);
    if (address === null) return null;
    return this.#floatsAt(address + BigInt(row * this.width * 4), count * this.width);
  }

  /** Idempotent. Before the model itself is closed. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#nextn.setStates(this.#trunk, false, false);
    this.#batch.close();
    this.#api.llama_free(this.#context);
  }

  /** Rows come back at the same addresses: a view is kept, as of logits. */
  #floatsAt(address: bigint, length: number): Float32Array {
    const known = this.#views.get(address);
    if (known !== undefined && known.length >= length) return known.subarray(0, length);
    if (this.#views.size >= viewsMax) this.#views.clear();
    const view = viewFloats(address, length);
    this.#views.set(address, view);
    return view;
  }

  /** What is wrong with the first row ever computed; null = nothing. */
  #fault(contextTokens: number): string | null {
    const own = this.#api.llama_n_ctx_seq(this.#context);
    if (own < contextTokens) return `their context holds ${own} tokens and the model's ${contextTokens}`;
    const row = { token: 0, position: 0, state: new Float32Array(this.width) };
    for (let head = 0; head < this.heads; head++) {
      if (!this.decode(0, [row], true, head)) return 'a decode step failed';
      const state = this.stateOf(0);
      if (state === null) return 'they give no hidden state';
      if (state.some(Number.isNaN) || this.logitsOf(0).some(Number.isNaN)) {
        return 'they give values that are no numbers';
      }
      this.kv.clear(0);
    }
    return null;
  }
}

/** Errors: `does_not_fit`. */
export function createMtpContext(
  api: LlamaApi,
  { model, context: trunk, contextTokens }: OpenedModel,
  spec: LoadSpec,
): bigint {
  const threads = api.llama_n_threads(trunk);
  const context = api.llama_init_from_model(model, {
    ...api.llama_context_default_params(),
    ctx_type: LlamaContextType.LLAMA_CONTEXT_TYPE_MTP,
    n_ctx: contextTokens * spec.slots,
    n_batch: spec.ubatch,
    n_ubatch: spec.ubatch,
    n_seq_max: spec.slots,
    n_outputs_max: Math.max(spec.slots, api.llama_model_n_layer_nextn(model)),
    n_threads: threads,
    n_threads_batch: threads,
    flash_attn_type: flashAttentionType(spec),
    type_k: cacheTypeOf(spec.cacheTypeK),
    type_v: cacheTypeOf(spec.cacheTypeV),
    kv_unified: false,
  }) as bigint | null;
  if (context !== null) return context;
  throw new AppError(
    'does_not_fit',
    `model "${spec.modelId}": no room for the context of its prediction layers; lower context or slots, ` +
      'or set speculation = "ngram"',
  );
}
