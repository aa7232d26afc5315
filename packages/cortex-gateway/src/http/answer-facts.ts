/** From what an answer said and when it came to what it teaches of its node. */
import type { TokenUsage } from '../dialects/answer-probe.ts';
import type { StreamProbe } from '../dialects/dialect.ts';
import type { AnswerFacts } from '../fleet/ask.ts';
import type { RequestRecord } from './metrics.ts';

/** On the same clock, ms. */
interface AnswerTimes {
  readonly sentMs: number;
  readonly firstTokenMs: number | null;
  readonly nowMs: number;
}

/** `estimate`: prompt tokens, where the answer does not tell. */
export function answerFacts(usage: TokenUsage, estimate: number, times: AnswerTimes): AnswerFacts {
  const isTold = usage.isReported === true;
  const { sentMs, firstTokenMs, nowMs } = times;
  return {
    promptTokens: isTold ? usage.promptTokens : estimate,
    cachedTokens: isTold ? usage.cachedTokens : null,
    completionTokens: usage.completionTokens,
    prefillMs: usage.prefillMs ?? null,
    decodeMs: usage.decodeMs ?? null,
    firstTokenMs: firstTokenMs === null ? null : firstTokenMs - sentMs,
    totalMs: nowMs - sentMs,
  };
}

/** What was used; the prompt is estimated where an answer came without a word of it. */
export function countedUsage(usage: TokenUsage | null, inputTokensEstimate: number): TokenUsage | null {
  if (usage === null || usage.isReported === true || usage.promptTokens > 0) return usage;
  return { ...usage, promptTokens: inputTokensEstimate };
}

/** `probe`: null where nothing came as a stream. All on one clock, ms. */
export function recordedTimes(
  probe: StreamProbe | null,
  startedMs: number,
  nowMs: number,
): Pick<RequestRecord, 'durationSecs' | 'firstTokenSecs' | 'decodeSecs'> {
  const first = probe?.firstTokenMs ?? null;
  const last = probe?.lastTokenMs ?? null;
  return {
    durationSecs: (nowMs - startedMs) / 1000,
    firstTokenSecs: first === null ? null : (first - startedMs) / 1000,
    decodeSecs: first === null || last === null || last === first ? null : (last - first) / 1000,
  };
}
