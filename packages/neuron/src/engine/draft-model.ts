/**
 * A smaller model of the same vocabulary that guesses what the larger one will say.
 *
 * It follows each sequence in a KV stream of its own: before it guesses, it goes back to what the two have in
 * common, reads what is new and then says its likeliest tokens, one decode call each.
 * Guesses are only guesses: the larger model's sampler decides (batch-loop.ts). It stops where it is unsure,
 * because a refused row costs as much as an accepted one.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { LoadSpec } from 'cortex-core/wire/inference';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import type { Libllama } from '../libllama/load-library.ts';
import { DecodeBatch } from './decode-batch.ts';
import type { DraftRequest, DraftSource } from './draft-source.ts';
import { createKvMemory, type KvMemory } from './kv-memory.ts';
import { likeliest } from './likeliest.ts';
import { createLogitsReader, type LogitsReader } from './logits-reader.ts';
import { closeModel, type OpenedModel, openModel } from './open-model.ts';
import { commonPrefix } from './token-list.ts';
import { readVocabulary, type Vocabulary } from './vocabulary.ts';

export interface DraftModelOptions {
  /** Of the larger model. */
  readonly spec: LoadSpec;
  readonly vocabulary: Vocabulary;
  /** Tokens that a sequence of the larger model may hold. */
  readonly contextTokens: number;
}

interface Follower {
  /** Where its cells are: the slot that it began in. */
  readonly stream: number;
  /** What they hold. */
  known: number[];
}

/** Prompt tokens read in one step: the stream waits for them. */
const catchUpMax = 256;

export class DraftModel implements DraftSource {
  readonly #api: LlamaApi;
  readonly #opened: OpenedModel;
  readonly #batch: DecodeBatch;
  readonly #kv: KvMemory;
  readonly #logits: LogitsReader;
  /** By slot. */
  readonly #followers: Follower[];
  #isClosed = false;

  /**
   * Blocks until it is loaded. Errors: those of a load, and `invalid_request`
   * when the two have different vocabularies or the smaller one cannot take tokens back.
   */
  constructor(
    library: Libllama,
    { spec, vocabulary, contextTokens }: DraftModelOptions,
    onProgress: (fraction: number) => boolean,
  ) {
    const { api } = library;
    const own = {
      ...spec,
      file: spec.draftFile ?? '',
      context: contextTokens,
      lora: [],
      speculation: 'off',
    } as const;
    this.#api = api;
    this.#opened = openModel(library, own, onProgress);
    const { model, context: native, batchTokens } = this.#opened;
    this.#batch = new DecodeBatch(batchTokens);
    const isRecurrent = api.llama_model_is_recurrent(model) || api.llama_model_is_hybrid(model);
    const memory = api.llama_get_memory(native) as bigint | null;
    this.#kv = createKvMemory(api, native, { memory, canTruncate: !isRecurrent });
    this.#logits = createLogitsReader(api, native, vocabulary.size);
    this.#followers = Array.from({ length: spec.slots }, (_, stream) => ({ stream, known: [] }));
    const isFit = memory !== null && !isRecurrent && !this.#opened.readsWhole;
    const why = isFit ? difference(readVocabulary(api, model), vocabulary) : 'cannot take tokens back';
    if (why === null) return;
    this.close();
    throw new AppError('invalid_request', `the draft model of "${spec.modelId}" ${why}; choose another one`, {
      param: 'draft_model',
    });
  }

  /** What it would say next; empty where it is unsure or still reading. */
  propose({ slot, tokens, max }: DraftRequest): Int32Array {
    const guesses: number[] = [];
    if (!this.#catchUp(slot, tokens)) return Int32Array.from(guesses);
    let last = tokens[tokens.length - 1] as number;
    while (guesses.length < max) {
      const next = this.#guess(slot, last);
      if (next === null) break;
      guesses.push(next);
      last = next;
    }
    return Int32Array.from(guesses);
  }

  /** What was read for `from` belongs to `to` now. */
  moved(from: number, to: number): void {
    const [moving, other] = [this.#followers[from], this.#followers[to]];
    if (moving !== undefined) this.#followers[to] = moving;
    if (other !== undefined) this.#followers[from] = other;
  }

  /** Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#batch.close();
    closeModel(this.#api, this.#opened);
  }

  /** Reads all but the last token; false while there is more to read than one step may take. */
  #catchUp(slot: number, tokens: Int32Array): boolean {
    const follower = this.#followers[slot] as Follower;
    const end = tokens.length - 1;
    const shared = commonPrefix(Int32Array.from(follower.known), tokens.subarray(0, end));
    if (shared < follower.known.length) this.#cut(slot, shared);
    const until = Math.min(end, shared + Math.min(catchUpMax, this.#batch.capacity));
    this.#batch.clear();
    for (let at = shared; at < until; at++) this.#batch.add(tokens[at] as number, at, follower.stream, false);
    if (until > shared && !this.#decode(slot)) return false;
    for (let at = shared; at < until; at++) follower.known.push(tokens[at] as number);
    return until === end;
  }

  /** The likeliest token after `token`, null where it is not likely enough. */
  #guess(slot: number, token: number): number | null {
    const { known, stream } = this.#followers[slot] as Follower;
    this.#batch.clear();
    const row = this.#batch.add(token, known.length, stream, true);
    known.push(token);
    return this.#decode(slot) ? likeliest(this.#logits.rowAt(this.#logits.addressOf(row))) : null;
  }

  /** False when the device failed: the stream is forgotten and read again next time. */
  #decode(slot: number): boolean {
    if (this.#api.llama_decode(this.#opened.context, this.#batch.struct) === 0) return true;
    this.#cut(slot, 0);
    return false;
  }

  #cut(slot: number, length: number): void {
    const follower = this.#followers[slot] as Follower;
    follower.known.length = length;
    if (length > 0 && this.#kv.truncate(follower.stream, length)) return;
    follower.known.length = 0;
    this.#kv.clear(follower.stream);
  }

  /** 0 after close(). */
  get weightsBytes(): number {
    return this.#isClosed ? 0 : Number(this.#api.llama_model_size(this.#opened.model));
  }

  /** Growth of this process's own memory while its context was made. */
  get contextBytes(): number {
    return this.#opened.contextBytes;
  }
}

/** Why token ids of one model mean something else to the other; null when they mean the same. */
function difference(own: Vocabulary, other: Vocabulary): string | null {
  if (own.size !== other.size) return `has ${own.size} tokens and the model ${other.size}`;
  if (own.eogTokens.join() !== other.eogTokens.join())
    return 'ends its answers with other tokens than the model';
  const step = Math.max(1, Math.floor(own.size / 4096));
  for (let token = 0; token < own.size; token += step) {
    const [a, b] = [own.pieceOf(token).bytes, other.pieceOf(token).bytes];
    if (Buffer.compare(a, b) !== 0) return `means something else by token ${token} than the model`;
  }
  return null;
}
