/** What `x-cortex-route` says of a decision: the reason, the expected time and what most of it is. */
import type { RouteTerms } from '../decide/expected-time.ts';

export function routeNote(why: string, terms: RouteTerms): string {
  const parts = [
    ['queue', terms.queueMs],
    ['turn', terms.turnMs],
    ['evict', terms.evictMs],
    ['load', terms.loadMs],
    ['prefill', terms.prefillMs],
  ] as const;
  const [name, ms] = parts.reduce((most, part) => (part[1] > most[1] ? part : most));
  const cached = terms.cachedTokens > 0 ? `, ${terms.cachedTokens} tokens cached` : '';
  return `${why}; expect=${secs(terms.totalMs)} ${name}=${secs(ms)}${cached}`;
}

function secs(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 3 : 1)}s`;
}
