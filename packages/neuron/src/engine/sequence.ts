/** One request inside the engine: its state, and what leaves it. */
import { type AppError, toAppError } from 'cortex-core/wire/errors';
import type {
  FinishReason,
  GenerateParams,
  GenerateResult,
  StepEvent,
  TokenLogprob,
} from 'cortex-core/wire/inference';
import { DraftPolicy } from './draft-policy.ts';
import { rowLogprobs } from './logprobs.ts';
import type { Leader, SlotUse } from './prefix-cache.ts';
import type { Sampler } from './sampler.ts';
import { createTextStream, type TextStream } from './text-stream.ts';
import { TokenList } from './token-list.ts';
import type { TokenBudget } from './validate-request.ts';
import type { Vocabulary } from './vocabulary.ts';

/** Called from inside `step()` (or `submit`, `close`), never later than the end of the request. */
export interface GenerateSink {
  readonly onStep: (event: StepEvent) => void;
  readonly onDone: (result: GenerateResult) => void;
  readonly onError: (error: AppError) => void;
}

export interface Sequence extends SlotUse {
  readonly params: GenerateParams;
  readonly budget: TokenBudget;
  readonly sampler: Sampler;
  readonly sink: GenerateSink;
  readonly text: TextStream;
  /** Null = no speculation. */
  readonly drafts: DraftPolicy | null;
  /** KV stream it runs in; null while it waits. */
  slot: number | null;
  /** Another sequence that is reading the same beginning; null = goes on by itself. */
  leader: Leader | null;
  /** Prompt tokens that were computed for this sequence; the others were there. */
  promptComputed: number;
  /** Tokens chosen so far, the end-of-generation token not counted. */
  completion: number;
  isCancelled: boolean;
  isEnded: boolean;
  readonly submittedAt: number;
  startedAt: number | null;
  prefilledAt: number | null;
}

export interface SequenceParts {
  readonly params: GenerateParams;
  readonly budget: TokenBudget;
  readonly sampler: Sampler;
  readonly sink: GenerateSink;
  readonly isSpeculating: boolean;
  /** Milliseconds, monotonic. */
  readonly now: number;
}

/** Answers longer than this make their token list grow. */
const answerSpare = 256;

export function createSequence({
  params,
  budget,
  sampler,
  sink,
  isSpeculating,
  now,
}: SequenceParts): Sequence {
  return {
    params,
    budget,
    sampler,
    sink,
    text: createTextStream(params.stops),
    drafts: isSpeculating ? new DraftPolicy() : null,
    tokens: new TokenList(params.tokens, Math.min(budget.tokens, answerSpare)),
    promptLength: params.tokens.length,
    cells: 0,
    checkpoints: [],
    slot: null,
    leader: null,
    promptComputed: 0,
    completion: 0,
    isCancelled: false,
    isEnded: false,
    submittedAt: now,
    startedAt: null,
    prefilledAt: null,
  };
}

/** Whether its prompt is not yet computed. */
export function isReading(sequence: Sequence): boolean {
  return sequence.cells < sequence.promptLength;
}

export interface Ending {
  readonly reason: FinishReason;
  readonly stopText: string | null;
}

/** Takes a chosen token in: emits its text, and says whether the answer ends with it. */
export function takeToken(
  sequence: Sequence,
  token: number,
  vocabulary: Vocabulary,
  row: () => Float32Array,
): Ending | null {
  const { params, budget, sink, text } = sequence;
  if (vocabulary.isEog(token)) {
    emitRest(sequence);
    return { reason: 'stop', stopText: null };
  }
  sequence.completion++;
  sequence.tokens.push(token);
  const pushed = text.push(vocabulary.pieceOf(token));
  const isLast = pushed.stop === null && sequence.completion >= budget.tokens;
  const shown = isLast ? pushed.text + text.flush() : pushed.text;
  const event: StepEvent = {
    text: shown,
    tokens: [token],
    ...(sequence.completion === 1 ? { cachedTokens: cachedOf(sequence) } : {}),
  };
  sink.onStep(
    params.topLogprobs === null
      ? event
      : { ...event, logprobs: [tokenLogprob(row(), token, params.topLogprobs, vocabulary)] },
  );
  if (pushed.stop !== null) return { reason: 'stop', stopText: pushed.stop };
  if (!isLast) return null;
  return { reason: budget.isContextBound ? 'context_full' : 'length', stopText: null };
}

/** Shows what was held back; a cancelled answer has no reader and gets none. */
function emitRest(sequence: Sequence): void {
  const rest = sequence.text.flush();
  if (rest !== '') sequence.sink.onStep({ text: rest, tokens: [] });
}

export function finish(sequence: Sequence, ending: Ending, now: number): void {
  const { promptLength, completion, submittedAt, drafts } = sequence;
  const startedAt = sequence.startedAt ?? now;
  const prefilledAt = sequence.prefilledAt ?? now;
  sequence.sink.onDone({
    finishReason: ending.reason,
    stopText: ending.stopText,
    usage: { promptTokens: promptLength, cachedTokens: cachedOf(sequence), completionTokens: completion },
    timings: {
      queueMs: startedAt - submittedAt,
      prefillMs: prefilledAt - startedAt,
      decodeMs: now - prefilledAt,
    },
    ...(drafts === null || drafts.drafted === 0
      ? {}
      : { speculation: { drafted: drafts.drafted, accepted: drafts.accepted } }),
  });
}

/** Of a prompt that was not read to its end only what was found counts as cached. */
function cachedOf({ cells, promptLength, promptComputed }: Sequence): number {
  return Math.max(0, Math.min(cells, promptLength) - promptComputed);
}

export function fail(sequence: Sequence, error: unknown): void {
  sequence.sink.onError(toAppError(error));
}

function tokenLogprob(
  row: Float32Array,
  token: number,
  topCount: number,
  vocabulary: Vocabulary,
): TokenLogprob {
  const describe = (id: number, logprob: number): Omit<TokenLogprob, 'top'> => {
    const { bytes } = vocabulary.pieceOf(id);
    return { token: id, text: new TextDecoder().decode(bytes), bytes: [...bytes], logprob };
  };
  const { logprob, top } = rowLogprobs(row, token, topCount);
  return {
    ...describe(token, logprob),
    top: top.map((entry) => describe(entry.token, entry.logprob)),
  };
}
