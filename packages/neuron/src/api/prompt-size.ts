/** Prompts that do not fit the context or the vocabulary, refused before they cost anything. */
import { AppError } from 'cortex-core/wire/errors';
import type { ModelFacts } from 'cortex-core/wire/inference';

/**
 * Refuses a text that has more tokens than the context even if each were the longest there is. Making tokens
 * of 64 MB would keep the device from its streams for seconds, only to count them.
 */
export function refuseOversized(
  text: string,
  param: string,
  facts: Pick<ModelFacts, 'context' | 'longestPieceBytes'>,
): void {
  const { context, longestPieceBytes: longest } = facts;
  // A UTF-16 unit is three bytes at most, so most texts need no counting.
  if (!longest || text.length * 3 <= context * longest) return;
  const tokensMin = Math.floor(Buffer.byteLength(text) / longest);
  if (tokensMin >= context) throw contextExceeded(context, tokensMin, param, 'at least ');
}

/** The words that clients look for. */
export function contextExceeded(
  context: number,
  count: number,
  param: string,
  precision: 'at least ' | '' = '',
): AppError {
  return new AppError(
    'context_length_exceeded',
    `This model's maximum context length is ${context} tokens. However, your messages resulted in ` +
      `${precision}${count} tokens. Please reduce the length of the ${param}.`,
    { param, extras: { prompt_len: count, max: context } },
  );
}

/** Before they become 32-bit numbers, where 2^32 + 5 would pass for 5. */
export function checkTokens(
  tokens: readonly number[],
  param: string,
  facts: Pick<ModelFacts, 'vocabSize'>,
): Int32Array {
  const wrong = tokens.find((token) => token < 0 || token >= facts.vocabSize);
  if (wrong === undefined) return Int32Array.from(tokens);
  const message = `token ${wrong} is not in the vocabulary of ${facts.vocabSize}`;
  throw new AppError('invalid_request', message, { param });
}
