/**
 * POST /v1/chat/completions and /v1/completions.
 *
 * In this order, each step with its own refusals: shape, unsupported fields, model, template, tokens,
 * context, admission, and only then a byte of the answer. Streamed and whole answers come from the same
 * state.
 */
import { randomUUID } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError, toAppError } from 'cortex-core/wire/errors';
import type { GenerateParams, GenerateResult, StepEvent, TokenLogprob } from 'cortex-core/wire/inference';
import {
  type ChatRequest,
  type ChatTimings,
  type CompletionRequest,
  chatRequestSchema,
  completionRequestSchema,
  parseBody,
  type SamplingFields,
} from 'cortex-core/wire/openai';
import type { Permit } from '../admission/admission.ts';
import {
  type AnswerIdentity,
  ChatAnswer,
  toFinishReason,
  toTextCompletion,
  toUsage,
} from '../chat/answer.ts';
import { toTemplateMessages, toTemplateTools } from '../chat/messages.ts';
import {
  refuseUnsupportedChat,
  refuseUnsupportedCompletion,
  toChatParams,
  toCompletionParams,
} from '../chat/sampling.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { ApiDeps } from './api-deps.ts';
import { contextExceeded, refuseOversized } from './prompt-size.ts';
import { SseStream } from './sse-stream.ts';

/** How one endpoint shows an answer; `step` and `finish` are called in order, `whole` after `finish`. */
interface Presenter {
  begin(): readonly unknown[];
  step(event: StepEvent): readonly unknown[];
  finish(result: GenerateResult): readonly unknown[];
  usage(result: GenerateResult, timings: ChatTimings): unknown;
  whole(result: GenerateResult, timings: ChatTimings): unknown;
}

interface Job {
  readonly request: SamplingFields;
  readonly model: ServingModel;
  readonly params: GenerateParams;
  readonly presenter: Presenter;
}

export async function serveChat(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(chatRequestSchema, await exchange.json());
  refuseUnsupportedChat(request);
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  const tokens = await onModel(deps, model, () => tokenizeChat(request, model, exchange.signal));
  const params = limited(toChatParams(request, tokens, model.facts.metadata), 'messages', model, deps);
  const withTools = (request.tools?.length ?? 0) > 0 && request.tool_choice !== 'none';
  const answer = new ChatAnswer(identity('chatcmpl', request.model, deps), { parseToolCalls: withTools });
  const presenter: Presenter = {
    begin: () => [answer.begin()],
    step: (event) => answer.step(event),
    finish: (result) => answer.finish(result),
    usage: (result, timings) => answer.usageChunk(result, timings),
    whole: (result, timings) => answer.whole(result, timings),
  };
  await run(deps, exchange, { request, model, params, presenter });
}

export async function serveCompletion(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(completionRequestSchema, await exchange.json());
  refuseUnsupportedCompletion(request);
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  const tokens = await onModel(deps, model, () => tokenizePrompt(request, model, exchange.signal));
  const params = limited(toCompletionParams(request, tokens, model.facts.metadata), 'prompt', model, deps);
  const presenter = presentText(identity('cmpl', request.model, deps));
  await run(deps, exchange, { request, model, params, presenter });
}

/** The prompt's tokens as the model's template makes them; also what POST /tokenize shows. */
export async function tokenizeChat(
  request: Pick<ChatRequest, 'messages' | 'tools' | 'tool_choice' | 'chat_template_kwargs'> & {
    readonly add_generation_prompt?: boolean | undefined;
    readonly reasoning_effort?: string | undefined;
  },
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array> {
  const effort = request.reasoning_effort;
  const text = await model.template.render({
    messages: toTemplateMessages(request.messages, model.id),
    tools: request.tool_choice === 'none' ? undefined : toTemplateTools(request.tools),
    addGenerationPrompt: request.add_generation_prompt ?? true,
    kwargs: {
      ...(effort === undefined ? {} : { reasoning_effort: effort }),
      ...request.chat_template_kwargs,
    },
  });
  refuseOversized(text, 'messages', model.facts);
  return model.device.tokenize(model.handle, text, { addSpecial: true, parseSpecial: true }, signal);
}

async function tokenizePrompt(
  request: CompletionRequest,
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array> {
  const { prompt } = request;
  const single = Array.isArray(prompt) && (typeof prompt[0] === 'string' || Array.isArray(prompt[0]));
  if (single && prompt.length > 1) {
    throw new AppError('unsupported_parameter', '"prompt" may hold one prompt; send several requests', {
      param: 'prompt',
    });
  }
  const one = single ? prompt[0] : prompt;
  if (typeof one !== 'string') return checkPromptTokens(one as readonly number[], model);
  refuseOversized(one, 'prompt', model.facts);
  return model.device.tokenize(model.handle, one, { addSpecial: true, parseSpecial: true }, signal);
}

/** Before they become 32-bit numbers, where 2^32 + 5 would pass for 5. */
function checkPromptTokens(tokens: readonly number[], { facts }: ServingModel): Int32Array {
  const wrong = tokens.find((token) => token < 0 || token >= facts.vocabSize);
  if (wrong === undefined) return Int32Array.from(tokens);
  const message = `token ${wrong} is not in the vocabulary of ${facts.vocabSize}`;
  throw new AppError('invalid_request', message, { param: 'prompt' });
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

/** Checks the context before anything is queued, and bounds an answer that names no bound. */
function limited(
  params: GenerateParams,
  param: 'messages' | 'prompt',
  model: ServingModel,
  deps: ApiDeps,
): GenerateParams {
  const { context } = model.facts;
  const count = params.tokens.length;
  if (count === 0) {
    throw new AppError('invalid_request', 'the prompt is empty; send at least one token', { param });
  }
  if (count >= context) throw contextExceeded(context, count, param);
  return { ...params, maxTokens: params.maxTokens ?? deps.config.admission.max_tokens };
}

async function run(deps: ApiDeps, exchange: Exchange, job: Job): Promise<void> {
  const principal = exchange.header('x-cortex-account-id');
  const permit = await job.model.admission.acquire(principal, exchange.signal);
  try {
    // The owner may have died while this request stood in the queue: the handle is read again.
    const model = deps.registry.serving(job.model.id);
    if (job.request.stream === true) await runStreamed(deps, exchange, { ...job, model }, permit);
    else await runWhole(deps, exchange, { ...job, model }, permit);
  } finally {
    permit.release();
  }
}

async function runWhole(deps: ApiDeps, exchange: Exchange, job: Job, permit: Permit): Promise<void> {
  const { presenter } = job;
  const result = await generate(deps, exchange, job, (event) => void presenter.step(event));
  presenter.finish(result);
  exchange.sendJson(200, presenter.whole(result, toTimings(result, permit)));
}

async function runStreamed(deps: ApiDeps, exchange: Exchange, job: Job, permit: Permit): Promise<void> {
  const { presenter, request } = job;
  const stream = new SseStream(exchange, deps.clock);
  const sendAll = (chunks: readonly unknown[]): void => {
    for (const chunk of chunks) stream.send(chunk);
  };
  let begun = false;
  const begin = (): void => {
    if (!begun) sendAll(presenter.begin());
    begun = true;
  };
  try {
    const result = await generate(deps, exchange, job, (event) => {
      begin();
      sendAll(presenter.step(event));
    });
    begin();
    sendAll(presenter.finish(result));
    if (request.stream_options?.include_usage === true || exchange.header('x-cortex-include-usage') === '1') {
      stream.send(presenter.usage(result, toTimings(result, permit)));
    }
    stream.end();
  } catch (thrown) {
    if (!stream.isOpen && !begun) throw thrown;
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

/** Runs until the end, the client's leaving or the model's removal; the latter two reject. */
async function generate(
  deps: ApiDeps,
  exchange: Exchange,
  { model, params }: Job,
  onStep: (event: StepEvent) => void,
): Promise<GenerateResult> {
  const startedMs = deps.clock.monotonicMs();
  const signal = AbortSignal.any([exchange.signal, model.cut]);
  let firstTokenMs: number | null = null;
  let finished: GenerateResult | null = null;
  try {
    const result = await model.device.generate(
      model.handle,
      params,
      (event) => {
        firstTokenMs ??= deps.clock.monotonicMs() - startedMs;
        if (!signal.aborted) onStep(event);
      },
      signal,
    );
    finished = result;
    if (result.finishReason === 'cancelled') {
      throw signal.aborted ? signal.reason : new AppError('job_failed', 'the generation was cancelled');
    }
    model.observe(result);
    return result;
  } finally {
    const durationMs = deps.clock.monotonicMs() - startedMs;
    deps.metrics.record({ model: model.id, result: finished, durationMs, firstTokenMs });
  }
}

function presentText(who: AnswerIdentity): Presenter {
  let text = '';
  const logprobs: TokenLogprob[] = [];
  let withLogprobs = false;
  return {
    begin: () => [],
    step: (event) => {
      text += event.text;
      if (event.logprobs !== undefined) {
        withLogprobs = true;
        logprobs.push(...event.logprobs);
      }
      if (event.text === '' && event.logprobs === undefined) return [];
      return [toTextCompletion(who, event.text, null, event.logprobs)];
    },
    finish: (result) => [toTextCompletion(who, '', toFinishReason(result.finishReason), undefined)],
    usage: (result, timings) => ({
      ...toTextCompletion(who, '', null, undefined),
      choices: [],
      usage: toUsage(result),
      timings,
    }),
    whole: (result, timings) => ({
      ...toTextCompletion(
        who,
        text,
        toFinishReason(result.finishReason),
        withLogprobs ? logprobs : undefined,
      ),
      usage: toUsage(result),
      timings,
    }),
  };
}

function toTimings({ timings }: GenerateResult, permit: Permit): ChatTimings {
  const round = (ms: number): number => Math.round(ms * 10) / 10;
  return {
    queue_ms: round(permit.queueMs + timings.queueMs),
    prefill_ms: round(timings.prefillMs),
    decode_ms: round(timings.decodeMs),
  };
}

function identity(prefix: string, model: string, deps: ApiDeps): AnswerIdentity {
  const id = `${prefix}-${randomUUID().replaceAll('-', '')}`;
  return { id, created: Math.floor(deps.clock.now() / 1000), model };
}
