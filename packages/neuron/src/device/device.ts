/**
 * What the rest of the neuron sees of a device: jobs in, handles and numbers out. Whether the owner behind it
 * is a worker thread or a process is known to its transport alone.
 */
import type {
  ArchHandle,
  BackendDevice,
  DeviceMemory,
  EmbedResult,
  ExportedArch,
  GenerateParams,
  GenerateResult,
  KvSnapshot,
  LoadedArch,
  LoadSpec,
  RankResult,
  StepEvent,
  TokenizeOptions,
} from 'cortex-core/wire/inference';

export type DeviceState = 'starting' | 'ready' | 'respawning' | 'poisoned' | 'closed';

export interface LoadProgressEvent {
  /** 0..1 of the weights read. */
  readonly fraction: number;
}

/**
 * Every method rejects with an AppError: Poisoned, Gone, JobFailed (device-errors.ts) or the job's own code.
 */
export interface Device {
  /** Stable name: `cpu`, `cuda:0`, `cuda:0+1`. */
  readonly id: string;
  readonly state: DeviceState;
  queryVram(signal?: AbortSignal): Promise<DeviceMemory>;
  listBackendDevices(signal?: AbortSignal): Promise<readonly BackendDevice[]>;
  load(
    spec: LoadSpec,
    onProgress: (event: LoadProgressEvent) => void,
    signal?: AbortSignal,
  ): Promise<LoadedArch>;
  /** The load as it was made, and the warm prefixes: what `transferIn` of another device, or owner, takes. */
  exportArch(handle: ArchHandle, signal?: AbortSignal): Promise<ExportedArch>;
  /** A load that begins with those prefixes. The exported model stays where it is. */
  transferIn(
    exported: ExportedArch,
    onProgress: (event: LoadProgressEvent) => void,
    signal?: AbortSignal,
  ): Promise<LoadedArch>;
  /** Always succeeds, also for an unknown handle or a poisoned or gone owner. */
  dropArch(handle: ArchHandle): Promise<void>;
  clearKv(handle: ArchHandle, signal?: AbortSignal): Promise<void>;
  /** The last position's logits, length = vocabulary. `offset` = position of the first given token. */
  forwardLogits(
    handle: ArchHandle,
    tokens: Int32Array,
    offset: number,
    signal?: AbortSignal,
  ): Promise<Float32Array>;
  /** Keeps a copy of the sequence that `forwardLogits` works on, inside the owner. */
  snapshotKv(handle: ArchHandle, signal?: AbortSignal): Promise<KvSnapshot>;
  /** That sequence is then as it was at `snapshotKv`; `invalid_request` for an unknown id. */
  restoreKv(handle: ArchHandle, id: number, signal?: AbortSignal): Promise<KvSnapshot>;
  dropKvSnapshot(handle: ArchHandle, id: number, signal?: AbortSignal): Promise<KvSnapshot>;
  tokenize(
    handle: ArchHandle,
    text: string,
    options: TokenizeOptions,
    signal?: AbortSignal,
  ): Promise<Int32Array>;
  detokenize(handle: ArchHandle, tokens: Int32Array, signal?: AbortSignal): Promise<string>;
  /**
   * Streams to `onStep`, synchronously and in order, and resolves at the end. Aborting `signal` frees the
   * sequence within one step and resolves with finish reason `cancelled`.
   */
  generate(
    handle: ArchHandle,
    params: GenerateParams,
    onStep: (event: StepEvent) => void,
    signal?: AbortSignal,
  ): Promise<GenerateResult>;
  /** One vector per input. `wrong_modality` for a reranker. */
  embed(handle: ArchHandle, inputs: readonly Int32Array[], signal?: AbortSignal): Promise<EmbedResult>;
  /** One score per input, a pair that the caller joined. `wrong_modality` for what is no reranker. */
  rank(handle: ArchHandle, inputs: readonly Int32Array[], signal?: AbortSignal): Promise<RankResult>;
  /** Called once per owner death, with the handles that died with it. */
  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void;
  /** Ends the owner and waits for a fresh one. All handles are lost, and listeners hear of a death. */
  restartOwner(): Promise<void>;
  /** Drains, then ends the owner; later calls reject with `device_gone`. Idempotent. */
  shutdown(): Promise<void>;
}

export interface OwnerDeath {
  readonly deviceId: string;
  /** e.g. `exit code 134`, `signal SIGKILL`. */
  readonly cause: string;
  /** Handles that no longer exist. */
  readonly lostHandles: readonly ArchHandle[];
  /**
   * Handles with a job in flight at the time: the suspects; the one that the owner was at, where that is
   * known. None of a restart that was asked for.
   */
  readonly busyHandles: readonly ArchHandle[];
  /** Model whose load was under way, a suspect too; null = none. */
  readonly loading: string | null;
  /** Last lines of the owner's stderr. */
  readonly stderrTail: readonly string[];
}
