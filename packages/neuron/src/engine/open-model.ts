/** LoadSpec -> a native model and its context; every way in which that fails is an AppError. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';
import {
  type KvCacheType,
  type LoadSpec,
  recurrentTakeBackMax,
  type SplitMode,
  wholeInputsAtOnce,
} from 'cortex-core/wire/inference';
import {
  GgmlType,
  type LlamaApi,
  type LlamaContextParams,
  LlamaFlashAttnType,
  LlamaLoadMode,
  type LlamaModelParams,
  LlamaSplitMode,
} from '../libllama/bindings.gen.ts';
import { type ComputeThreads, startComputeThreads } from '../libllama/compute-threads.ts';
import { type Libllama, listDeviceAddresses, listDevices } from '../libllama/load-library.ts';
import { allocateNative, allocatePointers, registerProgress } from '../libllama/native-memory.ts';
import { defaultThreads } from './default-threads.ts';
import { stepOutputsMax, stepTokensMax } from './plan-step.ts';
import { type PoolingPlan, planPooling } from './pooling.ts';

export interface OpenedModel {
  readonly model: bigint;
  readonly context: bigint;
  /** Tokens that one sequence may hold. */
  readonly contextTokens: number;
  /** Sequences of the context; a generating one has the slots and, last, that of forwardLogits. */
  readonly sequences: number;
  /** Tokens that one decode call may hold. */
  readonly batchTokens: number;
  /** Whether inputs are read whole, for embeddings alone; see embedder.ts. */
  readonly readsWhole: boolean;
  /** Growth of this process's own memory, mapped files aside, while the context was made, bytes. */
  readonly contextBytes: number;
  /** Closed after the context. */
  readonly threads: ComputeThreads | null;
}

export interface OpenOptions {
  /** Nothing is allocated and no weight is read: for libllama's own account of what a load would take. */
  readonly noAlloc?: boolean;
}

const ggmlTypes: Readonly<Record<KvCacheType, number>> = {
  f32: GgmlType.GGML_TYPE_F32,
  f16: GgmlType.GGML_TYPE_F16,
  bf16: GgmlType.GGML_TYPE_BF16,
  q8_0: GgmlType.GGML_TYPE_Q8_0,
  q4_0: GgmlType.GGML_TYPE_Q4_0,
  q4_1: GgmlType.GGML_TYPE_Q4_1,
  q5_0: GgmlType.GGML_TYPE_Q5_0,
  q5_1: GgmlType.GGML_TYPE_Q5_1,
  iq4_nl: GgmlType.GGML_TYPE_IQ4_NL,
};

const splitModes: Readonly<Record<SplitMode, number>> = {
  none: LlamaSplitMode.LLAMA_SPLIT_MODE_NONE,
  layer: LlamaSplitMode.LLAMA_SPLIT_MODE_LAYER,
  row: LlamaSplitMode.LLAMA_SPLIT_MODE_ROW,
  tensor: LlamaSplitMode.LLAMA_SPLIT_MODE_TENSOR,
};

export function cacheTypeOf(type: KvCacheType): number {
  return ggmlTypes[type];
}

/**
 * Blocks until the model and its context are there. `onProgress` is called on this thread with 0..1; false
 * aborts. Errors: `invalid_request`, `invalid_model_file`, `insufficient_vram`, `does_not_fit`,
 * `load_cancelled`, `load_failed`.
 */
export function openModel(
  library: Libllama,
  spec: LoadSpec,
  onProgress: (fraction: number) => boolean,
  options: OpenOptions = {},
): OpenedModel {
  checkSpec(spec);
  const { api } = library;
  const model = loadModel(library, spec, onProgress, options);
  try {
    const trained = api.llama_model_n_ctx_train(model);
    const plan = planPooling(api, model);
    // An encoder has a table of positions, and no more rows than it was trained on.
    const contextTokens = plan.readsWhole
      ? Math.min(spec.context ?? trained, trained)
      : (spec.context ?? trained);
    const sequences = plan.readsWhole ? wholeInputsAtOnce : spec.slots + 1;
    const batchTokens = plan.readsWhole
      ? Math.ceil(Math.max(contextTokens, spec.ubatch) / sequences) * sequences
      : Math.max(spec.batch, stepTokensMax(spec.slots, spec.ubatch));
    const ownBefore = ownMemoryBytes();
    const context = createContext(api, model, spec, { contextTokens, sequences, batchTokens, plan });
    const contextBytes = Math.max(0, ownMemoryBytes() - ownBefore);
    try {
      applyLora(api, model, context, spec);
    } catch (error) {
      api.llama_free(context);
      throw error;
    }
    const { readsWhole } = plan;
    const threads = startComputeThreads(api, api.llama_n_threads(context));
    if (threads !== null) api.llama_attach_threadpool(context, threads.address, threads.address);
    return { model, context, contextTokens, sequences, batchTokens, readsWhole, contextBytes, threads };
  } catch (error) {
    api.llama_model_free(model);
    throw error;
  }
}

/** Frees what `openModel` made, in the order that libllama wants. */
export function closeModel(api: LlamaApi, { context, threads, model }: OpenedModel): void {
  api.llama_free(context);
  threads?.close();
  api.llama_model_free(model);
}

function checkSpec(spec: LoadSpec): void {
  const wholes: readonly (readonly [string, number | null])[] = [
    ['context', spec.context],
    ['slots', spec.slots],
    ['batch', spec.batch],
    ['ubatch', spec.ubatch],
    ['threads', spec.threads],
  ];
  for (const [name, value] of wholes) {
    if (value === null || (Number.isInteger(value) && value >= 1 && value < 2 ** 31)) continue;
    throw new AppError('invalid_request', `${name} must be a whole number from 1, not ${value}`, {
      param: name,
    });
  }
  if (isQuantized(spec.cacheTypeV) && spec.flashAttention === false) {
    throw new AppError('invalid_request', `cacheTypeV ${spec.cacheTypeV} needs flash attention`, {
      param: 'cacheTypeV',
    });
  }
  if (spec.splitMode === 'tensor' && spec.flashAttention === false) {
    throw new AppError('invalid_request', 'split_mode tensor needs flash attention', { param: 'split_mode' });
  }
}

function loadModel(
  { api }: Libllama,
  spec: LoadSpec,
  onProgress: (fraction: number) => boolean,
  { noAlloc = false }: OpenOptions,
): bigint {
  const devices = chooseDevices(api, spec);
  const split = toTensorSplit(api, spec);
  let isAborted = false;
  const progress = registerProgress((fraction) => {
    try {
      isAborted ||= !onProgress(fraction);
    } catch {
      // An exception must not unwind through C++ frames.
      isAborted = true;
    }
    return !isAborted;
  });
  const params: LlamaModelParams = {
    ...api.llama_model_default_params(),
    devices: devices?.address ?? null,
    n_gpu_layers: spec.gpuLayers ?? -1,
    split_mode: splitModes[spec.splitMode],
    tensor_split: split?.address ?? null,
    progress_callback: progress.address,
    load_mtp: spec.speculation === 'mtp',
    // no_alloc with mapping aborts the process, see explainRefusal.
    ...(noAlloc ? { no_alloc: true, load_mode: LlamaLoadMode.LLAMA_LOAD_MODE_NONE } : {}),
  };
  try {
    const model = api.llama_model_load_from_file(spec.file, params) as bigint | null;
    if (model !== null && !isAborted) return model;
    if (model !== null) api.llama_model_free(model);
    if (isAborted) throw new AppError('load_cancelled', `the load of "${spec.modelId}" was cancelled`);
    throw explainRefusal(api, spec, { ...params, progress_callback: null });
  } finally {
    progress.close();
    devices?.close();
    split?.close();
  }
}

/** libllama reads llama_max_devices() floats, whatever the number of devices. */
function toTensorSplit(api: LlamaApi, spec: LoadSpec): ReturnType<typeof allocateNative> | null {
  const shares = spec.tensorSplit ?? [];
  const devicesMax = Number(api.llama_max_devices());
  if (shares.length === 0 || shares.length > devicesMax) return null;
  const block = allocateNative(devicesMax * 4);
  new Float32Array(block.buffer).set(shares);
  return block;
}

/**
 * Memory of this process that no file backs. Where the system does not tell (all but Linux), the resident
 * set, of which the context is about to become the part that grows.
 */
export function ownMemoryBytes(): number {
  if (process.platform === 'linux') {
    try {
      const kib = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
      if (kib !== undefined) return Number(kib) * 1024;
    } catch {
      // A container that hides /proc.
    }
  }
  return process.memoryUsage.rss();
}

/**
 * libllama says why only in its log. A second look that allocates nothing tells a bad file from a lack of
 * memory.
 */
function explainRefusal(api: LlamaApi, spec: LoadSpec, params: LlamaModelParams): AppError {
  // With a mapped file no_alloc aborts the process (GGML_ASSERT(!ml.no_alloc), llama-model.cpp); so does
  // no_alloc with the default "auto". llama.cpp's own common/fit.cpp turns mapping off as well.
  const lookAgain = (over: Partial<LlamaModelParams>): bigint | null =>
    api.llama_model_load_from_file(spec.file, {
      ...params,
      no_alloc: true,
      load_mode: LlamaLoadMode.LLAMA_LOAD_MODE_NONE,
      ...over,
    }) as bigint | null;
  const probe = lookAgain({});
  if (probe !== null) {
    const needed = Math.ceil(Number(api.llama_model_size(probe)) / 1024 ** 2);
    api.llama_model_free(probe);
    return new AppError(
      'insufficient_vram',
      `model "${spec.modelId}" needs ${needed} MiB for its weights and the device could not give them; ` +
        'unload another model or keep fewer layers on the GPU',
    );
  }
  const unsplit = spec.splitMode === 'tensor' ? lookAgain({ split_mode: splitModes.layer }) : null;
  if (unsplit !== null) {
    api.llama_model_free(unsplit);
    return new AppError(
      'invalid_request',
      `model "${spec.modelId}" cannot be split by tensor: its architecture or these devices do not ` +
        'allow it; use split_mode layer',
      { param: 'split_mode' },
    );
  }
  return new AppError(
    'invalid_model_file',
    `model "${spec.modelId}": ${basename(spec.file)} cannot be loaded; it is damaged or incomplete, or ` +
      "of an architecture newer than this build. Download it again; the neuron's log has the reason",
    { detail: { path: spec.file } },
  );
}

/** The NULL-terminated list for libllama; null = its own choice. A list of CPUs only means "no offload". */
function chooseDevices(api: LlamaApi, spec: LoadSpec): ReturnType<typeof allocatePointers> | null {
  if (spec.devices.length === 0) return null;
  const known = listDevices(api);
  const addresses = listDeviceAddresses(api);
  const chosen = spec.devices.map((index) => {
    const device = known[index];
    const address = addresses[index];
    if (device === undefined || address === undefined) {
      throw new AppError('invalid_request', `there is no device ${index}; this owner has ${known.length}`, {
        param: 'devices',
      });
    }
    return { device, address };
  });
  return allocatePointers(chosen.filter(({ device }) => device.kind !== 'cpu').map(({ address }) => address));
}

interface ContextShape {
  readonly contextTokens: number;
  readonly sequences: number;
  readonly batchTokens: number;
  readonly plan: PoolingPlan;
}

/**
 * One context for all slots and one more sequence, which forwardLogits owns.
 *
 * KV is split per sequence (kv_unified = false), each stream with room for the full context: a slot can then
 * never be starved by its neighbours, and attention reads only the sequence's own cells. SmolLM2, 8 streams,
 * one thread, prompts of 490 tokens: 98-101 tokens/s against 45-53 unified; alike with short prompts
 * (DESIGN.md).
 */
function createContext(
  api: LlamaApi,
  model: bigint,
  spec: LoadSpec,
  { contextTokens, sequences, batchTokens, plan }: ContextShape,
): bigint {
  if (sequences > Number(api.llama_max_parallel_sequences())) {
    throw new AppError(
      'invalid_request',
      `slots must be at most ${Number(api.llama_max_parallel_sequences()) - 1}, not ${spec.slots}`,
      { param: 'slots' },
    );
  }
  const threads = spec.threads ?? defaultThreads(Number(api.llama_model_n_params(model)));
  const params: LlamaContextParams = {
    ...api.llama_context_default_params(),
    n_ctx: contextTokens * sequences,
    n_batch: batchTokens,
    n_ubatch: plan.readsWhole ? batchTokens : spec.ubatch,
    n_seq_max: sequences,
    n_rs_seq: takenBackMax(spec),
    // Without this the graph reserves ubatch x vocabulary floats.
    n_outputs_max:
      spec.embeddings || plan.readsWhole ? 0 : stepOutputsMax(sequences, spec.speculation !== 'off'),
    n_threads: threads,
    n_threads_batch: threads,
    flash_attn_type: flashAttentionType(spec),
    pooling_type: plan.poolingType,
    type_k: ggmlTypes[spec.cacheTypeK],
    type_v: ggmlTypes[spec.cacheTypeV],
    // Elsewhere they are switched on for the one token that is asked for.
    embeddings: plan.readsWhole,
    kv_unified: false,
  };
  const context = api.llama_init_from_model(model, params) as bigint | null;
  if (context !== null) return context;
  throw new AppError(
    'does_not_fit',
    `model "${spec.modelId}": no room for ${spec.slots} slots of ${contextTokens} tokens with ` +
      `${spec.cacheTypeK}/${spec.cacheTypeV} KV; lower context or slots, or choose a smaller cache type`,
  );
}

/** Recurrent states kept besides the last one; a graph that cannot hold as many tokens would abort. */
function takenBackMax({ speculation, ubatch }: LoadSpec): number {
  return speculation === 'mtp' && ubatch > recurrentTakeBackMax + 1 ? recurrentTakeBackMax : 0;
}

/**
 * Left open, libllama decides, which on all devices we know means on. On the CPU it is 1.1 to 1.2 times as
 * fast, and drafted rows are computed as single ones are, which plain attention does not do (DESIGN.md).
 */
export function flashAttentionType({ flashAttention: wanted }: LoadSpec): number {
  if (wanted === null) return LlamaFlashAttnType.LLAMA_FLASH_ATTN_TYPE_AUTO;
  return wanted
    ? LlamaFlashAttnType.LLAMA_FLASH_ATTN_TYPE_ENABLED
    : LlamaFlashAttnType.LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

function isQuantized(type: KvCacheType): boolean {
  return !['f32', 'f16', 'bf16'].includes(type);
}

/** Adapters belong to the model and are freed with it. */
function applyLora(api: LlamaApi, model: bigint, context: bigint, spec: LoadSpec): void {
  if (spec.lora.length === 0) return;
  const adapters = spec.lora.map(({ file }) => {
    const adapter = api.llama_adapter_lora_init(model, file) as bigint | null;
    if (adapter !== null) return adapter;
    throw new AppError(
      'invalid_model_file',
      `model "${spec.modelId}": the LoRA adapter ${basename(file)} cannot be loaded or is for another model`,
      { detail: { path: file } },
    );
  });
  const list = allocatePointers(adapters);
  const scales = allocateNative(spec.lora.length * 4);
  new Float32Array(scales.buffer).set(spec.lora.map(({ scale }) => scale));
  const result = api.llama_set_adapters_lora(context, list.address, adapters.length, scales.address);
  list.close();
  scales.close();
  if (result !== 0) {
    throw new AppError('load_failed', `model "${spec.modelId}": its LoRA adapters could not be applied`);
  }
}
