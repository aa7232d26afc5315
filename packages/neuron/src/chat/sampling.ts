/** OpenAI's sampling fields -> the engine's; refuses what would otherwise be ignored in silence. */
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams, SamplingParams } from 'cortex-core/wire/inference';
import type { ChatRequest, CompletionRequest, SamplingFields } from 'cortex-core/wire/openai';

/** Used where neither the request nor the model's own metadata says anything. */
const temperatureDefault = 0.7;

function toSamplingParams(
  request: SamplingFields,
  metadata: Readonly<Record<string, string>>,
): SamplingParams {
  return {
    temperature: request.temperature ?? metadataNumber(metadata, 'temp') ?? temperatureDefault,
    topK: request.top_k ?? metadataNumber(metadata, 'top_k'),
    topP: request.top_p ?? metadataNumber(metadata, 'top_p'),
    minP: request.min_p ?? metadataNumber(metadata, 'min_p'),
    typicalP: request.typical_p,
    topNSigma: request.top_n_sigma,
    xtcProbability: request.xtc_probability ?? metadataNumber(metadata, 'xtc_probability'),
    xtcThreshold: request.xtc_threshold ?? metadataNumber(metadata, 'xtc_threshold'),
    repeatPenalty:
      request.repeat_penalty ?? request.repetition_penalty ?? metadataNumber(metadata, 'penalty_repeat'),
    repeatLastN: request.repeat_last_n ?? metadataNumber(metadata, 'penalty_last_n'),
    frequencyPenalty: request.frequency_penalty,
    presencePenalty: request.presence_penalty,
    dryMultiplier: request.dry_multiplier,
    dryBase: request.dry_base,
    dryAllowedLength: request.dry_allowed_length,
    dryPenaltyLastN: request.dry_penalty_last_n,
    drySequenceBreakers: request.dry_sequence_breakers,
    logitBias: toLogitBias(request.logit_bias),
    seed: request.seed,
  };
}

export function toChatParams(
  request: ChatRequest,
  tokens: Int32Array,
  metadata: Readonly<Record<string, string>>,
): GenerateParams {
  return {
    tokens,
    sampling: toSamplingParams(request, metadata),
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? null,
    stops: toStops(request.stop),
    grammar: request.grammar === undefined ? null : { gbnf: request.grammar },
    topLogprobs: request.logprobs === true ? (request.top_logprobs ?? 0) : null,
    ignoreEos: request.ignore_eos ?? false,
  };
}

/** OpenAI's default of 16 tokens holds for raw completions. */
export function toCompletionParams(
  request: CompletionRequest,
  tokens: Int32Array,
  metadata: Readonly<Record<string, string>>,
): GenerateParams {
  return {
    tokens,
    sampling: toSamplingParams(request, metadata),
    maxTokens: request.max_tokens ?? 16,
    stops: toStops(request.stop),
    grammar: request.grammar === undefined ? null : { gbnf: request.grammar },
    topLogprobs: request.logprobs ?? null,
    ignoreEos: request.ignore_eos ?? false,
  };
}

/** Throws `unsupported_parameter` for a field whose effect a client would wait for in vain. */
export function refuseUnsupportedChat(request: ChatRequest): void {
  refuseShared(request);
  const format = request.response_format?.type;
  if (format !== undefined && format !== 'text') {
    refuse(
      'response_format',
      `of type "${format.slice(0, 40)}" is not supported; leave it out or use "text"`,
    );
  }
  if (request.modalities?.some((kind) => kind !== 'text')) refuse('modalities', 'may only be ["text"]');
  if ((request.functions?.length ?? 0) > 0) refuse('functions', 'is the old form; use "tools"');
  const choice = request.tool_choice;
  if (choice !== undefined && choice !== 'auto' && choice !== 'none') {
    refuse('tool_choice', 'may be "auto" or "none"; forcing a call is not supported');
  }
  if (request.top_logprobs !== undefined && request.logprobs !== true) {
    refuse('top_logprobs', 'needs "logprobs": true');
  }
}

export function refuseUnsupportedCompletion(request: CompletionRequest): void {
  refuseShared(request);
  if ((request.best_of ?? 1) > 1) refuse('best_of', 'may only be 1');
  if (request.echo === true) refuse('echo', 'is not supported');
  if (request.suffix !== undefined && request.suffix !== '') refuse('suffix', 'is not supported');
}

function refuseShared(request: SamplingFields): void {
  if ((request.n ?? 1) > 1) refuse('n', 'may only be 1; send several requests');
}

function refuse(param: string, why: string): never {
  throw new AppError('unsupported_parameter', `"${param}" ${why}`, { param });
}

function toStops(stop: string | readonly string[] | undefined): readonly string[] {
  if (stop === undefined) return [];
  return (typeof stop === 'string' ? [stop] : stop).filter((text) => text !== '');
}

function toLogitBias(bias: Readonly<Record<string, number>> | undefined): SamplingParams['logitBias'] {
  if (bias === undefined) return undefined;
  return Object.entries(bias).map(([token, value]) => ({ token: Number(token), bias: value }));
}

/** `general.sampling.*`, the sampling defaults that newer GGUF files carry (llama.cpp, gguf constants). */
function metadataNumber(metadata: Readonly<Record<string, string>>, key: string): number | undefined {
  const text = metadata[`general.sampling.${key}`];
  if (text === undefined) return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value : undefined;
}
