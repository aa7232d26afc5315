import { AppError } from 'cortex-core/wire/errors';
import type { Dialect, InferenceRequest } from '../dialects/dialect.ts';
import { inNamesOf } from '../dialects/field-names.ts';

/** Indented code has twice the four characters a token that the estimate reckons with. */
const guessMargin = 2;

/** Refuses a prompt that cannot fit, in the words that clients of the dialect look for. */
export function checkContext(
  { promptTokensEstimate: estimate }: InferenceRequest,
  dialect: Dialect,
  contextMax: number | null,
): void {
  const { name } = dialect;
  // the neuron counts exactly; a guess refuses only what no text of that length can be
  if (contextMax === null || estimate <= contextMax * guessMargin) return;
  const param = name === 'completions' ? 'prompt' : name === 'responses' ? 'input' : 'messages';
  const message =
    name === 'messages'
      ? tooLong(String(estimate), String(contextMax))
      : `This model's maximum context length is ${contextMax} tokens. However, your messages resulted in ` +
        `${estimate} tokens. Please reduce the length of the ${param}.`;
  throw new AppError('context_length_exceeded', message, {
    param,
    extras: { max: contextMax, estimated_prompt_tokens: estimate },
  });
}

/** A neuron's refusal, which is in OpenAI's words and names fields of chat; everything else as it came. */
export function inWordsOf(dialect: Dialect, thrown: unknown): unknown {
  if (!(thrown instanceof AppError)) return thrown;
  const isTooLong = dialect.name === 'messages' && thrown.code === 'context_length_exceeded';
  if (!isTooLong) return inNamesOf(dialect.fieldNames ?? [], thrown);
  const [, max, count] = openAiWords.exec(thrown.message) ?? [];
  if (max === undefined || count === undefined) return thrown;
  return new AppError(thrown.code, tooLong(count, max), { param: 'messages', cause: thrown });
}

const openAiWords = /maximum context length is (\d+) tokens\. .*?resulted in (?:at least )?(\d+) tokens/;

/** Agents read both numbers, and make their conversation shorter. */
function tooLong(tokens: string, max: string): string {
  return `prompt is too long: ${tokens} tokens > ${max} maximum`;
}
