/**
 * `truncation: "auto"`: the oldest turns go until the conversation fits.
 *
 * Design: what goes are whole exchanges from the front, so that no call loses its result; system turns and
 * the last exchange stay. Sizes are estimates with a third to spare: the true count is known only where
 * the model is. What is still too long is refused there.
 */
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

const spare = 4 / 3;

export function fitTurns({ turns, tools, context, maxTokens }: FitOptions): readonly InnerTurn[] {
  // the answer gets what it asked for, at most half; an eighth where it said nothing
  const answer = Math.min(maxTokens ?? context / 8, context / 2);
  let excess = (estimateToolTokens(tools) + estimateTurnTokens(turns)) * spare - (context - answer);
  if (excess <= 0) return turns;
  const exchanges = toExchanges(turns);
  let first = 0;
  for (; first < exchanges.length - 1 && excess > 0; first++) {
    for (const turn of exchanges[first] ?? []) excess -= estimateTurnTokens([turn]) * spare;
  }
  // templates like a user to begin, where one still does
  const users = exchanges.findIndex(([turn], at) => at >= first && turn?.role === 'user');
  const dropped = new Set(exchanges.slice(0, users === -1 ? first : users).flat());
  return turns.filter((turn) => !dropped.has(turn));
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
