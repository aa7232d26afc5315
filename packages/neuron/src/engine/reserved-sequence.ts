import { AppError } from 'cortex-core/wire/errors';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import type { DecodeBatch } from './decode-batch.ts';
import { decodeFailed } from './decode-failed.ts';
import type { KvMemory } from './kv-memory.ts';
import type { LogitsReader } from './logits-reader.ts';

export interface ReservedSequenceOptions {
  readonly api: LlamaApi;
  readonly context: bigint;
  readonly kv: KvMemory;
  readonly batch: DecodeBatch;
  readonly logits: LogitsReader;
  /** The sequence id that no generation uses. */
  readonly id: number;
  readonly contextTokens: number;
  readonly modelId: string;
}

/** A sequence under the caller's control, beside the generations. */
export interface ReservedSequence {
  readonly id: number;
  /** Positions it holds. */
  readonly length: number;
  /** Another number after every change: who works on it in pieces sees that somebody came between. */
  readonly version: number;
  /**
   * Logits after the last of `tokens`, a copy; see LoadedModel.forwardLogits. The token ids must be valid.
   */
  forward(tokens: Int32Array, offset: number): Float32Array;
  /** One decode call: adds `tokens[from, to)`; the row of its last one when that has an output, else 0. */
  append(tokens: Int32Array, from: number, to: number, hasOutput: boolean): number;
  clear(): void;
  /** Its state was replaced by one of `length` positions. */
  replaced(length: number): void;
}

export function createReservedSequence(options: ReservedSequenceOptions): ReservedSequence {
  const { api, context, kv, batch, logits, id } = options;
  let length = 0;
  let version = 0;
  const clear = (): void => {
    kv.clear(id);
    length = 0;
    version++;
  };
  const rewind = (offset: number): void => {
    if (offset === length && offset > 0) return;
    if (offset === 0) {
      clear();
      return;
    }
    if (!kv.truncate(id, offset)) {
      throw invalid(`this model's state cannot go back to ${offset}; start again at 0`);
    }
    length = offset;
    version++;
  };
  const append = (tokens: Int32Array, from: number, to: number, hasOutput: boolean): number => {
    batch.clear();
    let row = 0;
    for (let index = from; index < to; index++) {
      row = batch.add(tokens[index] as number, length + index - from, id, hasOutput && index === to - 1);
    }
    const code = api.llama_decode(context, batch.struct);
    if (code !== 0) {
      clear();
      throw decodeFailed(options.modelId, code);
    }
    length += to - from;
    version++;
    return row;
  };
  return {
    id,
    get length() {
      return length;
    },
    get version() {
      return version;
    },
    forward(tokens, offset) {
      checkRange(tokens.length, offset, length, options.contextTokens);
      rewind(offset);
      let row = 0;
      for (let start = 0; start < tokens.length; start += batch.capacity) {
        const end = Math.min(start + batch.capacity, tokens.length);
        row = append(tokens, start, end, end === tokens.length);
      }
      return logits.rowAt(logits.addressOf(row)).slice();
    },
    append,
    clear,
    replaced(to) {
      length = to;
      version++;
    },
  };
}

function checkRange(count: number, offset: number, length: number, contextTokens: number): void {
  if (count === 0) throw invalid('ForwardLogits needs at least one token');
  if (!Number.isInteger(offset) || offset < 0 || offset > length) {
    throw invalid(`offset must be from 0 to ${length}, the tokens already there, not ${offset}`, 'offset');
  }
  if (offset + count > contextTokens) {
    throw new AppError(
      'context_length_exceeded',
      `${offset + count} tokens do not fit in the context of ${contextTokens}`,
      { extras: { prompt_len: offset + count, max: contextTokens } },
    );
  }
}

function invalid(message: string, param = 'tokens'): AppError {
  return new AppError('invalid_request', message, { param });
}
