import type { LlamaApi } from '../libllama/bindings.gen.ts';
import { allocateNative, type NativeBlock, readFloat, readInt32 } from '../libllama/native-memory.ts';
import { forEachToken, type TokenMask } from './grammar/token-mask.ts';

export interface Chosen {
  readonly token: number;
  /** As the samplers left it: -Infinity when everything was ruled out. */
  readonly logit: number;
}

/** sizeof(llama_token_data): {int32 id, float logit, float p}. */
const entryBytes = 12;
/** sizeof(llama_token_data_array): {data*, size_t size, int64 selected, bool sorted}. */
const headerBytes = 32;

/**
 * A llama_token_data_array with room for the whole vocabulary, allocated once per model: what samplers are
 * applied to that may not choose from all of the context's own logits.
 */
export class Candidates {
  readonly #api: LlamaApi;
  readonly #memory: NativeBlock;
  readonly #size: number;
  readonly #ids: Int32Array;
  readonly #logits: Float32Array;

  constructor(api: LlamaApi, vocabSize: number) {
    this.#api = api;
    this.#size = vocabSize;
    this.#memory = allocateNative(headerBytes + vocabSize * entryBytes);
    this.#ids = new Int32Array(this.#memory.buffer);
    this.#logits = new Float32Array(this.#memory.buffer);
  }

  /** Makes the array the whole row, unsorted, nothing selected. */
  fill(row: Float32Array): void {
    this.#reset(this.#size);
    let at = headerBytes / 4;
    for (let token = 0; token < this.#size; token++) {
      this.#ids[at] = token;
      this.#logits[at + 1] = row[token] as number;
      at += entryBytes / 4;
    }
  }

  /** Applies a chain that ends in a choosing sampler. */
  choose(chain: bigint): Chosen {
    this.#api.llama_sampler_apply(chain, this.#memory.address);
    const [data = 0n, , selected = 0n] = new BigUint64Array(this.#memory.buffer, 0, 3);
    // Samplers may move `data` (llama.h), so it is read through its address.
    const entry = data + selected * BigInt(entryBytes);
    return { token: readInt32(entry), logit: readFloat(entry + 4n) };
  }

  /** Makes the array the members of `mask` only, unsorted, nothing selected. */
  fillAllowed(row: Float32Array, mask: TokenMask): void {
    this.#reset(mask.count);
    let at = headerBytes / 4;
    forEachToken(mask, (token) => {
      this.#ids[at] = token;
      this.#logits[at + 1] = row[token] as number;
      at += entryBytes / 4;
    });
  }

  close(): void {
    this.#memory.close();
  }

  #reset(size: number): void {
    const words = new BigUint64Array(this.#memory.buffer, 0, 4);
    words[0] = this.#memory.address + BigInt(headerBytes);
    words[1] = BigInt(size);
    words[2] = BigInt.asUintN(64, -1n);
    words[3] = 0n;
  }
}
