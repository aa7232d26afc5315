import type { ChatUsage } from 'cortex-core/wire/openai';

/**
 * The usage of one request: what was generated is summed, a prompt counts once for its `n` choices (`usages`
 * has those of a prompt side by side). Cached tokens are those of the prompt's first choice: what the others
 * found cached is the first one's work.
 */
export function sumUsages(usages: readonly ChatUsage[], n: number): ChatUsage {
  let prompt = 0;
  let completion = 0;
  let cached = 0;
  let reasoning: number | undefined;
  for (const [at, usage] of usages.entries()) {
    completion += usage.completion_tokens;
    const thought = usage.completion_tokens_details?.reasoning_tokens;
    if (thought !== undefined) reasoning = (reasoning ?? 0) + thought;
    if (at % n !== 0) continue;
    prompt += usage.prompt_tokens;
    cached += usage.prompt_tokens_details.cached_tokens;
  }
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
    ...(reasoning === undefined ? {} : { completion_tokens_details: { reasoning_tokens: reasoning } }),
  };
}
