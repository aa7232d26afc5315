/**
 * What the rest of the neuron sees of a device: jobs in, handles and numbers out. Whether the owner behind it
 * is a worker thread or a process is known to its transport alone.
 */
import type {
  ArchHandle,
  BackendDevice,
  DeviceMemory,
  GenerateParams,
  GenerateResult,
  LoadedArch,
  LoadSpec,
  StepEvent,
  TokenizeOptions,
} from 'cortex-core/wire/inference';

export type DeviceState = 'starting' | 'ready' | 'respawning' | 'poisoned' | 'closed';

export interface LoadProgressEvent {
  /** 0..1 of the weights read. */
  readonly fraction: number;
}

/**
 * Every method rejects with an AppError: `device_poisoned`, `device_gone`, `job_failed` or the job's own
 * code.
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
  /** Called once per owner death, with the handles that died with it. */
  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void;
  /** Drains, then ends the owner; later calls reject with `device_gone`. Idempotent. */
  shutdown(): Promise<void>;
}

export interface OwnerDeath {
  readonly deviceId: string;
  /** e.g. `exit code 134`, `signal SIGKILL`. */
  readonly cause: string;
  /** Handles that no longer exist. */
  readonly lostHandles: readonly ArchHandle[];
  /** Handles with a job in flight at the time: the suspects. */
  readonly busyHandles: readonly ArchHandle[];
  /** Last lines of the owner's stderr. */
  readonly stderrTail: readonly string[];
}
