/** What every Ollama request is read with. */
import { AppError } from 'cortex-core/wire/errors';
import type { OllamaOptions } from 'cortex-core/wire/ollama';
import type { z } from 'zod';
import type { FieldNames } from '../field-names.ts';
import type { JsonObject } from '../request-body.ts';
import { parseObject } from '../request-body.ts';

/** Ollama's older name of the model is `name`. Throws `invalid_request` with the path of the field. */
export function parseOllama<T extends z.ZodType>(schema: T, body: Uint8Array): z.output<T> {
  const json = parseObject(body);
  const named = json.model === undefined && json.name !== undefined ? { ...json, model: json.name } : json;
  if (named.model === undefined || named.model === '') {
    throw new AppError('missing_model_field', 'model is required; GET /api/tags lists what there is', {
      param: 'model',
    });
  }
  const parsed = schema.safeParse(named);
  if (parsed.success) return parsed.data;
  const { path, message } = firstFault(parsed.error.issues[0]);
  throw new AppError('invalid_request', `${path || 'the body'}: ${message}`, { param: path });
}

/** Into the branch of a union that got furthest: its path names the field. */
function firstFault(issue: z.core.$ZodIssue | undefined): {
  readonly path: string;
  readonly message: string;
} {
  if (issue === undefined) return { path: '', message: 'wrong shape' };
  const path = issue.path.map(String).join('.');
  if (issue.code !== 'invalid_union') return { path, message: issue.message };
  const inner = issue.errors.flat().find((each) => each.path.length > 0);
  if (inner === undefined) return { path, message: 'none of the accepted types or values' };
  const found = firstFault(inner);
  return { path: `${path}.${found.path}`, message: found.message };
}

/** Chat fields of the same meaning. */
const sameNames = [
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'typical_p',
  'seed',
  'repeat_penalty',
  'repeat_last_n',
  'presence_penalty',
  'frequency_penalty',
] as const;

/** What a neuron calls a field -> what it is here. */
export const fieldNames: FieldNames = [
  [/^response_format\.json_schema\.schema\b/, 'format'],
  [/^max_tokens$/, 'options.num_predict'],
  [new RegExp(`^(${sameNames.join('|')}|stop)\\b`), 'options.$1'],
];

export function toSampling(options: OllamaOptions | null | undefined): JsonObject {
  const given = sameNames.flatMap((name) => {
    const value = options?.[name];
    return value === undefined || value === null ? [] : [[name, value] as const];
  });
  return Object.fromEntries(given);
}

/** null = as many as the model may: Ollama's -1 (endless) and -2 (to fill the context) both. */
export function toMaxTokens(options: OllamaOptions | null | undefined): number | null {
  const { num_predict: asked } = options ?? {};
  return typeof asked === 'number' && asked > 0 ? asked : null;
}

export function toStops(options: OllamaOptions | null | undefined): readonly string[] {
  const { stop } = options ?? {};
  if (stop === undefined || stop === null || stop === '') return [];
  return typeof stop === 'string' ? [stop] : stop;
}
