/** What a neuron calls a field of chat -> what the client called it. */
import type { AppError } from 'cortex-core/wire/errors';
import { type FieldNames, inNamesOf } from '../field-names.ts';

const names: FieldNames = [
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
  return inNamesOf(names, error);
}
