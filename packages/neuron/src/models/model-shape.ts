/**
 * What a GGUF header says of a model's memory: sizes of tensors, and per layer what one token, or one
 * sequence, leaves in the cache. Pure.
 *
 * Rules and key names follow llama.cpp: src/llama-hparams.cpp (n_embd_k_gqa, n_embd_r, n_embd_s),
 * src/llama-kv-cache.cpp, src/llama-model.cpp (create_memory) and load_arch_hparams of src/models/*.cpp.
 * Where a header leaves something open, the larger figure is taken.
 */
import { toFilePooling } from './file-pooling.ts';
import type { GgufHeader } from './gguf-header.ts';

export interface LayerShape {
  /** Elements of keys and values that one token leaves here; 0 = no attention. */
  readonly keyLength: number;
  readonly valueLength: number;
  /** Whether attention reaches back `slidingWindow` tokens only. */
  readonly isWindowed: boolean;
  /** f32 elements of recurrent state that one sequence has here. */
  readonly stateLength: number;
}

export interface ModelShape {
  readonly architecture: string;
  /** 0 = unknown. */
  readonly trainContext: number;
  readonly layers: readonly LayerShape[];
  /** The last so many of `layers` are for prediction and computed apart from the others. */
  readonly predictionLayers: number;
  /** 0 = none. */
  readonly slidingWindow: number;
  readonly embedding: number;
  readonly heads: number;
  /** Elements of all query heads of one token. */
  readonly queryLength: number;
  /** Multi-head latent attention: no values are kept, they are made from the keys. */
  readonly isLatent: boolean;
  /** Elements of one token between the matrices of a feed-forward block, all that exist at once. */
  readonly feedForward: number;
  /** The same for a recurrent mixer. */
  readonly mixer: number;
  readonly vocabulary: number;
  /** An input is read in one pass as a whole, for its vector alone. */
  readonly readsWhole: boolean;
}

/** Recurrent in every layer, attention in none. */
const recurrentArchitectures = new Set(['mamba', 'mamba2', 'rwkv6', 'rwkv6qwen2', 'rwkv7', 'arwkv7']);
/** Both in every layer. */
const doubleArchitectures = new Set(['falcon-h1']);
/** Attention in every n-th layer where the header does not say which. */
const intervalArchitectures = new Set(['qwen3next', 'qwen35', 'qwen35moe', 'minimax-01']);
const intervalDefault = 4;
/** Recurrent where a layer has no key heads. */
const hybridArchitectures = new Set([
  'jamba',
  'plamo2',
  'granitehybrid',
  'lfm2',
  'lfm2moe',
  'nemotron_h',
  'nemotron_h_moe',
  'kimi-linear',
  'bailingmoe3',
]);

/** No cache at all (llama-model.cpp, create_memory). */
const uncachedArchitectures = new Set([
  'bert',
  'modern-bert',
  'nomic-bert',
  'nomic-bert-moe',
  'neo-bert',
  'jina-bert-v2',
  'jina-bert-v3',
  'eurobert',
  'gemma-embedding',
  'wavtokenizer-dec',
  'dream',
  'llada',
  'llada-moe',
  'rnd1',
]);
/** One layer in so many has full attention, where the header does not say. Others count as full. */
const windowPeriods: Readonly<Record<string, number>> = {
  gemma2: 2,
  gemma3: 6,
  gemma3n: 5,
  'gpt-oss': 2,
  cohere2: 4,
  olmo2: 4,
  exaone4: 4,
};

/** `predictionLayers`: see prediction-layers.ts. */
export function toModelShape(header: GgufHeader, predictionLayers = 0): ModelShape {
  const keys = new Keys(header);
  const embedding = keys.number('embedding_length') ?? 0;
  const heads = Math.max(...keys.perLayer('attention.head_count', 0), 0);
  const headLength = heads === 0 ? 0 : embedding / heads;
  const keyLength = keys.number('attention.key_length') ?? headLength;
  const isLatent = keys.number('attention.key_length_mla') !== null;
  const slidingWindow = keys.number('attention.sliding_window') ?? 0;
  const state = stateLength(keys, embedding, heads);
  return {
    architecture: keys.architecture,
    trainContext: keys.number('context_length') ?? 0,
    layers: toLayers(keys, { keyLength, headLength, isLatent, slidingWindow, state, predictionLayers }),
    predictionLayers,
    slidingWindow,
    embedding,
    heads,
    queryLength: heads * keyLength,
    isLatent,
    feedForward: feedForward(keys, embedding),
    mixer: state === 0 ? 0 : mixerLength(keys, embedding),
    vocabulary: header.arrayLengths.get('tokenizer.ggml.tokens') ?? keys.number('vocab_size') ?? 0,
    readsWhole: toFilePooling(header).readsWhole,
  };
}

/** Numbers of this architecture; a header that gives a list instead of a number is read per layer. */
class Keys {
  readonly architecture: string;
  readonly layerCount: number;
  readonly #header: GgufHeader;

  constructor(header: GgufHeader) {
    this.#header = header;
    this.architecture = String(header.metadata.get('general.architecture') ?? '');
    // Bounded: a header may claim anything, and a list is made of it.
    this.layerCount = Math.min(4096, Math.max(0, Math.floor(this.number('block_count') ?? 0)));
  }

  number(key: string): number | null {
    const value = this.#header.metadata.get(`${this.architecture}.${key}`);
    return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : null;
  }

  list(key: string): readonly number[] | null {
    return this.#header.numberArrays.get(`${this.architecture}.${key}`) ?? null;
  }

  perLayer(key: string, missing: number): readonly number[] {
    const list = this.list(key);
    const all = this.number(key) ?? missing;
    return Array.from({ length: this.layerCount }, (_, at) => (list === null ? all : (list[at] ?? 0)));
  }
}

interface LayerRules {
  readonly keyLength: number;
  readonly headLength: number;
  readonly isLatent: boolean;
  readonly slidingWindow: number;
  readonly state: number;
  readonly predictionLayers: number;
}

function toLayers(keys: Keys, rules: LayerRules): readonly LayerShape[] {
  const heads = keys.perLayer('attention.head_count', 0);
  const kvHeads = keys
    .perLayer('attention.head_count_kv', -1)
    .map((each, at) => (each < 0 ? heads[at] : each));
  const valueLength = keys.number('attention.value_length') ?? rules.headLength;
  const windowKey = keys.number('attention.key_length_swa') ?? rules.keyLength;
  const windowValue = keys.number('attention.value_length_swa') ?? valueLength;
  const cachedLayers = keys.layerCount - sharedLayers(keys);
  const windowed = windowedLayers(keys, rules.slidingWindow);
  const recurrent = recurrentLayers(keys, kvHeads, rules);
  const feedForwards = keys.list('feed_forward_length');
  return kvHeads.map((count, at): LayerShape => {
    const isWindowed = windowed[at] ?? false;
    const hasAttention =
      recurrent[at] !== 'only' && at < cachedLayers && !recurrentArchitectures.has(keys.architecture);
    // Nemotron-H: a layer is one of attention, Mamba and feed-forward.
    const isForward = /^nemotron_h/.test(keys.architecture) && (feedForwards?.[at] ?? 0) > 0;
    const isCached = hasAttention && !isForward && !uncachedArchitectures.has(keys.architecture);
    const kv = isCached ? (count ?? 0) : 0;
    return {
      keyLength: kv * (isWindowed ? windowKey : rules.keyLength),
      valueLength: rules.isLatent ? 0 : kv * (isWindowed ? windowValue : valueLength),
      isWindowed,
      stateLength: recurrent[at] === 'none' || isForward ? 0 : rules.state,
    };
  });
}

/**
 * The last layers use the cache of earlier ones. Of Gemma 3n the first 20 have one
 * (src/models/gemma3n.cpp).
 */
function sharedLayers(keys: Keys): number {
  const shared = keys.architecture === 'gemma3n' ? keys.layerCount - 20 : null;
  return Math.max(0, shared ?? keys.number('attention.shared_kv_layers') ?? 0);
}

function recurrentLayers(
  keys: Keys,
  kvHeads: readonly (number | undefined)[],
  { state, predictionLayers }: LayerRules,
): readonly ('none' | 'only' | 'both')[] {
  const { architecture } = keys;
  const marked = keys.list('attention.recurrent_layers');
  const interval = keys.number('full_attention_interval') ?? intervalDefault;
  return kvHeads.map((count, at) => {
    // Those for prediction have attention, whatever the others have.
    if (state === 0 || at >= keys.layerCount - predictionLayers) return 'none';
    if (recurrentArchitectures.has(architecture)) return 'only';
    if (doubleArchitectures.has(architecture)) return 'both';
    if (marked !== null) return marked[at] ? 'only' : 'none';
    if (intervalArchitectures.has(architecture)) return (at + 1) % interval === 0 ? 'none' : 'only';
    if (hybridArchitectures.has(architecture)) return count === 0 ? 'only' : 'none';
    // Not known here: both, which is too much rather than too little.
    return 'both';
  });
}

function windowedLayers(keys: Keys, window: number): readonly boolean[] {
  if (window === 0) return [];
  const pattern = keys.list('attention.sliding_window_pattern');
  if (pattern !== null) return pattern.map((each) => each !== 0);
  const period = keys.number('attention.sliding_window_pattern') ?? windowPeriods[keys.architecture] ?? 1;
  // libllama reads period 0 as "all"; what is not known counts as full attention.
  return Array.from({ length: keys.layerCount }, (_, at) =>
    period === 0 ? true : period > 1 && at % period < period - 1,
  );
}

/** Elements of recurrent state of one sequence in one layer: convolution and state together. */
function stateLength(keys: Keys, embedding: number, heads: number): number {
  const wkv = keys.number('wkv.head_size') ?? 0;
  if (wkv > 0) return embedding * wkv + (keys.number('token_shift_count') ?? 2) * embedding;
  const shortConv = keys.number('shortconv.l_cache') ?? 0;
  if (shortConv > 0) return embedding * (shortConv - 1);
  const kernel = keys.number('ssm.conv_kernel') ?? 0;
  const kda = keys.number('kda.head_dim') ?? 0;
  if (kda > 0) return 3 * (kernel > 0 ? kernel - 1 : 3) * heads * kda + kda * kda * heads;
  const inner = keys.number('ssm.inner_size') ?? 0;
  const size = keys.number('ssm.state_size') ?? 0;
  const groups = keys.number('ssm.group_count') ?? 0;
  return Math.max(0, kernel - 1) * (inner + 2 * groups * size) + inner * size;
}

/** Three tensors of the feed-forward length are alive at once; with experts, those of the chosen ones. */
function feedForward(keys: Keys, embedding: number): number {
  const experts = keys.number('expert_used_count') ?? 0;
  const plain = Math.max(0, ...keys.perLayer('feed_forward_length', embedding * 4));
  const dense = 3 * plain + 4 * embedding;
  if (experts === 0) return dense;
  const each = Math.max(0, ...keys.perLayer('expert_feed_forward_length', Math.ceil(plain / experts)));
  const routed = experts * (3 * each + embedding) + 5 * embedding;
  const hasDense = (keys.number('leading_dense_block_count') ?? 0) > 0;
  return hasDense ? Math.max(dense, routed) : routed;
}

/** Input projection, convolution and its output. */
function mixerLength(keys: Keys, embedding: number): number {
  const inner = keys.number('ssm.inner_size') ?? 0;
  const channels = inner + 2 * (keys.number('ssm.group_count') ?? 0) * (keys.number('ssm.state_size') ?? 0);
  if (inner === 0) return 8 * embedding;
  return 3 * inner + 3 * channels + (keys.number('ssm.time_step_rank') ?? 0) + 2 * embedding;
}
