/** What a neuron calls a field of chat -> what the client called it. */
import { AppError } from 'cortex-core/wire/errors';

const names: readonly (readonly [RegExp, string])[] = [
  [/^messages(?:\..*)?$/, 'input'],
  // the client's list has more in it than the neuron's
  [/^tools\..*$/, 'tools'],
  [/^response_format\.json_schema\b/, 'text.format'],
  [/^response_format\b/, 'text.format'],
  [/^max_(?:completion_)?tokens$/, 'max_output_tokens'],
  [/^(?:reasoning_effort|enable_thinking|thinking_budget_tokens)$/, 'reasoning.effort'],
];

/** The same error about the field that the client sent. */
export function inClientsWords(error: AppError): AppError {
  const { param, code, message, retryAfterSecs, extras, cause, detail } = error;
  const rule = param === null ? undefined : names.find(([pattern]) => pattern.test(param));
  if (param === null || rule === undefined) return error;
  return new AppError(code, message, {
    param: param.replace(...rule),
    ...{ extras, cause, detail },
    ...(retryAfterSecs === null ? {} : { retryAfterSecs }),
  });
}
