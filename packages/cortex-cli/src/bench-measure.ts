/**
 * The measurements of `neuron bench`, over HTTP, as a client sees them.
 *
 * Prompts are token ids, so that they are exactly as long as asked, and no two share a beginning; answers go
 * past end tokens to exactly as many tokens as asked. Every number is the median of the rounds.
 */
import { CliError } from './cli-error.ts';
import type { GatewayClient } from './gateway-client.ts';

export interface BenchSize {
  readonly streams: readonly number[];
  /** Tokens of each prompt, and of each answer. */
  readonly prompt: number;
  readonly tokens: number;
  readonly rounds: number;
}

/** All streams of a round began together. Rates are over all streams. */
export interface BenchRun {
  readonly streams: number;
  readonly prompt_tokens_per_second: number;
  readonly generation_tokens_per_second: number;
  /** Median and largest of the streams. */
  readonly first_token_ms: number;
  readonly first_token_ms_max: number;
}

export interface BenchReuse {
  readonly prompt_tokens: number;
  /** Of the second request with the same prompt. */
  readonly cached_tokens: number;
  readonly first_token_ms: { readonly first: number; readonly second: number };
}

interface Answer {
  readonly sentMs: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** From the first token to the last, as the neuron measured it. */
  readonly decodeMs: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly tokens: number;
}

const words =
  'river stone window garden paper morning engine letter number silver mountain bridge question winter ' +
  'table market summer island yellow doctor signal forest circle travel answer village music corner harbour';

export class BenchMeasure {
  readonly #client: GatewayClient;
  readonly #model: string;
  readonly #signal: AbortSignal;
  #pool: readonly number[] = [];
  #prompts = 0;

  constructor(client: GatewayClient, model: string, signal: AbortSignal) {
    this.#client = client;
    this.#model = model;
    this.#signal = signal;
  }

  /** Reads the vocabulary's tokens of ordinary words and runs once what would else be slow the first time. */
  async warmUp({ prompt }: BenchSize): Promise<void> {
    const body = { model: this.#model, content: words };
    const { tokens } = (await this.#client.post('/tokenize', body, this.#signal)) as { tokens: number[] };
    this.#pool = tokens;
    await this.#ask(this.#nextPrompt(Math.min(prompt, 64)), 4);
  }

  async run(streams: number, size: BenchSize, onRound: (round: number) => void): Promise<BenchRun> {
    const rounds: Omit<BenchRun, 'streams'>[] = [];
    for (let round = 0; round < size.rounds; round++) {
      onRound(round);
      const prompts = Array.from({ length: streams }, () => this.#nextPrompt(size.prompt));
      rounds.push(toRates(await Promise.all(prompts.map((prompt) => this.#ask(prompt, size.tokens)))));
    }
    return {
      streams,
      prompt_tokens_per_second: median(rounds.map((each) => each.prompt_tokens_per_second)),
      generation_tokens_per_second: median(rounds.map((each) => each.generation_tokens_per_second)),
      first_token_ms: median(rounds.map((each) => each.first_token_ms)),
      first_token_ms_max: median(rounds.map((each) => each.first_token_ms_max)),
    };
  }

  /** One long prompt twice. */
  async reuse(promptTokens: number, rounds: number): Promise<BenchReuse> {
    const firsts: Answer[] = [];
    const seconds: Answer[] = [];
    for (let round = 0; round < rounds; round++) {
      const prompt = this.#nextPrompt(promptTokens);
      firsts.push(await this.#ask(prompt, 4));
      seconds.push(await this.#ask(prompt, 4));
    }
    return {
      prompt_tokens: promptTokens,
      cached_tokens: Math.round(median(seconds.map(({ cachedTokens }) => cachedTokens))),
      first_token_ms: { first: median(firsts.map(waitMs)), second: median(seconds.map(waitMs)) },
    };
  }

  /** Token ids that differ from every other prompt's from the start. */
  #nextPrompt(length: number): readonly number[] {
    let state = (++this.#prompts * 2654435761) >>> 0;
    return Array.from({ length }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return this.#pool[Math.floor((state / 2 ** 32) * this.#pool.length)] ?? 0;
    });
  }

  async #ask(prompt: readonly number[], tokens: number): Promise<Answer> {
    const body = {
      model: this.#model,
      prompt,
      max_tokens: tokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    };
    const sentMs = performance.now();
    let [firstMs, lastMs] = [0, 0];
    let last: Chunk = {};
    // Its own: many listeners on one signal look like a leak to Node.js, which says so on the terminal.
    const signal = AbortSignal.any([this.#signal]);
    for await (const event of this.#client.stream('/v1/completions', body, signal)) {
      const chunk = event as Chunk;
      if (chunk.error !== undefined) throw new CliError(`the answer broke off: ${chunk.error.message}`);
      // A token can be half a character, and then has no text.
      if ((chunk.choices?.[0]?.text ?? '') !== '') {
        lastMs = performance.now();
        if (firstMs === 0) firstMs = lastMs;
      }
      if (chunk.usage) last = chunk;
    }
    const { usage, timings } = last;
    if (!usage || timings === undefined || firstMs === 0) {
      throw new CliError('an answer came without text, usage or timings; is that a neuron?');
    }
    return {
      sentMs,
      firstMs,
      lastMs,
      decodeMs: timings.decode_ms,
      promptTokens: usage.prompt_tokens,
      cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
      tokens: usage.completion_tokens,
    };
  }
}

interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number };
}

interface Chunk {
  readonly choices?: readonly { readonly text?: string }[];
  readonly usage?: Usage | null;
  readonly timings?: { readonly decode_ms: number };
  readonly error?: { readonly message: string };
}

function toRates(answers: readonly Answer[]): Omit<BenchRun, 'streams'> {
  const waits = answers.map(waitMs);
  const read = answers.reduce((sum, each) => sum + each.promptTokens - each.cachedTokens, 0);
  const began = Math.min(...answers.map(({ sentMs }) => sentMs));
  const allRead = Math.max(...answers.map(({ firstMs }) => firstMs));
  return {
    prompt_tokens_per_second: (read * 1000) / (allRead - began),
    generation_tokens_per_second: generationRate(answers),
    first_token_ms: median(waits),
    first_token_ms_max: Math.max(...waits),
  };
}

/**
 * Tokens per second over all streams while all of them generate; where there is no such time (more streams
 * than slots), over the whole of it. When a stream generates is taken from its last text, which the client
 * saw, and from how long the neuron says that it took: a small model outruns its client, which then reads
 * many tokens at once.
 */
function generationRate(answers: readonly Answer[]): number {
  const spans = answers.map(({ lastMs, decodeMs, tokens }) => {
    const ms = Math.max(decodeMs, 0.1);
    return { from: lastMs - ms, to: lastMs, perMs: (tokens - 1) / ms };
  });
  let from = Math.max(...spans.map((span) => span.from));
  let to = Math.min(...spans.map((span) => span.to));
  if (to <= from) {
    from = Math.min(...spans.map((span) => span.from));
    to = Math.max(...spans.map((span) => span.to));
  }
  const made = spans.reduce((sum, span) => {
    const shared = Math.min(span.to, to) - Math.max(span.from, from);
    return sum + span.perMs * Math.max(shared, 0);
  }, 0);
  return (made * 1000) / (to - from);
}

function waitMs({ sentMs, firstMs }: Answer): number {
  return firstMs - sentMs;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}
