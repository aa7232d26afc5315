/** A device whose owner lives elsewhere: each call is a job. What becomes of it: OwnerSupervisor. */
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
import type { Device, DeviceState, LoadProgressEvent, OwnerDeath } from './device.ts';
import type { OwnerDeviceOptions } from './owner-device-options.ts';
import { OwnerSupervisor } from './owner-supervisor.ts';
import type { JobHooks } from './pending-jobs.ts';

export class OwnerDevice implements Device {
  readonly id: string;
  readonly #defaultDevices: readonly number[];
  readonly #owner: OwnerSupervisor;

  /** Spawns the owner at once; jobs may be submitted before it is up. */
  constructor(options: OwnerDeviceOptions) {
    this.id = options.id;
    this.#defaultDevices = options.defaultDevices ?? [];
    this.#owner = new OwnerSupervisor(options);
  }

  get state(): DeviceState {
    return this.#owner.state;
  }

  /** Process id of the owner; null for a thread and while there is none. */
  get ownerPid(): number | null {
    return this.#owner.ownerPid;
  }

  queryVram(signal?: AbortSignal): Promise<DeviceMemory> {
    return this.#owner.submit({ kind: 'QueryVram' }, { signal });
  }

  listBackendDevices(signal?: AbortSignal): Promise<readonly BackendDevice[]> {
    return this.#owner.submit({ kind: 'ListDevices' }, { signal });
  }

  load(
    spec: LoadSpec,
    onProgress: (event: LoadProgressEvent) => void,
    signal?: AbortSignal,
  ): Promise<LoadedArch> {
    const devices = spec.devices.length > 0 ? spec.devices : this.#defaultDevices;
    return this.#owner.submit({ kind: 'Load', spec: { ...spec, devices } }, loadHooks(onProgress, signal));
  }

  exportArch(handle: ArchHandle, signal?: AbortSignal): Promise<ExportedArch> {
    return this.#owner.submit({ kind: 'Export', handle }, { signal });
  }

  transferIn(
    exported: ExportedArch,
    onProgress: (event: LoadProgressEvent) => void,
    signal?: AbortSignal,
  ): Promise<LoadedArch> {
    // The other owner's indices mean nothing in this one's list.
    const spec = { ...exported.spec, devices: this.#defaultDevices };
    const job = { kind: 'TransferIn', exported: { ...exported, spec } } as const;
    return this.#owner.submit(job, loadHooks(onProgress, signal));
  }

  /** See VocabularyOwner (vocabulary-owner.ts). */
  openVocabulary(modelId: string, file: string): Promise<OpenedVocabulary> {
    return this.#owner.submit({ kind: 'OpenVocabulary', modelId, file }, {});
  }

  dropArch(handle: ArchHandle): Promise<void> {
    return this.#owner.drop(handle);
  }

  async clearKv(handle: ArchHandle, signal?: AbortSignal): Promise<void> {
    await this.#owner.submit({ kind: 'ClearKv', handle }, { signal });
  }

  forwardLogits(
    handle: ArchHandle,
    tokens: Int32Array,
    offset: number,
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    return this.#owner.submit({ kind: 'ForwardLogits', handle, tokens, offset }, { signal });
  }

  snapshotKv(handle: ArchHandle, signal?: AbortSignal): Promise<KvSnapshot> {
    return this.#owner.submit({ kind: 'SnapshotKv', handle }, { signal });
  }

  restoreKv(handle: ArchHandle, id: number, signal?: AbortSignal): Promise<KvSnapshot> {
    return this.#owner.submit({ kind: 'RestoreKv', handle, id }, { signal });
  }

  dropKvSnapshot(handle: ArchHandle, id: number, signal?: AbortSignal): Promise<KvSnapshot> {
    return this.#owner.submit({ kind: 'DropKvSnapshot', handle, id }, { signal });
  }

  tokenize(
    handle: ArchHandle,
    text: string,
    options: TokenizeOptions,
    signal?: AbortSignal,
  ): Promise<Int32Array> {
    return this.#owner.submit({ kind: 'Tokenize', handle, text, options }, { signal });
  }

  detokenize(handle: ArchHandle, tokens: Int32Array, signal?: AbortSignal): Promise<string> {
    return this.#owner.submit({ kind: 'Detokenize', handle, tokens }, { signal });
  }

  generate(
    handle: ArchHandle,
    params: GenerateParams,
    onStep: (event: StepEvent) => void,
    signal?: AbortSignal,
  ): Promise<GenerateResult> {
    return this.#owner.submit({ kind: 'Generate', handle, params }, { signal, onStep });
  }

  embed(handle: ArchHandle, inputs: readonly Int32Array[], signal?: AbortSignal): Promise<EmbedResult> {
    return this.#owner.submit({ kind: 'Embed', handle, inputs }, { signal });
  }

  rank(handle: ArchHandle, inputs: readonly Int32Array[], signal?: AbortSignal): Promise<RankResult> {
    return this.#owner.submit({ kind: 'Rank', handle, inputs }, { signal });
  }

  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void {
    return this.#owner.onDeath(listener);
  }

  restartOwner(): Promise<void> {
    return this.#owner.restart();
  }

  shutdown(): Promise<void> {
    return this.#owner.close();
  }
}

function loadHooks(
  onProgress: (event: LoadProgressEvent) => void,
  signal: AbortSignal | undefined,
): JobHooks {
  return { signal, onProgress: (fraction) => onProgress({ fraction }) };
}
