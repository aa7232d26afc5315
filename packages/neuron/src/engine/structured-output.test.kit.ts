/** Schemas, answers drawn under them, and the judge of both: not part of the product. */
import assert from 'node:assert/strict';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { toResponseGrammar } from '../chat/grammar/response-grammar.ts';
import { drain, type Heard, listen, requestFor, tinySpec } from './engine.test.kit.ts';
import type { Engine } from './engine.ts';

const tokensMax = 700;
const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);

const text = { type: 'string', maxLength: 12 };
/** Bounded, so that every answer ends within `tokensMax`. */
export const schemas: Readonly<Record<string, unknown>> = {
  person: {
    type: 'object',
    properties: {
      name: { type: 'string', minLength: 2, maxLength: 12 },
      age: { type: 'integer', minimum: 18, maximum: 130 },
      role: { enum: ['admin', 'user', 'guest'] },
      note: { type: ['string', 'null'], maxLength: 8 },
    },
    required: ['name', 'age', 'role'],
    additionalProperties: false,
  },
  event: {
    type: 'object',
    properties: {
      day: { type: 'string', format: 'date' },
      at: { type: 'string', format: 'date-time' },
      id: { type: 'string', format: 'uuid' },
      host: { type: 'string', format: 'ipv4' },
      code: { type: 'string', pattern: '^[A-Z]{2}-\\d{3}$' },
    },
    required: ['day', 'code'],
  },
  numbers: {
    type: 'array',
    prefixItems: [
      { type: 'number', exclusiveMinimum: 0, maximum: 0.75 },
      { type: 'integer', multipleOf: 7, minimum: -50, maximum: 1000 },
      { type: 'number', minimum: -1.5, exclusiveMaximum: 2.25 },
    ],
    items: { type: 'integer', exclusiveMinimum: 98, maximum: 1204 },
    minItems: 3,
    maxItems: 5,
  },
  list: {
    $ref: '#/$defs/node',
    $defs: {
      node: {
        type: 'object',
        properties: {
          value: { anyOf: [{ type: 'boolean' }, text, { const: { fixed: [1, 'two', null] } }] },
          next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] },
        },
        required: ['value', 'next'],
        additionalProperties: false,
      },
    },
  },
  choice: {
    oneOf: [
      {
        type: 'object',
        properties: { kind: { const: 'circle' }, r: { type: 'number' } },
        required: ['kind', 'r'],
      },
      { type: 'object', properties: { kind: { const: 'label' }, text }, required: ['kind', 'text'] },
    ],
  },
  map: {
    type: 'object',
    additionalProperties: { type: ['boolean', 'null'] },
    propertyNames: { pattern: '^[a-z_]{1,8}$' },
    maxProperties: 3,
  },
  joined: {
    allOf: [
      { type: 'object', properties: { a: { type: 'integer', minimum: 3 } }, required: ['a'] },
      { properties: { a: { type: 'number', maximum: 12 }, b: text } },
    ],
  },
};

/** All answers of one model to one schema, at a temperature at which it mostly wants something else. */
export function draw(
  engine: Engine,
  file: string,
  schema: unknown,
  draws: number,
  over: Partial<LoadSpec> = {},
): Heard[] {
  const model = engine.load(tinySpec({ file, slots: 8, context: 768, ubatch: 256, ...over }));
  const grammar = toResponseGrammar({ type: 'json_schema', json_schema: { name: 'answer', schema } });
  // Short: each draw reads it anew.
  const tokens = model.tokenize('JSON:', { addSpecial: true, parseSpecial: true });
  const heard = Array.from({ length: draws }, (_, seed) =>
    listen(
      model,
      requestFor(tokens, { grammar, maxTokens: tokensMax, sampling: { temperature: 1.5, seed } }),
    ),
  );
  drain(model, 200_000);
  model.close();
  return heard;
}

/** Every answer ended by itself and is valid JSON of the schema, by a validator that is not ours. */
export function checkAll(heard: readonly Heard[], schema: unknown): void {
  const isValid = ajv.compile(schema as object);
  for (const [seed, { text: answer, result, error }] of heard.entries()) {
    assert.equal(error, null, `seed ${seed}: ${error?.message}`);
    assert.equal(result?.finishReason, 'stop', `seed ${seed} was cut: ${answer}`);
    assert.ok(isValid(JSON.parse(answer)), `seed ${seed}: ${answer} ${JSON.stringify(isValid.errors)}`);
  }
}
