/** What the owner needs of an engine: the real one is loaded by the entry files alone, tests bring a fake. */
import type {
  BackendDevice,
  DeviceMemory,
  GenerateParams,
  GenerateResult,
  LoadSpec,
  ModelFacts,
  StepEvent,
  TokenizeOptions,
} from 'cortex-core/wire/inference';

export interface EngineLike {
  devices(): readonly BackendDevice[];
  memory(): DeviceMemory;
  /** Blocks. `onProgress` returns false to give the load up, which makes `load` throw. */
  load(spec: LoadSpec, onProgress: (fraction: number) => boolean): LoadedModelLike;
  close(): void;
}

export interface GenerateCallbacks {
  readonly onStep: (event: StepEvent) => void;
  readonly onDone: (result: GenerateResult) => void;
  readonly onError: (error: unknown) => void;
}

export interface LoadedModelLike {
  readonly facts: ModelFacts;
  tokenize(text: string, options: TokenizeOptions): Int32Array;
  detokenize(tokens: Int32Array): string;
  clearKv(): void;
  forwardLogits(tokens: Int32Array, offset: number): Float32Array;
  /** Calls back from within `step()`, or from within `submit` and `cancel` themselves. */
  submit(params: GenerateParams, callbacks: GenerateCallbacks): { cancel(): void };
  hasWork(): boolean;
  /** One decode call for every running sequence. */
  step(): void;
  close(): void;
}
