import type { LlamaBatch } from '../libllama/bindings.gen.ts';
import { allocateNative, type NativeBlock } from '../libllama/native-memory.ts';

/**
 * A llama_batch whose arrays are allocated once: filling it is a few typed-array writes, passing it copies 56
 * bytes. Every entry belongs to exactly one sequence. Tokens alone, or each with a hidden state.
 */
export class DecodeBatch {
  readonly struct: LlamaBatch;
  readonly capacity: number;
  readonly #memory: NativeBlock;
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #sequences: Int32Array;
  readonly #outputs: Int8Array;
  readonly #states: Float32Array;
  readonly #stateWidth: number;

  /** `stateWidth`: floats of a hidden state that each token comes with; 0 = tokens alone. */
  constructor(capacity: number, stateWidth = 0) {
    this.capacity = capacity;
    this.#stateWidth = stateWidth;
    // seq_id pointers first (8-byte aligned), then the int32 arrays, the states, then the int8 flags.
    const pointers = capacity * 8;
    const ints = capacity * 4;
    const memory = allocateNative(pointers + (4 + stateWidth) * ints + capacity);
    const at = (index: number): number => pointers + index * ints;
    const { buffer, address } = memory;
    this.#memory = memory;
    this.#tokens = new Int32Array(buffer, at(0), capacity);
    this.#positions = new Int32Array(buffer, at(1), capacity);
    new Int32Array(buffer, at(2), capacity).fill(1);
    this.#sequences = new Int32Array(buffer, at(3), capacity);
    this.#states = new Float32Array(buffer, at(4), capacity * stateWidth);
    this.#outputs = new Int8Array(buffer, at(4 + stateWidth), capacity);
    const table = new BigUint64Array(buffer, 0, capacity);
    for (let index = 0; index < capacity; index++) table[index] = address + BigInt(at(3) + index * 4);
    this.struct = {
      n_tokens: 0,
      token: address + BigInt(at(0)),
      embd: stateWidth === 0 ? null : address + BigInt(at(4)),
      pos: address + BigInt(at(1)),
      n_seq_id: address + BigInt(at(2)),
      seq_id: address,
      logits: address + BigInt(at(4 + stateWidth)),
    };
  }

  get size(): number {
    return this.struct.n_tokens;
  }

  clear(): void {
    this.struct.n_tokens = 0;
  }

  /** Adds one token and returns its place, which is also the index of its logits. */
  add(token: number, position: number, sequence: number, hasOutput: boolean): number {
    const index = this.struct.n_tokens;
    if (index >= this.capacity) throw new RangeError(`a batch holds ${this.capacity} tokens`);
    this.#tokens[index] = token;
    this.#positions[index] = position;
    this.#sequences[index] = sequence;
    this.#outputs[index] = hasOutput ? 1 : 0;
    this.struct.n_tokens = index + 1;
    return index;
  }

  /** The hidden state that goes with the token at `index`; the caller writes it. */
  stateAt(index: number): Float32Array {
    return this.#states.subarray(index * this.#stateWidth, (index + 1) * this.#stateWidth);
  }

  close(): void {
    this.struct.n_tokens = 0;
    this.#memory.close();
  }
}
