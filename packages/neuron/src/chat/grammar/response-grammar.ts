import { AppError } from 'cortex-core/wire/errors';
import type { GrammarSpec } from 'cortex-core/wire/inference';
import { createGrammarBuilder } from './grammar-builder.ts';

/**
 * OpenAI's `response_format` -> what the answer must match; null for text.
 * Errors: `invalid_request` naming the field or the keyword that cannot be enforced.
 */
export function toResponseGrammar(format: unknown): GrammarSpec | null {
  if (format === undefined || format === null) return null;
  const fields = (typeof format === 'object' ? format : {}) as Record<string, unknown>;
  const { type, json_schema: wrapped, schema: bare } = fields;
  if (type === 'text') return null;
  if (type === 'json_object') {
    // llama.cpp's own clients put a schema here.
    return toGrammar(bare ?? { type: 'object' }, 'response_format.schema');
  }
  if (type !== 'json_schema') {
    throw invalid('response_format.type', 'must be "text", "json_object" or "json_schema"');
  }
  if (typeof wrapped !== 'object' || wrapped === null) {
    throw invalid('response_format.json_schema', 'is missing: {"name": ..., "schema": ...}');
  }
  const { schema } = wrapped as Record<string, unknown>;
  return toGrammar(schema ?? { type: 'object' }, 'response_format.json_schema.schema');
}

function toGrammar(schema: unknown, param: string): GrammarSpec {
  const builder = createGrammarBuilder({ param });
  const root = builder.addSchema(schema, 'answer');
  return { gbnf: builder.toString(), root };
}

function invalid(param: string, why: string): AppError {
  return new AppError('invalid_request', `${param} ${why}`, { param });
}
