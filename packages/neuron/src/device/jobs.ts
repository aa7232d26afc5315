/**
 * What crosses the boundary between a device and its owner, in both directions, over either transport.
 *
 * Problem: the owner runs in a worker thread or in another process, so nothing but plain data can cross, and
 * several streams at a time produce an event each per engine step.
 * Design: every message survives a structured clone (a worker's port) and Node's `advanced` child-process
 * serialization, which keeps typed arrays typed; so a message is its own encoding, and the codec consists of
 * `compactArray` (a view is cut loose from a larger buffer, which would be cloned whole) and the guards that
 * drop what is not ours. The deltas of all sequences of one step travel in ONE `Steps` message.
 * Limits: both ends are of one build; there is no version in the protocol.
 */
import type { SerializedError } from 'cortex-core/wire/errors';
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

/** Names a submitted job; unique over a device's life, also across owners. */
export type JobId = number;

export interface QueryVramJob {
  readonly kind: 'QueryVram';
}
export interface ListDevicesJob {
  readonly kind: 'ListDevices';
}
export interface LoadJob {
  readonly kind: 'Load';
  readonly spec: LoadSpec;
}
export interface DropArchJob {
  readonly kind: 'DropArch';
  readonly handle: ArchHandle;
}
export interface ClearKvJob {
  readonly kind: 'ClearKv';
  readonly handle: ArchHandle;
}
export interface ForwardLogitsJob {
  readonly kind: 'ForwardLogits';
  readonly handle: ArchHandle;
  readonly tokens: Int32Array;
  readonly offset: number;
}
export interface TokenizeJob {
  readonly kind: 'Tokenize';
  readonly handle: ArchHandle;
  readonly text: string;
  readonly options: TokenizeOptions;
}
export interface DetokenizeJob {
  readonly kind: 'Detokenize';
  readonly handle: ArchHandle;
  readonly tokens: Int32Array;
}
export interface GenerateJob {
  readonly kind: 'Generate';
  readonly handle: ArchHandle;
  readonly params: GenerateParams;
}

/** Jobs that have a reply. */
export type Job =
  | QueryVramJob
  | ListDevicesJob
  | LoadJob
  | DropArchJob
  | ClearKvJob
  | ForwardLogitsJob
  | TokenizeJob
  | DetokenizeJob
  | GenerateJob;

export type JobKind = Job['kind'];

/** What each job's reply carries. */
export interface JobResults {
  readonly QueryVram: DeviceMemory;
  readonly ListDevices: readonly BackendDevice[];
  readonly Load: LoadedArch;
  readonly DropArch: null;
  readonly ClearKv: null;
  readonly ForwardLogits: Float32Array;
  readonly Tokenize: Int32Array;
  readonly Detokenize: string;
  readonly Generate: GenerateResult;
}
export type JobResult = JobResults[JobKind];

/** How the owner opens libllama. */
export interface OwnerOptions {
  /** Directory of libllama; null = the installed platform package. */
  readonly libraryDir: string | null;
  /** Whether the native log goes to the owner's stderr. */
  readonly nativeLog: boolean;
  /** False keeps GPU backends unopened, so that a CPU owner never creates a GPU context. */
  readonly gpu: boolean;
}

/** Device -> owner. `Start` comes first, `Shutdown` last. */
export type ToOwner =
  | { readonly kind: 'Start'; readonly firstHandle: ArchHandle; readonly options: OwnerOptions }
  | { readonly kind: 'Submit'; readonly id: JobId; readonly job: Job }
  | { readonly kind: 'Cancel'; readonly id: JobId }
  | { readonly kind: 'Shutdown' };

/** Owner -> device. */
export type FromOwner =
  | { readonly kind: 'Ready' }
  | { readonly kind: 'StartFailed'; readonly error: SerializedError }
  | { readonly kind: 'Progress'; readonly id: JobId; readonly fraction: number }
  | { readonly kind: 'Steps'; readonly steps: readonly StepOfJob[]; readonly settled: readonly Settled[] };

/** The yield of one sequence in one engine step. */
export interface StepOfJob {
  readonly id: JobId;
  readonly event: StepEvent;
}

/** A job's end. */
export type Settled =
  | { readonly id: JobId; readonly ok: true; readonly result: JobResult }
  | { readonly id: JobId; readonly ok: false; readonly error: SerializedError };

/** The handle a job works on; null for those that work on the device. */
export function handleOf(job: Job): ArchHandle | null {
  return 'handle' in job ? job.handle : null;
}

const toOwnerKinds: ReadonlySet<unknown> = new Set<ToOwner['kind']>([
  'Start',
  'Submit',
  'Cancel',
  'Shutdown',
]);
const fromOwnerKinds: ReadonlySet<unknown> = new Set<FromOwner['kind']>([
  'Ready',
  'StartFailed',
  'Progress',
  'Steps',
]);

/** Other parties (test runners, coverage, cluster) send messages on the same channels. */
export function isToOwner(message: unknown): message is ToOwner {
  return typeof message === 'object' && message !== null && toOwnerKinds.has(Reflect.get(message, 'kind'));
}

export function isFromOwner(message: unknown): message is FromOwner {
  return typeof message === 'object' && message !== null && fromOwnerKinds.has(Reflect.get(message, 'kind'));
}

/**
 * The same numbers in a buffer of their own: a clone copies a view's whole buffer, native memory included.
 */
export function compactArray<T extends Int32Array | Float32Array>(array: T): T {
  return array.byteLength === array.buffer.byteLength ? array : (array.slice() as T);
}
