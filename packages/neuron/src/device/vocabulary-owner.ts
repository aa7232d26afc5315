/** What reads vocabularies of files: an owner that loads no weights, so that no stream waits behind it. */
import type { ArchHandle, OpenedVocabulary, TokenizeOptions } from 'cortex-core/wire/inference';
import { createDevice, type DeviceSetup } from './create-devices.ts';
import type { OwnerDeath } from './device.ts';

export interface VocabularyOwner {
  /** Not cancelled: who asked and left would leave its handle behind. */
  openVocabulary(modelId: string, file: string): Promise<OpenedVocabulary>;
  tokenize(
    handle: ArchHandle,
    text: string,
    options: TokenizeOptions,
    signal?: AbortSignal,
  ): Promise<Int32Array>;
  /** Always succeeds. */
  dropArch(handle: ArchHandle): Promise<void>;
  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void;
  shutdown(): Promise<void>;
}

/**
 * A process, unless the configuration wants threads: libllama aborts on some broken files, and nobody has
 * loaded these. It sees no GPU.
 */
export function createVocabularyOwner(setup: DeviceSetup): VocabularyOwner {
  const deviceWorker = setup.deviceWorker === 'thread' ? 'thread' : 'process';
  const kept = { ...setup, deviceWorker, faults: [] } as const;
  return createDevice(
    {
      ...{ index: 0, id: 'vocabulary', kind: 'cpu', name: 'vocabulary', vram_total_mb: 0 },
      ...{ compute_capability: null, nvidiaIndex: null, backendIndex: null, sharesHostMemory: true },
    },
    kept,
  );
}
