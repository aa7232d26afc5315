/** A neuron's refusal names the fields of chat; a client knows those that it sent. */
import { AppError } from 'cortex-core/wire/errors';

/** What a neuron calls a field -> what the client called it. The first that matches counts. */
export type FieldNames = readonly (readonly [RegExp, string])[];

/** The same error about the client's field, in `param` and where the message names it. */
export function inNamesOf(names: FieldNames, error: AppError): AppError {
  const { param, code, message, retryAfterSecs, extras, cause, detail } = error;
  const rule = param === null ? undefined : names.find(([pattern]) => pattern.test(param));
  if (param === null || rule === undefined) return error;
  const named = param.replace(...rule);
  // the field's name may be a word of the sentence too
  const told = message.startsWith(param)
    ? named + message.slice(param.length)
    : message.replace(`"${param}"`, () => `"${named}"`);
  return new AppError(code, told, {
    param: named,
    ...{ extras, cause, detail },
    ...(retryAfterSecs === null ? {} : { retryAfterSecs }),
  });
}
