/** Copies of the reserved sequence in host memory, to branch from a beginning without reading it again. */
import { AppError } from 'cortex-core/wire/errors';
import type { KvSnapshot } from 'cortex-core/wire/inference';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import type { ReservedSequence } from './reserved-sequence.ts';

export interface KvSnapshotsOptions {
  readonly api: LlamaApi;
  readonly context: bigint;
  readonly reserved: ReservedSequence;
  readonly modelId: string;
  /** All snapshots of the model together; default 512 MiB. */
  readonly bytesMax?: number;
}

interface Held {
  readonly snapshot: KvSnapshot;
  readonly state: Uint8Array;
}

const bytesMaxDefault = 512 * 1024 ** 2;
/** Snapshots of an empty sequence weigh nothing. */
const countMax = 1024;

export class KvSnapshots {
  readonly #options: KvSnapshotsOptions;
  readonly #held = new Map<number, Held>();
  #bytes = 0;
  #nextId = 1;

  constructor(options: KvSnapshotsOptions) {
    this.#options = options;
  }

  /** Errors: `overloaded` when the limit would be passed. */
  take(): KvSnapshot {
    const { api, context, reserved, modelId, bytesMax = bytesMaxDefault } = this.#options;
    const { id: sequence, length } = reserved;
    const bytes = length === 0 ? 0 : Number(api.llama_state_seq_get_size(context, sequence));
    if (this.#bytes + bytes > bytesMax || this.#held.size >= countMax) {
      throw new AppError(
        'overloaded',
        `model "${modelId}": its ${this.#held.size} KV snapshots take ${this.#bytes} bytes and one of ` +
          `${bytes} would pass the limit of ${bytesMax}; drop one first`,
      );
    }
    const state = new Uint8Array(bytes);
    if (bytes > 0 && Number(api.llama_state_seq_get_data(context, state, bytes, sequence)) !== bytes) {
      throw new AppError('job_failed', `model "${modelId}": its KV state could not be copied`);
    }
    const snapshot = { id: this.#nextId++, bytes, length };
    this.#held.set(snapshot.id, { snapshot, state });
    this.#bytes += bytes;
    return snapshot;
  }

  /** The reserved sequence is then as it was at `take`. Errors: `invalid_request`, `job_failed`. */
  restore(id: number): KvSnapshot {
    const { api, context, reserved, modelId } = this.#options;
    const { snapshot, state } = this.#require(id, 'RestoreKv');
    reserved.clear();
    if (snapshot.length === 0) return snapshot;
    if (Number(api.llama_state_seq_set_data(context, state, state.length, reserved.id)) === 0) {
      reserved.clear();
      throw new AppError('job_failed', `model "${modelId}": KV snapshot ${id} could not be put back`);
    }
    reserved.replaced(snapshot.length);
    return snapshot;
  }

  drop(id: number): KvSnapshot {
    const { snapshot } = this.#require(id, 'DropKvSnapshot');
    this.#held.delete(id);
    this.#bytes -= snapshot.bytes;
    return snapshot;
  }

  /** Idempotent. */
  close(): void {
    this.#held.clear();
    this.#bytes = 0;
  }

  #require(id: number, job: string): Held {
    const held = this.#held.get(id);
    if (held !== undefined) return held;
    const known = [...this.#held.keys()].slice(0, 20).join(', ') || 'none';
    throw new AppError('invalid_request', `${job}: there is no KV snapshot ${id}; there are ${known}`, {
      param: 'id',
    });
  }
}
