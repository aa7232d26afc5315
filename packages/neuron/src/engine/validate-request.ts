/** Refuses what the native side would not survive or would silently misread. Pure; runs before any work. */
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams, GrammarSpec, ReasoningSpec, SamplingParams } from 'cortex-core/wire/inference';
import { checkTokens } from './vocabulary.ts';

export interface RequestLimits {
  readonly vocabSize: number;
  /** Tokens that one sequence may hold. */
  readonly context: number;
}

/** How many tokens may be generated, and whether the context is what limits them. */
export interface TokenBudget {
  readonly tokens: number;
  readonly isContextBound: boolean;
}

const stopsMax = 64;
const stopLengthMax = 4096;
const topLogprobsMax = 20;
const grammarLengthMax = 1 << 20;
const triggersMax = 64;
const tagLengthMax = 1024;
const logitBiasMax = 4096;
/** Each is sought in the whole vocabulary before the first step: 30 ms at 49,000 tokens (2-core EPYC). */
const drySequenceBreakersMax = 16;
const dryBreakerLengthMax = 256;
const loneSurrogate = /\p{Surrogate}/u;
const int32Max = 2 ** 31 - 1;

type NumberKey = {
  [K in keyof SamplingParams]-?: number extends SamplingParams[K] ? K : never;
}[keyof SamplingParams];

/** Field -> the wire's name, smallest, largest, whether whole. */
const ranges: Readonly<Record<NumberKey, readonly [string, number, number, boolean]>> = {
  temperature: ['temperature', 0, 100, false],
  topK: ['top_k', -1, int32Max, true],
  topP: ['top_p', 0, 1, false],
  minP: ['min_p', 0, 1, false],
  typicalP: ['typical_p', 0, 1, false],
  topNSigma: ['top_n_sigma', -1, 100, false],
  xtcProbability: ['xtc_probability', 0, 1, false],
  xtcThreshold: ['xtc_threshold', 0, 1, false],
  repeatPenalty: ['repeat_penalty', 0.01, 100, false],
  repeatLastN: ['repeat_last_n', -1, int32Max, true],
  frequencyPenalty: ['frequency_penalty', -100, 100, false],
  presencePenalty: ['presence_penalty', -100, 100, false],
  dryMultiplier: ['dry_multiplier', 0, 100, false],
  dryBase: ['dry_base', 1, 100, false],
  dryAllowedLength: ['dry_allowed_length', 0, int32Max, true],
  dryPenaltyLastN: ['dry_penalty_last_n', -1, int32Max, true],
  seed: ['seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, true],
};

/** Whether a model file's own recommendation can be used. */
export function isInRange(field: keyof typeof ranges, value: number): boolean {
  const [, min, max, isWhole] = ranges[field];
  return value >= min && value <= max && (!isWhole || Number.isInteger(value));
}

/** Errors: `invalid_request` naming the field, `context_length_exceeded`. */
export function validateRequest(params: GenerateParams, limits: RequestLimits): TokenBudget {
  checkPrompt(params.tokens, limits);
  if (params.answered !== undefined) checkAnswered(params, params.answered, limits);
  checkSampling(params.sampling, limits);
  checkStops(params.stops);
  if (params.topLogprobs !== null) {
    checkNumber(params.topLogprobs, 'top_logprobs', 0, topLogprobsMax, true);
  }
  if (params.grammar !== null) checkGrammar(params.grammar);
  if (params.reasoning !== null && params.reasoning !== undefined) checkReasoning(params.reasoning);
  if (params.maxTokens !== null) checkNumber(params.maxTokens, 'max_tokens', 0, int32Max, true);
  // The last token of an answer is never decoded, so a full context still has room for one.
  const fits = Math.max(1, limits.context - params.tokens.length);
  const wanted = params.maxTokens ?? Number.POSITIVE_INFINITY;
  return wanted <= fits ? { tokens: wanted, isContextBound: false } : { tokens: fits, isContextBound: true };
}

function checkPrompt(tokens: Int32Array, { vocabSize, context }: RequestLimits): void {
  if (!(tokens instanceof Int32Array) || tokens.length === 0) {
    throw invalid('tokens', 'the prompt is empty; send at least one token');
  }
  if (tokens.length > context) {
    throw new AppError(
      'context_length_exceeded',
      `This model's maximum context length is ${context} tokens. However, your messages resulted in ` +
        `${tokens.length} tokens. Please reduce the length of the messages.`,
      { param: 'messages', extras: { prompt_len: tokens.length, max: context } },
    );
  }
  checkTokens(tokens, vocabSize);
}

function checkAnswered({ tokens }: GenerateParams, answered: Int32Array, limits: RequestLimits): void {
  if (!(answered instanceof Int32Array)) throw invalid('answered', 'answered must be token ids');
  const length = tokens.length + answered.length;
  if (length > limits.context) {
    throw new AppError(
      'context_length_exceeded',
      `${length} tokens of prompt and answer do not fit a context of ${limits.context}; ` +
        'load the model with a larger one',
      { extras: { prompt_len: length, max: limits.context } },
    );
  }
  checkTokens(answered, limits.vocabSize);
}

function checkSampling(sampling: SamplingParams, { vocabSize }: RequestLimits): void {
  for (const [key, [name, min, max, isWhole]] of Object.entries(ranges)) {
    const value = sampling[key as NumberKey];
    if (value !== undefined && value !== null) checkNumber(value, name, min, max, isWhole);
  }
  if (sampling.temperature === undefined || sampling.temperature === null) {
    throw invalid('temperature', 'temperature is missing');
  }
  const bias = sampling.logitBias ?? [];
  if (bias.length > logitBiasMax)
    throw invalid('logit_bias', `logit_bias has more than ${logitBiasMax} entries`);
  for (const entry of bias) {
    checkNumber(entry.token, 'logit_bias', 0, vocabSize - 1, true);
    checkNumber(entry.bias, 'logit_bias', -1e6, 1e6, false);
  }
  const breakers = sampling.drySequenceBreakers ?? [];
  const areShort = breakers.every((text) => typeof text === 'string' && text.length <= dryBreakerLengthMax);
  if (breakers.length > drySequenceBreakersMax || !areShort) {
    throw invalid(
      'dry_sequence_breakers',
      `dry_sequence_breakers takes at most ${drySequenceBreakersMax} texts ` +
        `of ${dryBreakerLengthMax} characters`,
    );
  }
}

function checkStops(stops: readonly string[]): void {
  if (stops.length > stopsMax)
    throw invalid('stop', `stop: ${stops.length} given; at most ${stopsMax} are allowed`);
  for (const stop of stops) {
    if (typeof stop !== 'string' || stop === '' || stop.length > stopLengthMax) {
      throw invalid('stop', `stop: each must be text of 1 to ${stopLengthMax} characters`);
    }
    // It would be found inside a character and cut it in two.
    if (loneSurrogate.test(stop)) throw invalid('stop', 'stop: half a surrogate pair is no character');
  }
}

function checkGrammar({ gbnf, lazy }: GrammarSpec): void {
  if (typeof gbnf !== 'string' || gbnf.length > grammarLengthMax) {
    throw invalid('grammar', `grammar must be text of at most ${grammarLengthMax} characters`);
  }
  const triggers = lazy?.triggers ?? [];
  if (triggers.length > triggersMax || (lazy !== undefined && triggers.length === 0)) {
    throw invalid('grammar', `a lazy grammar needs 1 to ${triggersMax} triggers, not ${triggers.length}`);
  }
  for (const trigger of triggers) {
    checkTag(trigger, 'grammar', 'a trigger');
  }
}

function checkReasoning({ isOpen, start, end, endsAt = [], budget }: ReasoningSpec): void {
  if (!isOpen) checkTag(start, 'reasoning', 'the start of the reasoning block');
  checkTag(end, 'reasoning', 'the end of the reasoning block');
  if (budget !== null) checkNumber(budget, 'reasoning_budget', 0, int32Max, true);
  if (endsAt.length > triggersMax) {
    throw invalid('reasoning', `${endsAt.length} texts end the reasoning block; at most ${triggersMax} may`);
  }
  for (const text of endsAt) checkTag(text, 'reasoning', 'what ends the reasoning block');
}

function checkTag(text: string, param: string, what: string): void {
  if (typeof text === 'string' && text !== '' && text.length <= tagLengthMax) return;
  throw invalid(param, `${what} must be text of 1 to ${tagLengthMax} characters`);
}

function checkNumber(value: number, name: string, min: number, max: number, isWhole: boolean): void {
  const isGood = typeof value === 'number' && value >= min && value <= max;
  if (isGood && (!isWhole || Number.isInteger(value))) return;
  const kind = isWhole ? 'a whole number' : 'a number';
  throw invalid(name, `${name} must be ${kind} from ${min} to ${max}, not ${String(value)}`);
}

function invalid(param: string, message: string): AppError {
  return new AppError('invalid_request', message, { param });
}
