/**
 * Continuous batching over one native context.
 *
 * Problem: many requests share one context; none may stall, poison or outlive another.
 *
 * Design: a request is a Sequence: waiting (FIFO) -> reading its prompt -> decoding -> ended. Each step drops
 * what was cancelled, admits what fits in free slots, and makes one llama_decode call with one token of every
 * decoding sequence and the planned share of every prompt (plan-step.ts). Then each sequence that has an
 * output samples. All state lives here and changes only inside submit, step and close, on one thread. A
 * sequence's KV and sampler are freed before its owner hears that it ended.
 *
 * Limits: at most `waitingMax` requests wait. A decode call that libllama rolls back (no KV cell, invalid
 * batch) is repeated sequence by sequence, so that only the one at fault fails; any other failure ends all
 * that were in it.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams } from 'cortex-core/wire/inference';
import type { DecodeBatch } from './decode-batch.ts';
import type { EngineFaults } from './engine-faults.ts';
import { planPrefill } from './plan-step.ts';
import { Sampler, type SamplerHost } from './sampler.ts';
import {
  createSequence,
  type Ending,
  fail,
  finish,
  type GenerateSink,
  type Sequence,
  takeToken,
} from './sequence.ts';
import { validateRequest } from './validate-request.ts';

export interface BatchLoopOptions {
  readonly host: SamplerHost;
  /** llama_memory_t of the context. */
  readonly memory: bigint;
  readonly batch: DecodeBatch;
  readonly slots: number;
  readonly ubatch: number;
  /** For messages. */
  readonly modelId: string;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  readonly faults?: EngineFaults | undefined;
}

/** What one sequence adds to a step. */
interface Chunk {
  readonly sequence: Sequence;
  readonly count: number;
  /** Place of its output in the batch; null while its prompt goes on. */
  row: number | null;
}

const waitingMax = 1024;
/** llama_decode results after which the KV cache is as before the call (llama.h). */
const rolledBack: readonly number[] = [1, -1];

export class BatchLoop {
  readonly #options: BatchLoopOptions;
  readonly #freeSlots: number[];
  #waiting: Sequence[] = [];
  /** In order of arrival. */
  #running: Sequence[] = [];
  #turn = 0;
  #isClosed = false;

  constructor(options: BatchLoopOptions) {
    this.#options = options;
    this.#freeSlots = Array.from({ length: options.slots }, (_, slot) => options.slots - 1 - slot);
  }

  get isIdle(): boolean {
    return this.#running.length === 0 && this.#waiting.length === 0;
  }

  /** Errors, thrown at once: `invalid_request`, `context_length_exceeded`, `overloaded`. */
  submit(params: GenerateParams, sink: GenerateSink): { cancel(): void } {
    const { host, modelId, now } = this.#options;
    if (this.#isClosed) throw new AppError('model_not_loaded', `model "${modelId}" was unloaded`);
    if (this.#waiting.length >= waitingMax) {
      throw new AppError('overloaded', `model "${modelId}": ${waitingMax} requests wait already`);
    }
    const budget = validateRequest(params, {
      vocabSize: host.vocabulary.size,
      context: host.contextTokens,
    });
    const sequence = createSequence(params, budget, new Sampler(host, params), sink, now());
    this.#waiting.push(sequence);
    return {
      cancel() {
        sequence.isCancelled = true;
      },
    };
  }

  /** One decode call over all sequences; does nothing when there is no work. */
  step(): void {
    if (this.#isClosed) return;
    this.#dropCancelled();
    this.#admit();
    const chunks = this.#planChunks();
    if (chunks.length > 0) this.#decode(chunks);
    this.#turn++;
  }

  /** Ends everything with `model_not_loaded`. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const gone = new AppError(
      'model_not_loaded',
      `model "${this.#options.modelId}" was unloaded before the answer was complete`,
    );
    for (const sequence of [...this.#running, ...this.#waiting]) this.#fail(sequence, gone);
  }

  #dropCancelled(): void {
    for (const sequence of [...this.#running, ...this.#waiting]) {
      if (sequence.isCancelled) this.#finish(sequence, { reason: 'cancelled', stopText: null });
    }
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#freeSlots.length > 0) {
      const sequence = this.#waiting.shift() as Sequence;
      sequence.slot = this.#freeSlots.pop() as number;
      sequence.startedAt = this.#options.now();
      this.#running.push(sequence);
    }
  }

  #planChunks(): Chunk[] {
    const decoding = this.#running.filter((sequence) => sequence.nextToken !== null);
    const chunks: Chunk[] = decoding.map((sequence) => ({ sequence, count: 1, row: null }));
    if (decoding.length === this.#running.length) return chunks;
    const reading = this.#running.filter((sequence) => sequence.nextToken === null);
    const shares = planPrefill({
      decoding: decoding.length,
      pending: reading.map((sequence) => sequence.params.tokens.length - sequence.prefilled),
      ubatch: this.#options.ubatch,
      turn: this.#turn,
    });
    for (const [index, sequence] of reading.entries()) {
      const count = shares[index] ?? 0;
      if (count > 0) chunks.push({ sequence, count, row: null });
    }
    return chunks;
  }

  #decode(chunks: readonly Chunk[]): void {
    const { host, batch } = this.#options;
    batch.clear();
    for (const chunk of chunks) this.#fill(batch, chunk);
    const fault = this.#options.faults?.onStep(this.#options.modelId) ?? null;
    const code = host.api.llama_decode(host.context, batch.struct);
    if (fault === 'nan' && code === 0) this.#spoil(chunks);
    if (code === 0) {
      for (const chunk of chunks) this.#advance(chunk);
    } else if (rolledBack.includes(code) && chunks.length > 1) {
      for (const chunk of chunks) this.#decode([chunk]);
    } else {
      for (const { sequence } of chunks) this.#fail(sequence, decodeFailed(this.#options.modelId, code));
    }
  }

  #spoil(chunks: readonly Chunk[]): void {
    const { logits } = this.#options.host;
    for (const { row } of chunks) if (row !== null) logits.rowAt(logits.addressOf(row)).fill(Number.NaN);
  }

  #fill(batch: DecodeBatch, chunk: Chunk): void {
    const { params, prefilled, nextToken, completion, slot } = chunk.sequence;
    // Ended meanwhile: a sink that closed the loop while the chunks were decoded one by one.
    if (slot === null) return;
    if (nextToken !== null) {
      chunk.row = batch.add(nextToken, params.tokens.length + completion - 1, slot, true);
      return;
    }
    const end = prefilled + chunk.count;
    for (let position = prefilled; position < end; position++) {
      const isLast = position === params.tokens.length - 1;
      const row = batch.add(params.tokens[position] as number, position, slot, isLast);
      if (isLast) chunk.row = row;
    }
  }

  /** The tokens of a chunk are in the KV cache: samples where there is an output. */
  #advance({ sequence, count, row }: Chunk): void {
    if (sequence.isEnded) return;
    if (sequence.nextToken === null) sequence.prefilled += count;
    if (row === null) return;
    const { host, now } = this.#options;
    sequence.prefilledAt ??= now();
    try {
      if (sequence.budget.tokens === 0) {
        this.#finish(sequence, { reason: 'length', stopText: null });
        return;
      }
      const token = sequence.sampler.sample(row);
      const readRow = (): Float32Array => host.logits.rowAt(host.logits.addressOf(row));
      const ending = takeToken(sequence, token, host.vocabulary, readRow);
      if (ending !== null) this.#finish(sequence, ending);
    } catch (error) {
      // Of this request alone: logits that are no numbers, a grammar at its end, a sink that throws.
      this.#fail(sequence, error);
    }
  }

  #finish(sequence: Sequence, ending: Ending): void {
    if (this.#release(sequence)) finish(sequence, ending, this.#options.now());
  }

  #fail(sequence: Sequence, error: unknown): void {
    if (this.#release(sequence)) fail(sequence, error);
  }

  /** Frees what the sequence holds; false when that was done before. */
  #release(sequence: Sequence): boolean {
    if (sequence.isEnded) return false;
    sequence.isEnded = true;
    sequence.sampler.close();
    if (sequence.slot === null) {
      this.#waiting = this.#waiting.filter((other) => other !== sequence);
      return true;
    }
    this.#running = this.#running.filter((other) => other !== sequence);
    // The seam for the prefix cache: it would keep these cells instead of removing them.
    this.#options.host.api.llama_memory_seq_rm(this.#options.memory, sequence.slot, -1, -1);
    this.#freeSlots.push(sequence.slot);
    sequence.slot = null;
    return true;
  }
}

export function decodeFailed(modelId: string, code: number): AppError {
  const why =
    code === 1
      ? 'its KV cache has no room'
      : code === 2
        ? 'the computation was aborted'
        : 'the device failed';
  return new AppError('job_failed', `model "${modelId}": a decode step failed, ${why}; try again`, {
    detail: { llama_decode: code },
  });
}
