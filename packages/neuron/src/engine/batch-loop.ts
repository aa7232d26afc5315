/**
 * Continuous batching over one native context.
 *
 * Problem: many requests share one context; none may stall, poison or outlive another.
 *
 * Design: a request is a Sequence: waiting (FIFO) -> reading its prompt -> decoding -> ended. Each step
 * drops what was cancelled, admits what fits in free slots, and makes one llama_decode call with one token of
 * every decoding sequence, what it drafted, and the planned share of every prompt (plan-step.ts). Then each
 * sequence that has an output samples. A prompt starts from what the cells already hold of it, and one that
 * another sequence is just reading is waited for (prefix-cache.ts). Drafts (ngram-draft.ts) are rows behind a
 * token: each is kept only if the sampler chooses it, so the answer is what it would be without.
 * All state lives here and changes only inside submit, step and close, on one thread. What a sequence holds
 * is given back before its owner hears that it ended.
 *
 * Limits: at most `waitingMax` requests wait. A decode call that libllama rolls back (no KV cell, invalid
 * batch) is repeated sequence by sequence, so that only the one at fault fails; any other failure ends all
 * that were in it.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams, LoadSpec } from 'cortex-core/wire/inference';
import { bySlot, type Chunk, slotOf, toCalls } from './chunk.ts';
import { countGraphs, GapCosts } from './close-ranks.ts';
import type { DecodeBatch } from './decode-batch.ts';
import { decodeFailed } from './decode-failed.ts';
import { DraftPlanner, noDrafts } from './draft-planner.ts';
import type { DraftSource } from './draft-source.ts';
import type { EngineFaults } from './engine-faults.ts';
import type { KvMemory } from './kv-memory.ts';
import type { MtpDraft } from './mtp-draft.ts';
import { proposeDraft } from './ngram-draft.ts';
import { planPrefill } from './plan-step.ts';
import type { PrefixCache } from './prefix-cache.ts';
import { Sampler, type SamplerHost } from './sampler.ts';
import {
  createSequence,
  type Ending,
  fail,
  finish,
  type GenerateSink,
  isReading,
  replayAnswered,
  type Sequence,
  takeToken,
} from './sequence.ts';
import { validateRequest } from './validate-request.ts';

export interface BatchLoopOptions {
  readonly host: SamplerHost;
  readonly kv: KvMemory;
  readonly cache: PrefixCache;
  readonly batch: DecodeBatch;
  readonly ubatch: number;
  readonly speculation: LoadSpec['speculation'];
  /** Asked where no n-gram is found. */
  readonly drafter: DraftSource | null;
  /** Hears of every token that is computed. */
  readonly mtp: MtpDraft | null;
  /** For messages. */
  readonly modelId: string;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  readonly faults?: EngineFaults | undefined;
}

const waitingMax = 1024;
/** llama_decode results after which the KV cache is as before the call (llama.h). */
const rolledBack: readonly number[] = [1, -1];

export class BatchLoop {
  readonly #options: BatchLoopOptions;
  readonly #planner: DraftPlanner;
  readonly #gaps = new GapCosts();
  #waiting: Sequence[] = [];
  /** In order of arrival. */
  #running: Sequence[] = [];
  #turn = 0;
  #isClosed = false;

  constructor(options: BatchLoopOptions) {
    this.#options = options;
    this.#planner = new DraftPlanner({ ...options, contextTokens: options.host.contextTokens });
  }

  get isIdle(): boolean {
    return this.#running.length === 0 && this.#waiting.length === 0;
  }

  /** Errors, thrown at once: `invalid_request`, `context_length_exceeded`, `overloaded`. */
  submit(params: GenerateParams, sink: GenerateSink): { cancel(): void } {
    const { host, kv, modelId, now, speculation } = this.#options;
    if (this.#isClosed) throw new AppError('model_not_loaded', `model "${modelId}" was unloaded`);
    if (this.#waiting.length >= waitingMax) {
      throw new AppError('overloaded', `model "${modelId}": ${waitingMax} requests wait already`);
    }
    const budget = validateRequest(params, {
      vocabSize: host.vocabulary.size,
      context: host.contextTokens,
    });
    const sampler = new Sampler(host, params);
    // A refused draft is taken back, which not every recurrent state allows.
    const isSpeculating = speculation !== 'off' && kv.takeBackMax > 0;
    const sequence = createSequence({ params, budget, sampler, sink, isSpeculating, now: now() });
    this.#waiting.push(sequence);
    return {
      cancel() {
        sequence.isCancelled = true;
      },
    };
  }

  /** One decode call over all sequences, or a few (chunk.ts); does nothing when there is no work. */
  step(): void {
    if (this.#isClosed) return;
    this.#dropCancelled();
    // Before anybody new may overwrite what a leader that has ended left in its slot.
    this.#follow();
    this.#admit();
    this.#closeRanks();
    const startedAt = this.#options.now();
    const chunks = this.#planChunks();
    if (chunks.length > 0) {
      const graphs = countGraphs(bySlot(chunks).map(slotOf));
      for (const call of this.#options.mtp === null ? [chunks] : toCalls(chunks)) this.#decode(call);
      this.#observe(chunks, graphs, this.#options.now() - startedAt);
    }
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
    const { cache, now } = this.#options;
    for (let sequence = this.#waiting[0]; sequence !== undefined; sequence = this.#waiting[0]) {
      const slot = cache.acquire(sequence);
      if (slot === null) return;
      this.#waiting.shift();
      sequence.slot = slot;
      sequence.startedAt = now();
      sequence.leader = cache.leaderFor(slot);
      this.#planner.expect(sequence, slot);
      this.#running.push(sequence);
      const ending = replayAnswered(sequence, this.#options.host.vocabulary);
      if (ending !== null) this.#finish(sequence, ending);
    }
  }

  /** Those who waited for another's prompt take over what it has, and go on or wait for the next. */
  #follow(): void {
    const { cache } = this.#options;
    for (const sequence of this.#running) {
      const { leader, slot } = sequence;
      if (leader === null || slot === null || cache.isLeading(leader)) continue;
      cache.extend(slot);
      sequence.leader = cache.leaderFor(slot);
    }
  }

  /** Moves sequences that stand apart once that has cost as much as the move will. */
  #closeRanks(): void {
    const { cache, drafter } = this.#options;
    const { worthMs } = this.#gaps;
    if (worthMs === null) return;
    const moves = cache.closeRanks(worthMs);
    if (moves === null) {
      this.#gaps.refused();
      return;
    }
    this.#gaps.clear();
    for (const { from, to } of moves) {
      const moved = this.#running.find(({ slot }) => slot === from);
      if (moved !== undefined) moved.slot = to;
      drafter?.moved?.(from, to);
      this.#planner.forget(from);
      this.#planner.forget(to);
    }
  }

  #planChunks(): Chunk[] {
    const decoding = this.#running.filter((sequence) => !isReading(sequence));
    const reading = this.#running.filter((sequence) => isReading(sequence) && sequence.leader === null);
    if (reading.length === 0) return this.#planDrafts(decoding);
    const chunks = decoding.map(
      (sequence): Chunk => ({ sequence, count: 1, drafts: noDrafts, first: 0, row: null }),
    );
    const shares = planPrefill({
      decoding: decoding.length,
      pending: reading.map((sequence) => untilCheckpoint(sequence)),
      ubatch: this.#options.ubatch,
      turn: this.#turn,
    });
    for (const [index, sequence] of reading.entries()) {
      const count = shares[index] ?? 0;
      if (count > 0) chunks.push({ sequence, count, drafts: noDrafts, first: 0, row: null });
    }
    return chunks;
  }

  /**
   * Drafts for a sequence that decodes alone. Beside others they do not pay: streams are split, so rows that
   * one sequence has more than another are a graph of their own, and a batch uses the weights well already.
   */
  #planDrafts(decoding: readonly Sequence[]): Chunk[] {
    return decoding.map((sequence): Chunk => {
      const drafts = decoding.length === 1 ? this.#planner.propose(sequence) : noDrafts;
      return { sequence, count: 1, drafts, first: 0, row: null };
    });
  }

  /** Learns what steps of this shape cost. */
  #observe(chunks: readonly Chunk[], graphs: number, ms: number): void {
    const tokens = chunks.reduce((sum, { count }) => sum + count, 0);
    if (graphs === 1 || tokens === chunks.length) this.#gaps.observe(graphs, ms);
    if (tokens > 2 * chunks.length) this.#options.cache.observeReading(tokens, ms);
    const [chunk] = chunks;
    if (tokens === 1 && chunk !== undefined) this.#planner.observe(chunk.drafts.length, ms);
  }

  #decode(chunks: readonly Chunk[]): void {
    const { host, batch } = this.#options;
    batch.clear();
    for (const chunk of bySlot(chunks)) this.#fill(batch, chunk);
    const fault = this.#options.faults?.onStep(this.#options.modelId) ?? null;
    const code = host.api.llama_decode(host.context, batch.struct);
    if (fault === 'nan' && code === 0) this.#spoil(chunks);
    if (code === 0) {
      for (const chunk of chunks) this.#tellMtp(chunk);
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
    const { tokens, promptLength, cells, slot } = chunk.sequence;
    // Ended meanwhile: a sink that closed the loop while the chunks were decoded one by one.
    if (slot === null) return;
    chunk.first = batch.size;
    for (let position = cells; position < cells + chunk.count; position++) {
      const isLast = position >= promptLength - 1;
      const row = batch.add(tokens.at(position), position, slot, isLast);
      if (isLast) chunk.row = row;
    }
    for (const [index, draft] of chunk.drafts.entries()) {
      batch.add(draft, cells + chunk.count + index, slot, true);
    }
  }

  /** Hidden states are there until the next decode call, and of drafts until they are refused. */
  #tellMtp({ sequence, count, drafts, first }: Chunk): void {
    const { slot, tokens, cells } = sequence;
    if (this.#options.mtp === null || slot === null) return;
    const all = new Int32Array(count + drafts.length);
    all.set(tokens.view.subarray(cells, cells + count));
    all.set(drafts, count);
    this.#options.mtp.take({ slot, start: cells, tokens: all, row: first });
  }

  /** The tokens of a chunk are in the KV cache: samples where there is an output. */
  #advance({ sequence, count, drafts, row }: Chunk): void {
    if (sequence.isEnded) return;
    try {
      if (isReading(sequence)) this.#advanceReading(sequence, count);
      else sequence.cells += count;
      if (row === null) return;
      if (sequence.budget.tokens === 0) {
        this.#finish(sequence, { reason: 'length', stopText: null });
        return;
      }
      const ending = this.#sample(sequence, drafts, row);
      if (ending !== null) this.#finish(sequence, ending);
    } catch (error) {
      // Of this request alone: logits that are no numbers, a grammar at its end, a sink that throws.
      this.#fail(sequence, error);
    }
  }

  #advanceReading(sequence: Sequence, count: number): void {
    sequence.cells += count;
    sequence.promptComputed += count;
    if (!isReading(sequence)) sequence.prefilledAt = this.#options.now();
    if (sequence.checkpoints.includes(sequence.cells) && sequence.slot !== null) {
      this.#options.cache.checkpoint(sequence.slot);
    }
  }

  /** Takes the token after `row`, and goes on through the drafts as long as each is what was chosen. */
  #sample(sequence: Sequence, drafts: Int32Array, row: number): Ending | null {
    const { host, kv, modelId } = this.#options;
    const watched = drafts.length === 0 && sequence.drafts !== null ? this.#guess(sequence) : undefined;
    const { length } = sequence.tokens;
    const cellsEnd = sequence.cells + drafts.length;
    let ending: Ending | null = null;
    let accepted = 0;
    for (let at = row; ending === null; at++) {
      const token = sequence.sampler.sample(at);
      ending = takeToken(sequence, token, host.vocabulary, () =>
        host.logits.rowAt(host.logits.addressOf(at)),
      );
      if (accepted === drafts.length || token !== drafts[accepted]) break;
      accepted++;
      if (ending === null) sequence.cells++;
    }
    if (drafts.length > 0) sequence.drafts?.observe(drafts.length, accepted, ending !== null);
    else if (watched !== undefined && sequence.tokens.length > length) {
      sequence.drafts?.watch(sequence.tokens.at(length) === watched);
    }
    const { cells, slot } = sequence;
    if (cells < cellsEnd && slot !== null && !kv.takeBack(slot, cells)) {
      throw new AppError(
        'job_failed',
        `model "${modelId}": refused drafts could not be taken back; try again`,
      );
    }
    return ending;
  }

  /** What would be drafted next, for comparison only; not asked of a draft source, whose guesses cost. */
  #guess({ tokens }: Sequence): number | undefined {
    return this.#running.length === 1 ? proposeDraft(tokens.view, 1)[0] : undefined;
  }

  #finish(sequence: Sequence, ending: Ending): void {
    if (this.#release(sequence, true)) finish(sequence, ending, this.#options.now());
  }

  #fail(sequence: Sequence, error: unknown): void {
    if (this.#release(sequence, false)) fail(sequence, error);
  }

  /** Gives back what the sequence holds; false when that was done before. */
  #release(sequence: Sequence, isIntact: boolean): boolean {
    if (sequence.isEnded) return false;
    sequence.isEnded = true;
    sequence.sampler.close();
    if (sequence.slot === null) {
      this.#waiting = this.#waiting.filter((other) => other !== sequence);
      return true;
    }
    this.#running = this.#running.filter((other) => other !== sequence);
    this.#options.cache.release(sequence.slot, isIntact);
    this.#planner.remember(sequence, sequence.slot);
    sequence.slot = null;
    return true;
  }
}

/**
 * Prompt tokens up to the next point at which the state is to be saved, or to the prompt's end. With a seed
 * the last token is read by itself, as it is when all before it is cached: flash attention computes one row
 * otherwise than many, and the same request again has to give the same text.
 */
function untilCheckpoint({ cells, promptLength, checkpoints, params }: Sequence): number {
  const last = promptLength - 1;
  const isApart = typeof params.sampling.seed === 'number' && cells < last;
  let end = isApart ? last : promptLength;
  for (const at of checkpoints) if (at > cells && at < end) end = at;
  return end - cells;
}
