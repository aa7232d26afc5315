/** Why a request would go where it would, as the admin API shows it. Times in seconds. */
import { AppError } from 'cortex-core/wire/errors';
import type { RouteTerms } from '../decide/expected-time.ts';
import type { Fleet } from './fleet.ts';

const promptTokensDefault = 1000;
const promptTokensMax = 100_000_000;

/** `query`: model, prompt_tokens? */
export function describeRoute(fleet: Fleet, query: URLSearchParams) {
  const requested = query.get('model') ?? '';
  if (requested === '' || requested.length > 512) {
    throw new AppError('invalid_request', 'model: name the model, e.g. /admin/explain?model=qwen3-8b', {
      param: 'model',
    });
  }
  const promptTokens = tokensOf(query.get('prompt_tokens'));
  const explanation = fleet.explain({ model: requested, promptTokens });
  const { model, decision, node, why, turn, candidates } = explanation;
  return {
    requested,
    model,
    prompt_tokens: promptTokens,
    decision,
    node,
    why,
    turn,
    candidates: candidates.map((each) => ({
      node: each.node,
      state: each.state,
      verdict: each.verdict,
      why: each.why,
      evict: each.evict,
      terms: each.terms === null ? null : describeTerms(each.terms),
    })),
  };
}

function tokensOf(text: string | null): number {
  if (text === null) return promptTokensDefault;
  const tokens = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (tokens >= 1 && tokens <= promptTokensMax) return tokens;
  const message = `prompt_tokens: must be a whole number from 1 to ${promptTokensMax}`;
  throw new AppError('invalid_request', message, { param: 'prompt_tokens' });
}

function describeTerms(terms: RouteTerms) {
  return {
    queue_secs: secs(terms.queueMs),
    turn_secs: secs(terms.turnMs),
    evict_secs: secs(terms.evictMs),
    load_secs: secs(terms.loadMs),
    prefill_secs: secs(terms.prefillMs),
    expected_secs: secs(terms.totalMs),
    displaced_secs: secs(terms.displacedMs),
    cached_tokens: terms.cachedTokens,
    ahead: terms.ahead,
  };
}

function secs(ms: number): number {
  return Math.round(ms) / 1000;
}
