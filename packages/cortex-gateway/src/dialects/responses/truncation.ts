/**
 * `truncation: "auto"`: the oldest turns go until the conversation fits.
 *
 * Problem: how many tokens a text has is known only where the model is.
 * Design: an estimate with a third to spare decides what goes. Where the model still finds the rest too long,
 * it says how long that was, and the next try is made with the ratio learnt from it. What goes are whole
 * exchanges from the front, so that no call loses its result; system turns and the last exchange stay.
 */
import type { AppError } from 'cortex-core/wire/errors';
import { estimateToolTokens, estimateTurnTokens } from '../inner/estimate-tokens.ts';
import type { InnerTool, InnerTurn } from '../inner/inner-request.ts';

export interface FitOptions {
  readonly turns: readonly InnerTurn[];
  readonly tools: readonly InnerTool[];
  /** Tokens a sequence may hold. */
  readonly context: number;
  /** Tokens the answer may have; null = unsaid. */
  readonly maxTokens: number | null;
}

const triesMax = 4;

/** Of one request, over all its tries. */
export class TurnFitter {
  /** Tokens for each that was estimated. */
  #scale = 4 / 3;
  #tries = 0;
  /** Of what was left at the last try; null = nothing can go any more, or nothing was to go. */
  #estimate: number | null = null;

  fit({ turns, tools, context, maxTokens }: FitOptions): readonly InnerTurn[] {
    this.#tries++;
    // the answer gets what it asked for, at most half; an eighth where it said nothing
    const room = context - Math.min(maxTokens ?? context / 8, context / 2);
    let estimate = estimateToolTokens(tools) + estimateTurnTokens(turns);
    const exchanges = toExchanges(turns);
    let first = 0;
    for (; first < exchanges.length - 1 && estimate * this.#scale > room; first++) {
      estimate -= estimateOf(exchanges[first]);
    }
    // templates like a user to begin, where one still does
    const users = exchanges.findIndex(([turn], at) => at >= first && turn?.role === 'user');
    while (first > 0 && first < users) estimate -= estimateOf(exchanges[first++]);
    this.#estimate = first < exchanges.length - 1 ? estimate : null;
    const dropped = new Set(exchanges.slice(0, first).flat());
    return turns.filter((turn) => !dropped.has(turn));
  }

  /** Learns from a model's `context_length_exceeded`. Whether another try would send less. */
  learn(error: AppError): boolean {
    if (error.code !== 'context_length_exceeded' || this.#estimate === null) return false;
    if (this.#tries >= triesMax) return false;
    const counted = Number(/resulted in (?:at least )?(\d+) tokens/.exec(error.message)?.[1] ?? 0);
    this.#scale = Math.max(this.#scale * 1.25, counted / Math.max(1, this.#estimate));
    return true;
  }
}

/** Without system turns. One begins with a user's own words, or with an assistant that follows results. */
function toExchanges(turns: readonly InnerTurn[]): readonly (readonly InnerTurn[])[] {
  const exchanges: InnerTurn[][] = [];
  let last: InnerTurn | null = null;
  for (const turn of turns) {
    if (turn.role === 'system') continue;
    const isUsers = turn.role === 'user' && !isResult(turn);
    const follows = turn.role === 'assistant' && last !== null && isResult(last);
    const current = exchanges.at(-1);
    if (current === undefined || isUsers || follows) exchanges.push([turn]);
    else current.push(turn);
    last = turn;
  }
  return exchanges;
}

function isResult({ parts }: InnerTurn): boolean {
  return parts.some(({ type }) => type === 'result');
}

function estimateOf(exchange: readonly InnerTurn[] = []): number {
  return exchange.reduce((sum, turn) => sum + estimateTurnTokens([turn]), 0);
}
