/**
 * The vocabulary of inference, spoken by neuron/device, the owners and the engine. Everything here survives
 * a structured clone: handles, numbers, strings and typed arrays; never a pointer or a function.
 */

/** Opaque name of a loaded model inside one owner. Starts at 1, never reused. */
export type ArchHandle = number;

export const kvCacheTypes = ['f32', 'f16', 'bf16', 'q8_0', 'q5_1', 'q5_0', 'q4_1', 'q4_0', 'iq4_nl'] as const;
export type KvCacheType = (typeof kvCacheTypes)[number];

/**
 * Drafted tokens in one step: each is a row of logits more that the graph has room for. With the token that
 * they follow they are 64 rows, which flash attention on the CPU takes as one tile: half the time a row.
 */
export const draftRowsMax = 63;
/**
 * Drafts of a step where a state is recurrent and the model's own layers draft: a state more is kept of each
 * sequence for every one of them, and libllama wants graphs of more than as many tokens and one.
 */
export const recurrentTakeBackMax = 3;
/**
 * Whole inputs in one decode call. The batch is a multiple of it: libllama rounds the graph that it reserves
 * up to one, but not its outputs, and then aborts in the mean (graph_reserve, build_pooling).
 */
export const wholeInputsAtOnce = 8;

export type SplitMode = 'none' | 'layer' | 'row' | 'tensor';

export interface LoadSpec {
  /** For logs and messages only. */
  readonly modelId: string;
  /** Absolute path of the GGUF, or of the first shard; further shards of a split file follow it by name. */
  readonly file: string;
  /** Tokens that one sequence may hold, prompt and answer together; null = the model's training context. */
  readonly context: number | null;
  /** Sequences that run at once. */
  readonly slots: number;
  /** Indices into the owner's own device list; empty = all of them. */
  readonly devices: readonly number[];
  readonly splitMode: SplitMode;
  /** Layers put on a GPU; null = all. */
  readonly gpuLayers: number | null;
  readonly cacheTypeK: KvCacheType;
  readonly cacheTypeV: KvCacheType;
  /** Logical batch, tokens per decode call at most. */
  readonly batch: number;
  /** Physical batch, tokens per compute graph at most. */
  readonly ubatch: number;
  /** Compute threads; null = physical cores, or one for a model too small to share. */
  readonly threads: number | null;
  readonly flashAttention: boolean | null;
  readonly lora: readonly { readonly file: string; readonly scale: number }[];
  /**
   * Reserve room for embeddings of whole inputs where the file does not ask for it; a model that pools its
   * inputs gets that in any case.
   */
  readonly embeddings: boolean;
  /** Host memory for the KV of ended sequences, MiB; 0 = reuse only what the slots still hold. */
  readonly prefixCacheMb: number;
  /**
   * `ngram`: drafts looked up in the sequence's own tokens, verified in the same batch. `mtp`: where none are
   * found, those of the model's own layers for multi-token prediction, all of which the file must have.
   */
  readonly speculation: 'off' | 'ngram' | 'mtp';
  /** A smaller model of the same vocabulary that drafts where no n-gram is found; null = none. */
  readonly draftFile: string | null;
  /**
   * Parts of the model per device of a group, in the order of the owner's list; absent = libllama's choice.
   */
  readonly tensorSplit?: readonly number[] | undefined;
}

export interface ModelFacts {
  readonly architecture: string;
  readonly description: string;
  readonly parameterCount: number;
  readonly fileBytes: number;
  readonly vocabSize: number;
  readonly trainContext: number;
  /** Tokens one sequence may hold in this load. */
  readonly context: number;
  readonly slots: number;
  /** Compute threads of a step. */
  readonly threads?: number | undefined;
  readonly embeddingLength: number;
  readonly layerCount: number;
  readonly hasEncoder: boolean;
  readonly hasDecoder: boolean;
  /** Recurrent or hybrid: KV state cannot be partially removed. */
  readonly recurrent: boolean;
  /** How the file pools an input's vectors into one: `none` is a plain decoder, `rank` a reranker. */
  readonly pooling: 'none' | 'mean' | 'cls' | 'last' | 'rank';
  /** The Jinja text from the GGUF, null when it has none. */
  readonly chatTemplate: string | null;
  /** Named templates, e.g. `tool_use`. */
  readonly namedTemplates: Readonly<Record<string, string>>;
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  /** Stands between the two texts of a reranker's pair. */
  readonly sepToken: string | null;
  readonly addBos: boolean;
  readonly addEos: boolean;
  /** Every token id that ends a generation. */
  readonly eogTokens: readonly number[];
  /**
   * Bytes of the longest text of one token: no text has fewer tokens than its bytes divided by this. Null or
   * absent where a tokenizer drops or rewrites text, so that the bytes say nothing.
   */
  readonly longestPieceBytes?: number | null | undefined;
  /** All scalar GGUF metadata as strings. */
  readonly metadata: Readonly<Record<string, string>>;
  /** MiB that the load took, measured where the device can tell, else computed from the buffers' sizes. */
  readonly memoryMb: number;
  /** Who drafts: `speculation` of the load, another model, or less where what was asked for is not there. */
  readonly drafts?: 'off' | 'ngram' | 'mtp' | 'draft_model' | undefined;
  /** Why the model's own layers do not draft though they were to. */
  readonly draftsWhy?: string | undefined;
  /**
   * Present where memoryMb is not a device's own figure. MiB: all weights; growth as the context was made.
   */
  readonly memoryParts?: { readonly weightsMb: number; readonly contextMb: number } | undefined;
  readonly loadMs: number;
}

export interface LoadedArch {
  readonly handle: ArchHandle;
  readonly facts: ModelFacts;
}

/** What a file says without its weights: enough to make a prompt and to count its tokens. */
export type VocabularyFacts = Pick<
  ModelFacts,
  | 'architecture'
  | 'vocabSize'
  | 'chatTemplate'
  | 'namedTemplates'
  | 'bosToken'
  | 'eosToken'
  | 'sepToken'
  | 'addBos'
  | 'addEos'
  | 'longestPieceBytes'
  | 'metadata'
>;

/** A vocabulary alone. `Tokenize` and `DropArch` take its handle; what needs weights does not. */
export interface OpenedVocabulary {
  readonly handle: ArchHandle;
  readonly facts: VocabularyFacts;
}

export interface TokenizeOptions {
  /** Add the beginning- and end-of-sequence tokens that the model asks for. */
  readonly addSpecial: boolean;
  /** Read `<|im_start|>` and the like as control tokens rather than as text. */
  readonly parseSpecial: boolean;
}

/** Fractions follow the field's usual names; null or absent = off, or the model's own default. */
export interface SamplingParams {
  /** 0 = greedy. */
  readonly temperature: number;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
  readonly typicalP?: number | undefined;
  readonly topNSigma?: number | undefined;
  readonly xtcProbability?: number | undefined;
  readonly xtcThreshold?: number | undefined;
  readonly repeatPenalty?: number | undefined;
  readonly repeatLastN?: number | undefined;
  readonly frequencyPenalty?: number | undefined;
  readonly presencePenalty?: number | undefined;
  readonly dryMultiplier?: number | undefined;
  readonly dryBase?: number | undefined;
  readonly dryAllowedLength?: number | undefined;
  readonly dryPenaltyLastN?: number | undefined;
  readonly drySequenceBreakers?: readonly string[] | undefined;
  readonly logitBias?: readonly { readonly token: number; readonly bias: number }[] | undefined;
  readonly seed?: number | undefined;
}

export interface GenerateParams {
  readonly tokens: Int32Array;
  /**
   * The beginning of the answer, generated before, perhaps by another engine: it is read like a prompt and
   * counts as answer everywhere else (`maxTokens`, stops, grammar, penalties, usage). The sink hears of each
   * of these tokens in an event marked `replayed`. What follows is what would have followed there.
   */
  readonly answered?: Int32Array | undefined;
  readonly sampling: SamplingParams;
  /** Tokens to generate at most; null = until the context is full. */
  readonly maxTokens: number | null;
  /** Texts that end the answer; they are not part of it. */
  readonly stops: readonly string[];
  /** What the answer must be; null = anything. */
  readonly grammar: GrammarSpec | null;
  /** The reasoning block of a thinking model; null or absent = none is expected. */
  readonly reasoning?: ReasoningSpec | null | undefined;
  /** Alternatives to report per token, 0..20; null = no logprobs. */
  readonly topLogprobs: number | null;
  /** Generate past end-of-generation tokens (benchmarks). */
  readonly ignoreEos: boolean;
}

/**
 * A grammar that the answer must match as a whole, enforced token by token. With `reasoning` in the same
 * request it begins after the reasoning block; a few blanks may stand between.
 */
export interface GrammarSpec {
  /** llama.cpp's GBNF. */
  readonly gbnf: string;
  /** The rule to start from; `root` when absent. */
  readonly root?: string | undefined;
  /**
   * Nothing is enforced until one of these texts appears in the answer; from the trigger's first byte on the
   * rest of the answer must match, so the grammar begins with the triggers themselves.
   */
  readonly lazy?: { readonly triggers: readonly string[] } | undefined;
}

/** Where a thinking model's block begins and ends. Found in the text, whatever tokens spell it. */
export interface ReasoningSpec {
  /** The prompt has opened the block already; otherwise the answer may open it, once, at its beginning. */
  readonly isOpen: boolean;
  /** e.g. `<think>`; only looked for when `isOpen` is false. */
  readonly start: string;
  /** e.g. `</think>`. */
  readonly end: string;
  /** Tokens inside the block at most, then its end is forced token by token; null = no limit. */
  readonly budget: number | null;
  /** Texts that end the block too, where a call inside it does; they are the answer's first. */
  readonly endsAt?: readonly string[] | undefined;
}

export interface TokenLogprob {
  readonly token: number;
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
  readonly top: readonly { token: number; text: string; bytes: readonly number[]; logprob: number }[];
}

/** One step's yield for one sequence. `text` is whole characters only; bytes of a split one are held back. */
export interface StepEvent {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logprobs?: readonly TokenLogprob[] | undefined;
  /** Present when the tokens were given as `answered`: each one's own text, as a `TokenLogprob` has it. */
  readonly replayed?: readonly string[] | undefined;
  /** With the first step: prompt tokens whose KV was already there. */
  readonly cachedTokens?: number | undefined;
}

export type FinishReason = 'stop' | 'length' | 'context_full' | 'cancelled';

export interface GenerateResult {
  readonly finishReason: FinishReason;
  /** The stop text that matched, null for an end-of-generation token. */
  readonly stopText: string | null;
  readonly usage: InferenceUsage;
  readonly timings: InferenceTimings;
  /** Drafted and accepted tokens; absent when nothing was drafted. */
  readonly speculation?: { readonly drafted: number; readonly accepted: number } | undefined;
}

export interface InferenceUsage {
  readonly promptTokens: number;
  /** Prompt tokens whose KV was already there. */
  readonly cachedTokens: number;
  /** Includes the end-of-generation token's predecessors only: what the client could see. */
  readonly completionTokens: number;
}

export interface InferenceTimings {
  readonly queueMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
}

/** Counts over one row of logits; finite_* are null when no value is finite. */
export interface LogitsHealth {
  readonly len: number;
  readonly nan: number;
  readonly pos_inf: number;
  readonly neg_inf: number;
  /** Finite values below zero. */
  readonly neg: number;
  readonly finite_min: number | null;
  readonly finite_max: number | null;
  readonly finite_mean: number | null;
}

export interface DeviceMemory {
  readonly freeMb: number;
  readonly totalMb: number;
}

/** A device as libllama's own list shows it. */
export interface BackendDevice {
  readonly index: number;
  /** e.g. `CUDA0`, `CPU`. */
  readonly name: string;
  readonly description: string;
  readonly kind: 'cpu' | 'gpu' | 'igpu' | 'accel';
  readonly memory: DeviceMemory;
}

/** The KV state after `tokens`, in libllama's own sequence format: fits the same file and cache types. */
export interface KvPrefix {
  readonly tokens: Int32Array;
  readonly state: Uint8Array;
}

/** What one owner gives for another to go on with: the load as it was made, and its warm prefixes. */
export interface ExportedArch {
  readonly spec: LoadSpec;
  readonly prefixes: readonly KvPrefix[];
}

/** A copy of the reserved sequence (the one of ForwardLogits), kept inside the owner. */
export interface KvSnapshot {
  /** Starts at 1, never reused within its model. */
  readonly id: number;
  /** Size of the copy. */
  readonly bytes: number;
  /** Positions it holds. */
  readonly length: number;
}

export interface EmbedResult {
  /** One vector per input, length = embedding width; as the model pools them. */
  readonly vectors: readonly Float32Array[];
  readonly promptTokens: number;
}

export interface RankResult {
  /** One score per input, larger is more relevant; as the model computes them, no sigmoid applied. */
  readonly scores: Float32Array;
  readonly promptTokens: number;
}
