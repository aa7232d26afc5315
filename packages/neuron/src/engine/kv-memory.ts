import type { LlamaApi } from '../libllama/bindings.gen.ts';
import { allocateNative, type NativeBlock } from '../libllama/native-memory.ts';

/** The KV state of one sequence, copied into host memory in libllama's own format. */
export interface KvState {
  readonly bytes: number;
  /** Valid until `close`. */
  readonly data: Uint8Array;
  /** Idempotent. */
  close(): void;
}

/**
 * The native memory of one context, by sequence id; each sequence has a KV stream of its own.
 *
 * What goes from one sequence to another goes through host memory: libllama's own copy between streams moves
 * whole streams however little of them is used, and only at the next decode call, so that a state written
 * meanwhile would be copied instead.
 */
export interface KvMemory {
  /** False when a state cannot be cut: recurrent and hybrid models. */
  readonly canTruncate: boolean;
  /** Tokens of the last decode call, but for its first, that `takeBack` can take from a sequence at most. */
  readonly takeBackMax: number;
  /** Keeps the first `length` positions; false when that is impossible, then nothing changed. */
  truncate(sequence: number, length: number): boolean;
  /**
   * The same where what is cut was computed by the last decode call of the sequence, and nothing was taken
   * back since: also of states that cannot be cut otherwise, of which libllama then keeps the last few.
   */
  takeBack(sequence: number, length: number): boolean;
  clear(sequence: number): void;
  /** What `save` would take. */
  sizeOf(sequence: number): number;
  /** Positions that the sequence holds, when they begin at 0. */
  lengthOf(sequence: number): number;
  /** Null when there is nothing to save or libllama refuses. `spare`: bytes at its end for the caller. */
  save(sequence: number, spare?: number): KvState | null;
  /** Replaces what the sequence holds; false when the state is not of this model, then it holds nothing. */
  restore(sequence: number, data: Uint8Array): boolean;
}

/** `memory`: llama_memory_t of the context, null for an encoder, which keeps nothing. */
export function createKvMemory(
  api: LlamaApi,
  context: bigint,
  { memory, canTruncate }: { readonly memory: bigint | null; readonly canTruncate: boolean },
): KvMemory {
  const clear = (sequence: number): void => {
    if (memory !== null) api.llama_memory_seq_rm(memory, sequence, -1, -1);
  };
  const cut = (sequence: number, length: number): boolean =>
    memory !== null && api.llama_memory_seq_rm(memory, sequence, length, -1);
  const sizeOf = (sequence: number): number => Number(api.llama_state_seq_get_size(context, sequence));
  return {
    canTruncate,
    takeBackMax: canTruncate ? Number.POSITIVE_INFINITY : api.llama_n_rs_seq(context),
    // A recurrent state of which some last ones are kept would be cut to one that may be older than it says.
    truncate: (sequence, length) => canTruncate && cut(sequence, length),
    takeBack: cut,
    clear,
    sizeOf,
    lengthOf: (sequence) => (memory === null ? 0 : api.llama_memory_seq_pos_max(memory, sequence) + 1),
    save(sequence, spare = 0) {
      const size = sizeOf(sequence);
      if (size === 0) return null;
      const block = allocateNative(size + spare, { isZeroed: false });
      const written = Number(api.llama_state_seq_get_data(context, block.address, size, sequence));
      if (written > 0) return toState(block, written + spare);
      block.close();
      return null;
    },
    restore(sequence, data) {
      clear(sequence);
      const read = Number(api.llama_state_seq_set_data(context, data, data.byteLength, sequence));
      if (read === data.byteLength) return true;
      clear(sequence);
      return false;
    },
  };
}

function toState(block: NativeBlock, bytes: number): KvState {
  return {
    bytes,
    data: new Uint8Array(block.buffer, 0, bytes),
    close: () => block.close(),
  };
}
