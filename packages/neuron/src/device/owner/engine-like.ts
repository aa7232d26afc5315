/** What the owner needs of an engine: the real one is loaded by the entry files alone, tests bring a fake. */
import type {
  BackendDevice,
  DeviceMemory,
  EmbedResult,
  GenerateParams,
  GenerateResult,
  KvPrefix,
  KvSnapshot,
  LoadSpec,
  ModelFacts,
  RankResult,
  StepEvent,
  TokenizeOptions,
  VocabularyFacts,
} from 'cortex-core/wire/inference';

export interface EngineLike {
  devices(): readonly BackendDevice[];
  memory(): DeviceMemory;
  /** Blocks. `onProgress` returns false to give the load up, which makes `load` throw. */
  load(spec: LoadSpec, onProgress: (fraction: number) => boolean): LoadedModelLike;
  /** The vocabulary of a file, without weights. */
  openVocabulary(modelId: string, file: string): VocabularyLike;
  close(): void;
}

export interface VocabularyLike {
  readonly facts: VocabularyFacts;
  tokenize(text: string, options: TokenizeOptions): Int32Array;
  close(): void;
}

export interface GenerateCallbacks {
  readonly onStep: (event: StepEvent) => void;
  readonly onDone: (result: GenerateResult) => void;
  readonly onError: (error: unknown) => void;
}

/** Work in pieces: `step` until it returns the result; what it throws ends it. */
export interface SteppedTaskLike<T> {
  step(): T | null;
}

export interface LoadedModelLike {
  readonly facts: ModelFacts;
  tokenize(text: string, options: TokenizeOptions): Int32Array;
  detokenize(tokens: Int32Array): string;
  clearKv(): void;
  forwardLogits(tokens: Int32Array, offset: number): Float32Array;
  /** Errors of the inputs are thrown at once. */
  embed(inputs: readonly Int32Array[]): SteppedTaskLike<EmbedResult>;
  rank(inputs: readonly Int32Array[]): SteppedTaskLike<RankResult>;
  snapshotKv(): KvSnapshot;
  restoreKv(id: number): KvSnapshot;
  dropKvSnapshot(id: number): KvSnapshot;
  /** What another load of the same file can start from, the most useful first. */
  exportPrefixes(): readonly KvPrefix[];
  /** Prefixes that do not fit this load are left out. */
  importPrefixes(prefixes: readonly KvPrefix[]): void;
  /** Calls back from within `step()`, or from within `submit` and `cancel` themselves. */
  submit(params: GenerateParams, callbacks: GenerateCallbacks): { cancel(): void };
  hasWork(): boolean;
  /** One more token for every running sequence. */
  step(): void;
  close(): void;
}
