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
export function refuseUnsupportedCompletion(request: CompletionRequest): void {
  if ((request.best_of ?? 1) > (request.n ?? 1))
    refuse('best_of', 'may not exceed "n"; ask for more choices');
  if (request.echo === true && request.logprobs !== undefined) {
    refuse('echo', 'with "logprobs" would need those of the prompt, which are not computed');
  }
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
