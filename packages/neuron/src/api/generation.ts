/**
 * Runs the generations of one request and shows them as they come or when all are done.
 *
 * Several choices (`n`, several prompts) are several generations. One after the other runs under the
 * request's own permit; beside it, up to the model's slots, each has a permit for itself, in line with
 * everybody else's requests (side-by-side.ts). The first that fails stops the others. Streamed and whole
 * answers come from the same state.
 */
import { randomUUID } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError, toAppError } from 'cortex-core/wire/errors';
import type { GenerateParams, GenerateResult, StepEvent } from 'cortex-core/wire/inference';
import type { ChatTimings, SamplingFields } from 'cortex-core/wire/openai';
import type { Permit } from '../admission/admission.ts';
import type { AnswerIdentity } from '../chat/answer.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { ApiDeps } from './api-deps.ts';
import { tellsTokens } from './continuation.ts';
import { contextExceeded } from './prompt-size.ts';
import { runSideBySide } from './side-by-side.ts';
import { SseStream } from './sse-stream.ts';

/**
 * How one endpoint shows an answer. `at` counts the request's generations; per generation `step` and
 * `finish` are called in order, `usage` and `whole` after all have finished.
 */
export interface Presenter {
  /** `cachedTokens`: of the prompt, as its first step says. */
  begin(at: number, cachedTokens: number): readonly unknown[];
  step(at: number, event: StepEvent): readonly unknown[];
  /** What follows will not be part of the answer: the generation may end. */
  isOver?(at: number): boolean;
  finish(at: number, result: GenerateResult): readonly unknown[];
  usage(results: readonly GenerateResult[], timings: ChatTimings): unknown;
  whole(results: readonly GenerateResult[], timings: ChatTimings): unknown;
}

export interface Job {
  readonly request: SamplingFields;
  readonly model: ServingModel;
  readonly generations: readonly GenerateParams[];
  readonly presenter: Presenter;
}

/** As OpenAI: choices of one request, over all its prompts. */
const choicesMax = 128;

export function checkChoices(count: number, param: string): void {
  if (count <= choicesMax) return;
  throw new AppError(
    'invalid_request',
    `"${param}" asks for ${count} answers; at most ${choicesMax} at once`,
    {
      param,
    },
  );
}

/**
 * `n` generations of one prompt. A given seed seeds the first; the others follow from it, so that the whole
 * answer is repeatable and no two choices are the same draw.
 */
export function repeatParams(params: GenerateParams, n: number): GenerateParams[] {
  const { seed } = params.sampling;
  return Array.from({ length: n }, (_, at) => {
    if (at === 0 || seed === undefined) return params;
    const other = (seed + at * 0x9e3779b1) % 0x1_0000_0000; // any odd step will do
    return { ...params, sampling: { ...params.sampling, seed: other < 0 ? other + 0x1_0000_0000 : other } };
  });
}

/**
 * What runs without a permit may find its model unloaded meanwhile: then the client gets the registry's
 * sentence about that instead of the device's about a handle.
 */
export async function onModel<T>(deps: ApiDeps, model: ServingModel, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (thrown) {
    if (toAppError(thrown).code === 'job_failed') deps.registry.serving(model.id);
    throw thrown;
  }
}

/**
 * How often a request names its model again: it counts as used for ten seconds after one named it, or until
 * another one has ended (models/model-use.ts).
 */
const renewMs = 1000;

/** As `onModel`, for what a request reads before it asks for a permit: however long, the model is in use. */
export async function readOnModel<T>(deps: ApiDeps, model: ServingModel, read: () => Promise<T>): Promise<T> {
  const renew = (): void => {
    deps.registry.stillAsked(model.id);
    timer = deps.clock.setTimer(renewMs, renew);
  };
  let timer = deps.clock.setTimer(renewMs, renew);
  try {
    return await onModel(deps, model, read);
  } finally {
    timer.cancel();
  }
}

/** Checks the context before anything is queued, and bounds an answer that names no bound. */
export function limited(
  params: GenerateParams,
  param: string,
  model: ServingModel,
  deps: ApiDeps,
): GenerateParams {
  checkContext(params.tokens.length, param, model);
  return { ...params, maxTokens: params.maxTokens ?? deps.config.admission.max_tokens };
}

/** As `checkContext`, for an input that may fill the context: nothing is generated behind it. */
export function checkInput(count: number, param: string, model: ServingModel): void {
  if (count !== model.facts.context) checkContext(count, param, model);
}

function checkContext(count: number, param: string, model: ServingModel): void {
  const { context } = model.facts;
  if (count === 0) {
    throw new AppError('invalid_request', 'the prompt is empty; send at least one token', { param });
  }
  if (count >= context) throw contextExceeded(context, count, param);
}

/** A model that makes vectors or scores has no text to give. */
export function assertGenerates(model: Pick<ServingModel, 'id' | 'capabilities'>): void {
  const { capabilities } = model;
  if (capabilities.includes('text')) return;
  const endpoint = capabilities.includes('rerank') ? '/v1/rerank' : '/v1/embeddings';
  throw new AppError('wrong_modality', `model "${model.id}" generates no text; use ${endpoint}`, {
    param: 'model',
    extras: { model_id: model.id, suggestion: endpoint },
  });
}

export async function runJob(deps: ApiDeps, exchange: Exchange, job: Job): Promise<void> {
  await withPermit(deps, exchange, job.model, async (model, permit) => {
    if (job.request.stream === true) await runStreamed(deps, exchange, { ...job, model }, permit);
    else await runWhole(deps, exchange, { ...job, model }, permit);
  });
}

export async function withPermit(
  deps: ApiDeps,
  exchange: Exchange,
  { id, admission }: ServingModel,
  run: (model: ServingModel, permit: Permit) => Promise<void>,
): Promise<void> {
  const permit = await admission.acquire(exchange.header('x-cortex-account-id'), exchange.signal);
  try {
    // The owner may have died, or the model moved, while this request stood in the queue.
    await run(await deps.registry.whenAdmitted(id, exchange.signal), permit);
  } finally {
    permit.release();
  }
}

async function runWhole(deps: ApiDeps, exchange: Exchange, job: Job, permit: Permit): Promise<void> {
  const { presenter } = job;
  const results = await generateAll(deps, exchange, job, {
    isOver: (at) => presenter.isOver?.(at) === true,
    onStep: (at, event) => void presenter.step(at, event),
    onEnd: (at, result) => void presenter.finish(at, result),
  });
  exchange.sendJson(200, presenter.whole(results, toTimings(results, permit)));
}

async function runStreamed(deps: ApiDeps, exchange: Exchange, job: Job, permit: Permit): Promise<void> {
  const { presenter, request, generations } = job;
  // the client has its beginning already
  const isContinued = generations[0]?.answered !== undefined;
  const isFramed = generations.length === 1 && tellsTokens(exchange);
  const stream = new SseStream(exchange, deps.clock, isFramed);
  const begun = new Set<number>();
  const begin = (at: number, cachedTokens: number): readonly unknown[] => {
    if (begun.has(at)) return [];
    begun.add(at);
    return isContinued ? [] : presenter.begin(at, cachedTokens);
  };
  /** The ends of a framed answer, which leave together. */
  const last: unknown[] = [];
  try {
    const results = await generateAll(deps, exchange, job, {
      isOver: (at) => presenter.isOver?.(at) === true,
      onStep: (at, event) => {
        const chunks = presenter.step(at, event);
        if (event.replayed !== undefined) return;
        stream.sendStep([...begin(at, event.cachedTokens ?? 0), ...chunks], event.tokens);
      },
      onEnd: (at, result) => {
        const chunks = [...begin(at, result.usage.cachedTokens), ...presenter.finish(at, result)];
        if (isFramed) last.push(...chunks);
        else stream.sendStep(chunks, []);
      },
    });
    if (request.stream_options?.include_usage === true || exchange.header('x-cortex-include-usage') === '1') {
      last.push(presenter.usage(results, toTimings(results, permit)));
    }
    stream.end(last);
  } catch (thrown) {
    if (!stream.isOpen && begun.size === 0) throw thrown;
    const error = toAppError(thrown);
    if (!exchange.signal.aborted) {
      deps.log.error(error.message, {
        request_id: exchange.requestId,
        code: error.code,
        model: job.model.id,
      });
    }
    stream.fail(error);
  } finally {
    stream.close();
  }
}

interface Listener {
  readonly isOver: (at: number) => boolean;
  readonly onStep: (at: number, event: StepEvent) => void;
  readonly onEnd: (at: number, result: GenerateResult) => void;
}

/** Runs until the end, the client's leaving or the model's removal; the latter two reject. */
async function generateAll(
  deps: ApiDeps,
  exchange: Exchange,
  { model, generations }: Job,
  listener: Listener,
): Promise<readonly GenerateResult[]> {
  const stop = new AbortController();
  const signal = AbortSignal.any([exchange.signal, model.cut, stop.signal]);
  const results: GenerateResult[] = [];
  const run = async (at: number): Promise<void> => {
    try {
      const params = generations[at] as GenerateParams;
      const result = await generateOne(deps, model, params, signal, (event) => {
        listener.onStep(at, event);
        return listener.isOver(at);
      });
      results[at] = result;
      listener.onEnd(at, result);
    } catch (thrown) {
      stop.abort(thrown);
      throw thrown;
    }
  };
  const principal = exchange.header('x-cortex-account-id');
  await runSideBySide({
    count: generations.length,
    lanes: model.facts.slots,
    acquire: (patience) => model.admission.acquire(principal, patience),
    run,
    signal,
  });
  return results;
}

/** `onStep` returns whether the answer is complete: then the generation ends as if the model had stopped. */
async function generateOne(
  deps: ApiDeps,
  model: ServingModel,
  params: GenerateParams,
  signal: AbortSignal,
  onStep: (event: StepEvent) => boolean,
): Promise<GenerateResult> {
  const enough = new AbortController();
  const startedMs = deps.clock.monotonicMs();
  let firstTokenMs: number | null = null;
  let finished: GenerateResult | null = null;
  try {
    const result = await model.device.generate(
      model.handle,
      params,
      (event) => {
        if (event.replayed === undefined) firstTokenMs ??= deps.clock.monotonicMs() - startedMs;
        if (!signal.aborted && !enough.signal.aborted && onStep(event)) enough.abort();
      },
      AbortSignal.any([signal, enough.signal]),
    );
    const isEnough = enough.signal.aborted && !signal.aborted && result.finishReason === 'cancelled';
    finished = isEnough ? { ...result, finishReason: 'stop' } : result;
    if (finished.finishReason === 'cancelled') {
      throw signal.aborted ? signal.reason : new AppError('job_failed', 'the generation was cancelled');
    }
    // An answer that goes on says nothing of how fast a whole one is.
    if (params.answered === undefined) model.observe(finished);
    return finished;
  } finally {
    const durationMs = deps.clock.monotonicMs() - startedMs;
    const answered = params.answered?.length ?? 0;
    deps.metrics.record({ model: model.id, result: finished, answered, durationMs, firstTokenMs });
  }
}

/** Of generations side by side: the longest of each phase, and all drafts. */
function toTimings(results: readonly GenerateResult[], permit: Permit): ChatTimings {
  const longest = (of: (timings: GenerateResult['timings']) => number): number => {
    return Math.round(Math.max(0, ...results.map(({ timings }) => of(timings))) * 10) / 10;
  };
  return {
    queue_ms: longest((timings) => permit.queueMs + timings.queueMs),
    prefill_ms: longest((timings) => timings.prefillMs),
    decode_ms: longest((timings) => timings.decodeMs),
    ...toDrafts(results),
  };
}

function toDrafts(results: readonly GenerateResult[]): Pick<ChatTimings, 'draft_n' | 'draft_n_accepted'> {
  const drafts = results.flatMap(({ speculation }) => speculation ?? []);
  if (drafts.length === 0) return {};
  return {
    draft_n: drafts.reduce((sum, { drafted }) => sum + drafted, 0),
    draft_n_accepted: drafts.reduce((sum, { accepted }) => sum + accepted, 0),
  };
}

export function newIdentity(prefix: string, model: string, deps: ApiDeps): AnswerIdentity {
  const id = `${prefix}-${randomUUID().replaceAll('-', '')}`;
  return { id, created: Math.floor(deps.clock.now() / 1000), model };
}
