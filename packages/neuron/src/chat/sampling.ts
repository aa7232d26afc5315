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
    temperature: request.temperature ?? recommendedTemperature(metadata) ?? temperatureDefault,
    topK: request.top_k,
    topP: request.top_p,
    minP: request.min_p,
    typicalP: request.typical_p,
    topNSigma: request.top_n_sigma,
    xtcProbability: request.xtc_probability,
    xtcThreshold: request.xtc_threshold,
    repeatPenalty: request.repeat_penalty ?? request.repetition_penalty,
    repeatLastN: request.repeat_last_n,
    frequencyPenalty: request.frequency_penalty,
    presencePenalty: request.presence_penalty,
    dryMultiplier: request.dry_multiplier,
    dryBase: request.dry_base,
    dryAllowedLength: request.dry_allowed_length,
    dryPenaltyLastN: request.dry_penalty_last_n,
    drySequenceBreakers: request.dry_sequence_breakers,
    logitBias: request.logit_bias,
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
  refuseForeignSamplers(request);
  refuseConstraints(request);
  refuseExtraChoices(request);
  const format = request.response_format as { readonly type?: unknown } | null | undefined;
  if (format != null && format.type !== 'text') {
    refuse('response_format', 'is not supported here; use /v1/chat/completions, or "grammar"');
  }
  if (request.ignore_eos === true && request.grammar !== undefined) throw endlessGrammar();
  if (request.echo === true && request.logprobs !== undefined) {
    refuse('echo', 'with "logprobs" would need those of the prompt, which are not computed');
  }
}

/** Fields of other servers that bind the answer or read the prompt: passed over, they break a promise. */
const constraints = [
  'guided_json',
  'guided_regex',
  'guided_choice',
  'guided_grammar',
  'structured_outputs',
  'json_schema',
  'use_beam_search',
  'prompt_logprobs',
];

export function refuseConstraints(request: SamplingFields): void {
  for (const name of constraints) {
    const value = request[name] ?? false;
    if (value !== false) refuse(name, 'is not supported; leave it out');
  }
}

/** More answers than are asked for, of which the best would be shown. */
export function refuseExtraChoices({ best_of: of = 1, n = 1 }: SamplingFields): void {
  if (of > n) refuse('best_of', 'may not exceed "n"; ask for more choices');
}

/** Where the grammar ends, the end is all that it allows, and that is what `ignore_eos` rules out. */
export function endlessGrammar(): AppError {
  const message = '"ignore_eos" leaves an answer that has a form no way to end; leave it out';
  return new AppError('invalid_request', message, { param: 'ignore_eos' });
}

/** Samplers of llama-server that this engine has not, with the value that leaves each of them off. */
const foreignSamplers: Readonly<Record<string, unknown>> = {
  mirostat: 0,
  dynatemp_range: 0,
  n_probs: 0,
};

export function refuseForeignSamplers(request: SamplingFields): void {
  for (const [name, off] of Object.entries(foreignSamplers)) {
    const value = request[name] ?? off;
    if (value !== off)
      refuse(name, `is not supported; leave it out${name === 'n_probs' ? ', use "logprobs"' : ''}`);
  }
}

function refuse(param: string, why: string): never {
  throw new AppError('unsupported_parameter', `"${param}" ${why}`, { param });
}

function toStops(stop: string | readonly string[] | undefined): readonly string[] {
  if (stop === undefined) return [];
  return (typeof stop === 'string' ? [stop] : stop).filter((text) => text !== '');
}

/**
 * The engine fills in what else the model's file recommends (`general.sampling.*`); the temperature it
 * cannot, because every request has one.
 */
function recommendedTemperature(metadata: Readonly<Record<string, string>>): number | null {
  const temperature = Number(metadata['general.sampling.temp'] ?? Number.NaN);
  return temperature >= 0 && temperature <= 100 ? temperature : null;
}
