/**
 * What crosses the boundary between a device and its owner, in both directions, over either transport.
 *
 * Problem: the owner runs in a worker thread or in another process, so nothing but plain data can cross, and
 * several streams at a time produce an event each per engine step.
 * Design: every message survives a structured clone (a worker's port) and Node's `advanced` child-process
 * serialization, which keeps typed arrays typed; so a message is its own encoding, and the codec consists of
 * `compactArray` (a view is cut loose from a larger buffer, which would be cloned whole) and the guards that
 * drop what is not ours. What all sequences yield in a step, or in quick steps together, travels in ONE
 * `Steps` message, an event for each token.
 * Limits: both ends are of one build; there is no version in the protocol.
 */
import type { SerializedError } from 'cortex-core/wire/errors';
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
  OpenedVocabulary,
  RankResult,
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
/** A load that starts with what another owner had: its spec and its warm prefixes. */
export interface TransferInJob {
  readonly kind: 'TransferIn';
  readonly exported: ExportedArch;
}
/** The vocabulary and the template of a file, without weights or context. Not cancelled: it is short. */
export interface OpenVocabularyJob {
  readonly kind: 'OpenVocabulary';
  /** For messages only. */
  readonly modelId: string;
  readonly file: string;
}
export interface ExportJob {
  readonly kind: 'Export';
  readonly handle: ArchHandle;
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
export interface EmbedJob {
  readonly kind: 'Embed';
  readonly handle: ArchHandle;
  readonly inputs: readonly Int32Array[];
}
export interface RankJob {
  readonly kind: 'Rank';
  readonly handle: ArchHandle;
  readonly inputs: readonly Int32Array[];
}
export interface SnapshotKvJob {
  readonly kind: 'SnapshotKv';
  readonly handle: ArchHandle;
}
export interface RestoreKvJob {
  readonly kind: 'RestoreKv';
  readonly handle: ArchHandle;
  readonly id: number;
}
export interface DropKvSnapshotJob {
  readonly kind: 'DropKvSnapshot';
  readonly handle: ArchHandle;
  readonly id: number;
}

/** Jobs that have a reply. */
export type Job =
  | QueryVramJob
  | ListDevicesJob
  | LoadJob
  | TransferInJob
  | OpenVocabularyJob
  | ExportJob
  | DropArchJob
  | ClearKvJob
  | ForwardLogitsJob
  | TokenizeJob
  | DetokenizeJob
  | GenerateJob
  | EmbedJob
  | RankJob
  | SnapshotKvJob
  | RestoreKvJob
  | DropKvSnapshotJob;

export type JobKind = Job['kind'];

/** What each job's reply carries. */
export interface JobResults {
  readonly QueryVram: DeviceMemory;
  readonly ListDevices: readonly BackendDevice[];
  readonly Load: LoadedArch;
  readonly TransferIn: LoadedArch;
  readonly OpenVocabulary: OpenedVocabulary;
  readonly Export: ExportedArch;
  readonly DropArch: null;
  readonly ClearKv: null;
  readonly ForwardLogits: Float32Array;
  readonly Tokenize: Int32Array;
  readonly Detokenize: string;
  readonly Generate: GenerateResult;
  readonly Embed: EmbedResult;
  readonly Rank: RankResult;
  readonly SnapshotKv: KvSnapshot;
  readonly RestoreKv: KvSnapshot;
  readonly DropKvSnapshot: KvSnapshot;
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
  /** What shall go wrong (NEURON_FAULT); empty in normal life. */
  readonly faults: readonly Fault[];
}

/** One planted fault. */
export interface Fault {
  readonly kind: 'abort' | 'hang' | 'nan' | 'slow_load' | 'load_oom' | 'load_abort';
  /** Only while this model is at work; null = any. */
  readonly modelId: string | null;
  /** Only in the first so many owners of a device, so that recovery can be seen; null = in all. */
  readonly lives: number | null;
  /** `abort`, `hang`, `nan`: the decode call in which it happens, counted from 1 in each owner. */
  readonly step: number;
  /** `slow_load`: how long a load waits before it reads. */
  readonly ms: number;
}

/** Device -> owner. `Start` comes first, `Shutdown` last. */
export type ToOwner =
  | {
      readonly kind: 'Start';
      readonly firstHandle: ArchHandle;
      /** Which owner of its device this is, from 1. */
      readonly life: number;
      readonly options: OwnerOptions;
    }
  | { readonly kind: 'Submit'; readonly id: JobId; readonly job: Job }
  | { readonly kind: 'Cancel'; readonly id: JobId }
  | { readonly kind: 'Shutdown' };

/** Owner -> device. */
export type FromOwner =
  | { readonly kind: 'Ready' }
  | { readonly kind: 'StartFailed'; readonly error: SerializedError }
  /** Nothing to say, and at work: sent when nothing else was for a second. */
  | { readonly kind: 'Alive' }
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

/** Jobs that bring a model into the owner: one at a time, cancelled through the shared word. */
export function isLoad(job: Job): job is LoadJob | TransferInJob {
  return job.kind === 'Load' || job.kind === 'TransferIn';
}

/** Jobs whose reply is a handle that somebody has to drop. */
export function opensHandle(job: Job): job is LoadJob | TransferInJob | OpenVocabularyJob {
  return isLoad(job) || job.kind === 'OpenVocabulary';
}

/** What a load loads. */
export function specOf(job: LoadJob | TransferInJob): LoadSpec {
  return job.kind === 'Load' ? job.spec : job.exported.spec;
}

/** Jobs that run over several steps of the owner, so that a cancel reaches them. */
export function isStepped(job: Job): job is GenerateJob | EmbedJob | RankJob {
  return job.kind === 'Generate' || job.kind === 'Embed' || job.kind === 'Rank';
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
  'Alive',
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
export function compactArray<T extends Int32Array | Float32Array | Uint8Array>(array: T): T {
  return array.byteLength === array.buffer.byteLength ? array : (array.slice() as T);
}
