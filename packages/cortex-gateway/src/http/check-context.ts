import { AppError } from 'cortex-core/wire/errors';
import type { Dialect, InferenceRequest } from '../dialects/dialect.ts';

/** Refuses a prompt that cannot fit, in the words that clients of the dialect look for. */
export function checkContext(
  { promptTokensEstimate: estimate }: InferenceRequest,
  dialect: Dialect,
  contextMax: number | null,
): void {
  if (contextMax === null || estimate <= contextMax) return;
  const { name } = dialect;
  const param = name === 'completions' ? 'prompt' : name === 'responses' ? 'input' : 'messages';
  const message =
    name === 'messages'
      ? `prompt is too long: ${estimate} tokens > ${contextMax} maximum`
      : `This model's maximum context length is ${contextMax} tokens. However, your messages resulted in ` +
        `${estimate} tokens. Please reduce the length of the ${param}.`;
  throw new AppError('context_length_exceeded', message, {
    param,
    extras: { max: contextMax, estimated_prompt_tokens: estimate },
  });
}
