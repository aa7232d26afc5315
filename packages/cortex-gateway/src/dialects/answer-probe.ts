/**
 * Reads usage, timing and completeness of an OpenAI answer in passing. Bounded: of a stream it keeps one
 * event, of a whole answer it reads the last 64 KiB. It never changes or delays a byte, and what it cannot
 * read it leaves unknown.
 */
import { SseParser } from 'cortex-core/wire/sse';

export interface TokenUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
  /** Whether the neuron said so, or only pieces of text were counted. */
  readonly isReported?: boolean;
  /** The neuron's own timings, ms; absent = it gave none. */
  readonly prefillMs?: number;
  readonly decodeMs?: number;
}

const tailBytesMax = 64 * 1024;
const eventBytesMax = 1024 * 1024;
const hasText = /"(?:content|reasoning_content|text|arguments)"\s*:\s*"[^"]/;
const finishes = /"finish_reason"\s*:\s*"/g;

export class AnswerProbe {
  #parser: SseParser | null = new SseParser(eventBytesMax);
  #usage: TokenUsage | null = null;
  #deltas = 0;
  #unfinished: number;
  /** A finish reason of every choice, `[DONE]` or an error was seen: the stream may end. */
  finished = false;
  /** The clock's time of the first and last piece of text; null before. */
  firstTokenMs: number | null = null;
  lastTokenMs: number | null = null;

  /** `choices`: how many the stream brings. */
  constructor(choices = 1) {
    this.#unfinished = choices;
  }

  /** A piece of an SSE answer. */
  push(chunk: Uint8Array, nowMs: number): void {
    if (this.#parser === null) return;
    try {
      for (const event of this.#parser.push(chunk)) this.#event(event.data, nowMs);
    } catch {
      // an event beyond the limit: give up on usage, and do not call the answer incomplete
      this.#parser = null;
      this.finished = true;
    }
  }

  /** Reported, or counted deltas when the neuron reports none; null when nothing was seen. */
  get usage(): TokenUsage | null {
    if (this.#deltas === 0 || (this.#usage !== null && this.#usage.completionTokens > 0)) return this.#usage;
    // the first chunk may tell of the prompt alone
    const { promptTokens = 0, cachedTokens = 0 } = this.#usage ?? {};
    return { promptTokens, completionTokens: this.#deltas, cachedTokens };
  }

  #event(data: string, nowMs: number): void {
    if (data === '[DONE]') {
      this.finished = true;
      return;
    }
    if (hasText.test(data)) {
      this.#deltas++;
      this.firstTokenMs ??= nowMs;
      this.lastTokenMs = nowMs;
    }
    this.#unfinished -= data.match(finishes)?.length ?? 0;
    if (this.#unfinished <= 0 || /^\s*\{\s*"error"/.test(data)) this.finished = true;
    if (data.includes('"usage"')) this.#usage = readUsage(data) ?? this.#usage;
  }
}

/** Of a whole answer, at whose end it stands; null where nothing is told. */
export function usageOf(answer: Uint8Array): TokenUsage | null {
  const tail = answer.subarray(-tailBytesMax);
  return readUsage(Buffer.from(tail.buffer, tail.byteOffset, tail.byteLength).toString('utf8'));
}

function readUsage(text: string): TokenUsage | null {
  const from = text.lastIndexOf('"usage"');
  if (from === -1) return null;
  const usage = text.slice(from);
  const prompt = numberOf(usage, /"prompt_tokens"\s*:\s*(\d+)/);
  const completion = numberOf(usage, /"completion_tokens"\s*:\s*(\d+)/);
  if (prompt === null && completion === null) return null;
  const prefillMs = numberOf(usage, /"prefill_ms"\s*:\s*(\d+(?:\.\d+)?)/);
  const decodeMs = numberOf(usage, /"decode_ms"\s*:\s*(\d+(?:\.\d+)?)/);
  return {
    isReported: true,
    ...(prefillMs === null ? {} : { prefillMs }),
    ...(decodeMs === null ? {} : { decodeMs }),
    promptTokens: prompt ?? 0,
    completionTokens: completion ?? 0,
    cachedTokens: numberOf(usage, /"cached_tokens"\s*:\s*(\d+)/) ?? 0,
  };
}

function numberOf(text: string, pattern: RegExp): number | null {
  const digits = pattern.exec(text)?.[1];
  return digits === undefined ? null : Number(digits);
}
