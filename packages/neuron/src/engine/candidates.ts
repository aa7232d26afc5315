import { AppError } from 'cortex-core/wire/errors';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import { allocateNative, type NativeBlock, readFloat, readInt32 } from '../libllama/native-memory.ts';

export interface Chosen {
  readonly token: number;
  /** As the samplers left it: -Infinity when everything was ruled out. */
  readonly logit: number;
}

/** An ambiguous grammar multiplies its states with every character, and all streams of the device wait. */
const grammarStepMsMax = 5000;
/** sizeof(llama_token_data): {int32 id, float logit, float p}. */
const entryBytes = 12;
/** sizeof(llama_token_data_array): {data*, size_t size, int64 selected, bool sorted}. */
const headerBytes = 32;

/**
 * A llama_token_data_array of the whole vocabulary and one of a single token, allocated once per model. They
 * are what samplers that cannot work on the context's own logits are applied to.
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
    // [header of all][header of one][entry of one, padded][entries of all]
    this.#memory = allocateNative(2 * headerBytes + 16 + vocabSize * entryBytes);
    this.#ids = new Int32Array(this.#memory.buffer);
    this.#logits = new Float32Array(this.#memory.buffer);
  }

  /** Makes the array the whole row, unsorted, nothing selected. */
  fill(row: Float32Array): void {
    this.#reset(0, 2 * headerBytes + 16, this.#size);
    let at = (2 * headerBytes + 16) / 4;
    for (let token = 0; token < this.#size; token++) {
      this.#ids[at] = token;
      this.#logits[at + 1] = row[token] as number;
      at += 3;
    }
  }

  apply(sampler: bigint): void {
    this.#api.llama_sampler_apply(sampler, this.#memory.address);
  }

  /** Rules out what a grammar does not let come next. Errors: `invalid_request` when that took too long. */
  applyGrammar(grammar: bigint): void {
    const startedMs = performance.now();
    this.apply(grammar);
    if (performance.now() - startedMs < grammarStepMsMax) return;
    const text = `grammar needs more than ${grammarStepMsMax / 1000} s for a token; make it less ambiguous`;
    throw new AppError('invalid_request', text, { param: 'grammar' });
  }

  /** Applies a chain that ends in a choosing sampler. */
  choose(chain: bigint): Chosen {
    this.apply(chain);
    const [data = 0n, , selected = 0n] = new BigUint64Array(this.#memory.buffer, 0, 3);
    // Samplers may move `data` (llama.h), so it is read through its address.
    const entry = data + selected * BigInt(entryBytes);
    return { token: readInt32(entry), logit: readFloat(entry + 4n) };
  }

  /** Whether a grammar lets `token` come next. */
  isAllowed(grammar: bigint, token: number): boolean {
    const at = 2 * headerBytes;
    this.#reset(headerBytes, at, 1);
    this.#ids[at / 4] = token;
    this.#logits[at / 4 + 1] = 1;
    this.#api.llama_sampler_apply(grammar, this.#memory.address + BigInt(headerBytes));
    return this.#logits[at / 4 + 1] === 1;
  }

  close(): void {
    this.#memory.close();
  }

  #reset(header: number, data: number, size: number): void {
    const words = new BigUint64Array(this.#memory.buffer, header, 4);
    words[0] = this.#memory.address + BigInt(data);
    words[1] = BigInt(size);
    words[2] = BigInt.asUintN(64, -1n);
    words[3] = 0n;
  }
}
