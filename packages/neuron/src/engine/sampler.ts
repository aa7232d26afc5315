/**
 * One request's sampler: libllama's chain, in the order llama.cpp uses.
 *
 *   logit_bias, repeat penalty (prompt and answer), frequency and presence penalty (answer only), DRY,
 *   top-n-sigma, top-k, typical, top-p, min-p, xtc, temperature, dist(seed)      or greedy at temperature 0
 *
 * A grammar is asked after the chain chose: it mostly agrees, and one token is checked instead of the
 * vocabulary. Only when it objects is the row reduced to what it allows and sampled again (as llama.cpp's
 * common_sampler). Where few bytes may come next, between the parts of JSON, the row is reduced at once: that
 * is cheaper than choosing from all of it.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams, SamplingParams } from 'cortex-core/wire/inference';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import { allocateNative, allocateStrings, readFloat } from '../libllama/native-memory.ts';
import { type AnswerGuide, createAnswerGuide } from './answer-guide.ts';
import type { Candidates } from './candidates.ts';
import type { GrammarCache } from './grammar/compiled-grammar.ts';
import { placeOfGreatest } from './greatest.ts';
import { isSamplable } from './logits-health.ts';
import type { LogitsReader } from './logits-reader.ts';
import type { SamplingDefaults } from './sampling-defaults.ts';
import { addDraws, type MakeSampler, type SeededDraws } from './seeded-draws.ts';
import type { Vocabulary } from './vocabulary.ts';

/** What samplers of one model share. */
export interface SamplerHost {
  readonly api: LlamaApi;
  readonly vocabulary: Vocabulary;
  readonly logits: LogitsReader;
  readonly candidates: Candidates;
  readonly context: bigint;
  /** Tokens one sequence may hold: what a window of -1 means. */
  readonly contextTokens: number;
  readonly defaults: SamplingDefaults;
  readonly grammars: GrammarCache;
}

const minKeep = 1;
const repeatLastNDefault = 64;
const dryBaseDefault = 1.75;
const dryAllowedLengthDefault = 2;
const xtcThresholdDefault = 0.1;
const dryBreakersDefault = ['\n', ':', '"', '*'];
/** Logits divided by less overflow to infinity, of which libllama would take the last; what is meant is 0. */
const temperatureMin = 1e-6;
/**
 * Times less likely than the likeliest token, what counts as impossible. The typical sampler multiplies each
 * probability by its logarithm; one that is 0 (a token that is ruled out) makes its entropy NaN and its
 * choice that of a sort without an order.
 */
const impossible = 1e-30;
/** Native sampler state of one sequence. */
export class Sampler {
  readonly #host: SamplerHost;
  readonly #isGreedy: boolean;
  /** Nothing but the greatest logit counts, which needs no chain. */
  readonly #isPlain: boolean;
  readonly #guide: AnswerGuide | null;
  /** Null when nothing is drawn, or without a seed. */
  readonly #draws: SeededDraws | null;
  #chain: bigint | null;
  /** Tokens of the answer so far. */
  #position = 0;

  /**
   * Errors: `invalid_request` when the grammar does not parse, or does not allow what was answered already.
   * The request must be validated already.
   */
  constructor(host: SamplerHost, params: GenerateParams) {
    this.#host = host;
    const sampling = withDefaults(params.sampling, host.defaults);
    this.#isGreedy = sampling.temperature === 0;
    this.#guide = createGuide(host, params);
    const { chain, draws } = buildChain(host, sampling, params);
    this.#isPlain = this.#isGreedy && this.#guide === null && host.api.llama_sampler_chain_n(chain) === 1;
    this.#chain = chain;
    this.#draws = draws;
    if (params.answered === undefined) return;
    try {
      this.#takeAnswered(chain, params.answered);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Chooses and accepts the token after output `row` of the last decode call.
   * Errors: `logits_not_finite`; `job_failed` when the grammar allows no token at all.
   */
  sample(row: number): number {
    const { api, context, logits } = this.#host;
    const chain = this.#requireChain();
    const address = logits.addressOf(row);
    this.#draws?.placeAt(this.#position);
    this.#position++;
    // Sorting a row with NaN is undefined behaviour in C++; greedy only compares, and its choice is checked.
    if (!this.#isGreedy && !isSamplable(logits.rowAt(address))) throw notFinite(logits, address);
    const guide = this.#guide;
    if (guide !== null) {
      const token = guide.forced() ?? (guide.canRefuse ? this.#sampleGuided(chain, guide, address) : null);
      if (token !== null) {
        guide.accept(token);
        api.llama_sampler_accept(chain, token);
        return token;
      }
    }
    const token = this.#isPlain
      ? placeOfGreatest(logits.rowAt(address))
      : api.llama_sampler_sample(chain, context, row);
    if (!Number.isFinite(readFloat(address + BigInt(token * 4)))) throw notFinite(logits, address);
    guide?.accept(token);
    return token;
  }

  /** Idempotent. */
  close(): void {
    if (this.#chain !== null) this.#host.api.llama_sampler_free(this.#chain);
    this.#chain = null;
  }

  /** Brings guide and penalties to where they stood behind these tokens. */
  #takeAnswered(chain: bigint, answered: Int32Array): void {
    const { api, vocabulary } = this.#host;
    const guide = this.#guide;
    for (const [at, token] of answered.entries()) {
      const forced = guide?.forced() ?? null;
      const fits = guide === null || !guide.canRefuse || guide.isAllowed(token);
      if (vocabulary.isEog(token) || !fits || (forced !== null && forced !== token)) {
        const message = `token ${token} at place ${at} cannot stand there in an answer to this request`;
        throw new AppError('invalid_request', message, { param: 'answered' });
      }
      guide?.accept(token);
      api.llama_sampler_accept(chain, token);
      this.#position++;
    }
  }

  /** The chain's choice among what the guide allows; not accepted yet. */
  #sampleGuided(chain: bigint, guide: AnswerGuide, address: bigint): number {
    const { candidates, logits } = this.#host;
    const row = logits.rowAt(address);
    if (!guide.isNarrow) {
      candidates.fill(row);
      const { token } = candidates.choose(chain);
      if (!Number.isFinite(row[token])) throw notFinite(logits, address);
      if (guide.isAllowed(token)) return token;
      if (guide.closesReasoning(token)) return guide.forced() ?? token;
    }
    const mask = guide.mask();
    if (mask.count === 0) throw nothingAllowed();
    candidates.fillAllowed(row, mask);
    const chosen = candidates.choose(chain);
    if (!Number.isFinite(chosen.logit)) throw nothingAllowed();
    return chosen.token;
  }

  #requireChain(): bigint {
    if (this.#chain === null) throw new Error('the sampler is closed');
    return this.#chain;
  }
}

function createGuide({ grammars, vocabulary }: SamplerHost, params: GenerateParams): AnswerGuide | null {
  const { grammar, reasoning = null } = params;
  const isBounded = reasoning !== null && reasoning.budget !== null;
  if (grammar === null && !isBounded) return null;
  return createAnswerGuide({
    grammar: grammar === null ? null : grammars.compile(grammar.gbnf, grammar.root ?? 'root'),
    lazy: grammar?.lazy,
    reasoning,
    vocabulary,
  });
}

function nothingAllowed(): AppError {
  return new AppError('job_failed', "the grammar allows none of the model's tokens here; check the grammar");
}

function notFinite(logits: LogitsReader, address: bigint): AppError {
  return new AppError(
    'logits_not_finite',
    'the model computed logits that are not numbers; nothing was sent',
    {
      detail: logits.health(address),
    },
  );
}

/** What the request leaves open is what the model's file recommends. */
function withDefaults(sampling: SamplingParams, defaults: SamplingDefaults): SamplingParams {
  const given = Object.entries(sampling).filter(([, value]) => value !== undefined && value !== null);
  const merged = { ...defaults, ...(Object.fromEntries(given) as Partial<SamplingParams>) } as SamplingParams;
  return merged.temperature < temperatureMin ? { ...merged, temperature: 0 } : merged;
}

function buildChain(
  host: SamplerHost,
  sampling: SamplingParams,
  params: GenerateParams,
): { readonly chain: bigint; readonly draws: SeededDraws | null } {
  const { api } = host;
  const chain = api.llama_sampler_chain_init({ no_perf: true }) as bigint;
  const add = (sampler: bigint): void => api.llama_sampler_chain_add(chain, sampler);
  const bias = biases(host, sampling, params.ignoreEos);
  if (bias !== null) add(bias);
  for (const sampler of penalties(host, sampling, params.tokens)) add(sampler);
  if (sampling.temperature === 0) {
    add(api.llama_sampler_init_greedy() as bigint);
    return { chain, draws: null };
  }
  const { topNSigma = -1, topK = 0, typicalP = 1, topP = 1, minP = 0, xtcProbability = 0 } = sampling;
  if (topNSigma > 0) add(api.llama_sampler_init_top_n_sigma(topNSigma) as bigint);
  if (topK > 0) add(api.llama_sampler_init_top_k(topK) as bigint);
  if (typicalP < 1) {
    add(api.llama_sampler_init_min_p(impossible, minKeep) as bigint);
    add(api.llama_sampler_init_typical(typicalP, minKeep) as bigint);
  }
  if (topP < 1) add(api.llama_sampler_init_top_p(topP, minKeep) as bigint);
  if (minP > 0) add(api.llama_sampler_init_min_p(minP, minKeep) as bigint);
  const last: MakeSampler[] = [];
  const { temperature } = sampling;
  if (xtcProbability > 0) {
    const threshold = sampling.xtcThreshold ?? xtcThresholdDefault;
    last.push((seed) => api.llama_sampler_init_xtc(xtcProbability, threshold, minKeep, seed) as bigint);
  }
  if (temperature !== 1) last.push(() => api.llama_sampler_init_temp(temperature) as bigint);
  last.push((seed) => api.llama_sampler_init_dist(seed) as bigint);
  return { chain, draws: addDraws(api, chain, last, sampling.seed) };
}

/** logit_bias, and for `ignoreEos` a bias that rules every end-of-generation token out. */
function biases(host: SamplerHost, sampling: SamplingParams, ignoreEos: boolean): bigint | null {
  const entries = [...(sampling.logitBias ?? [])];
  if (ignoreEos) {
    for (const token of host.vocabulary.eogTokens) entries.push({ token, bias: Number.NEGATIVE_INFINITY });
  }
  if (entries.length === 0) return null;
  // llama_logit_bias[]: {int32 token, float bias}
  const memory = allocateNative(entries.length * 8);
  const tokens = new Int32Array(memory.buffer);
  const values = new Float32Array(memory.buffer);
  for (const [index, entry] of entries.entries()) {
    tokens[index * 2] = entry.token;
    values[index * 2 + 1] = entry.bias;
  }
  const size = host.vocabulary.size;
  const sampler = host.api.llama_sampler_init_logit_bias(size, entries.length, memory.address) as bigint;
  memory.close();
  return sampler;
}

/** Samplers that look back; those that count the prompt have already seen it. */
function penalties(host: SamplerHost, sampling: SamplingParams, prompt: Int32Array): bigint[] {
  const { api, vocabulary, contextTokens } = host;
  const samplers: bigint[] = [];
  const window = (lastN: number): number => Math.min(lastN < 0 ? contextTokens : lastN, contextTokens);
  const { repeatPenalty = 1, frequencyPenalty = 0, presencePenalty = 0, dryMultiplier = 0 } = sampling;
  if (repeatPenalty !== 1) {
    const lastN = window(sampling.repeatLastN ?? repeatLastNDefault);
    const sampler = api.llama_sampler_init_penalties(vocabulary.size, lastN, repeatPenalty, 0, 0) as bigint;
    acceptPrompt(api, sampler, prompt, lastN);
    samplers.push(sampler);
  }
  if (frequencyPenalty !== 0 || presencePenalty !== 0) {
    samplers.push(
      api.llama_sampler_init_penalties(
        vocabulary.size,
        window(sampling.repeatLastN ?? -1),
        1,
        frequencyPenalty,
        presencePenalty,
      ) as bigint,
    );
  }
  if (dryMultiplier > 0) {
    const lastN = window(sampling.dryPenaltyLastN ?? -1);
    const breakers = sampling.drySequenceBreakers ?? dryBreakersDefault;
    const strings = allocateStrings(breakers);
    const sampler = api.llama_sampler_init_dry(
      vocabulary.address,
      dryMultiplier,
      sampling.dryBase ?? dryBaseDefault,
      sampling.dryAllowedLength ?? dryAllowedLengthDefault,
      lastN,
      strings.address,
      breakers.length,
    ) as bigint;
    strings.close();
    acceptPrompt(api, sampler, prompt, lastN);
    samplers.push(sampler);
  }
  return samplers;
}

function acceptPrompt(api: LlamaApi, sampler: bigint, prompt: Int32Array, lastN: number): void {
  for (const token of prompt.subarray(Math.max(0, prompt.length - lastN))) {
    api.llama_sampler_accept(sampler, token);
  }
}
