import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { createGrammarBuilder } from './grammar-builder.ts';
import { toResponseGrammar } from './response-grammar.ts';

function responseOf(schema: unknown): unknown {
  return { type: 'json_schema', json_schema: { name: 'answer', schema } };
}

function assertRefused(schema: unknown, param: string): void {
  assert.throws(
    () => toResponseGrammar(responseOf(schema)),
    (error: unknown) => {
      assert.ok(error instanceof AppError, String(error));
      assert.equal(error.code, 'invalid_request');
      assert.equal(error.param, `response_format.json_schema.schema${param}`, error.message);
      assert.ok(error.message.length < 400, error.message);
      return true;
    },
    JSON.stringify(schema).slice(0, 200),
  );
}

test('text needs no grammar, json_object and json_schema have one, anything else is refused', () => {
  assert.equal(toResponseGrammar(undefined), null);
  assert.equal(toResponseGrammar({ type: 'text' }), null);
  assert.match(toResponseGrammar({ type: 'json_object' })?.gbnf ?? '', /::=/);
  assert.match(toResponseGrammar(responseOf({ type: 'string' }))?.gbnf ?? '', /::=/);
  const asLlama = { type: 'json_object', schema: { const: 7 } };
  assert.match(toResponseGrammar(asLlama)?.gbnf ?? '', /"7"/);
  for (const bad of [{ type: 'xml' }, {}, 'json', { type: 'json_schema' }, []]) {
    assert.throws(() => toResponseGrammar(bad), AppError);
  }
});

test('a keyword that cannot be enforced is refused by name', () => {
  const inProperty = (schema: unknown): unknown => ({ type: 'object', properties: { x: schema } });
  const cases: readonly (readonly [unknown, string])[] = [
    [inProperty({ not: { type: 'string' } }), '.properties.x.not'],
    [{ type: 'array', items: { if: {}, else: {} } }, '.items.if'],
    [{ type: 'object', dependentRequired: { a: ['b'] } }, '.dependentRequired'],
    [{ type: 'object', dependentSchemas: {} }, '.dependentSchemas'],
    [{ type: 'object', unevaluatedProperties: false }, '.unevaluatedProperties'],
    [{ type: 'array', contains: { type: 'string' } }, '.contains'],
    [{ type: 'array', uniqueItems: true }, '.uniqueItems'],
    [{ type: 'string', format: 'regex' }, '.format'],
    [{ type: 'string', format: 'colour' }, '.format'],
    [{ type: 'string', pattern: '^(?=a)b$' }, '.pattern'],
    [{ type: 'string', pattern: '(a)\\1' }, '.pattern'],
    [{ type: 'string', pattern: '\\bword\\b' }, '.pattern'],
    [{ type: 'string', pattern: '(' }, '.pattern'],
    [{ type: 'string', pattern: 'a^b' }, '.pattern'],
    [{ type: 'number', multipleOf: 0.3 }, '.multipleOf'],
    [{ type: 'object', minProperties: 3, additionalProperties: { type: 'string' } }, '.minProperties'],
    [{ oneOf: [{ type: 'number' }, { type: 'integer' }] }, '.oneOf'],
    [{ type: 'object', patternProperties: { '^a': {}, '^b': {} } }, '.patternProperties'],
    [{ allOf: [{ type: 'string', format: 'date' }, { format: 'time' }] }, '.allOf'],
    [{ type: 'string', format: 'date', pattern: '^[a-z]*$' }, '.pattern'],
    [{ type: 'string', pattern: 'x(?!a)b' }, '.pattern'],
  ];
  for (const [schema, param] of cases) assertRefused(schema, param);
});

test('a schema that is wrong, or that nothing satisfies, is refused at its place', () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [{ type: 'text' }, '.type'],
    [{ type: [] }, '.type'],
    [false, ''],
    [7, ''],
    [{ type: 'object', properties: { x: 3 } }, '.properties.x'],
    [{ type: 'object', properties: [] }, '.properties'],
    [{ type: 'object', required: 'x' }, '.required'],
    [{ type: 'object', required: ['x'], additionalProperties: false }, '.required'],
    [{ type: 'object', properties: { x: false }, required: ['x'] }, '.properties.x'],
    [{ type: 'string', minLength: 5, maxLength: 2 }, '.maxLength'],
    [{ type: 'string', minLength: -1 }, '.minLength'],
    [{ type: 'integer', minimum: 5, maximum: 4 }, ''],
    [{ type: 'integer', minimum: '5' }, '.minimum'],
    [{ type: 'integer', exclusiveMinimum: 1, exclusiveMaximum: 2 }, '.exclusiveMinimum'],
    [{ type: 'array', items: false, minItems: 1 }, '.minItems'],
    [{ enum: [] }, '.enum'],
    [{ enum: ['a'], type: 'number' }, '.enum'],
    [{ const: 3, minimum: 4 }, '.const'],
    [{ allOf: [{ type: 'string' }, { type: 'number' }] }, ''],
    [{ anyOf: [] }, '.anyOf'],
    [{ type: 'string', not: true }, '.not'],
    [{ type: 'array', contains: true }, '.contains'],
    [{ type: 'object', properties: { next: { $ref: '#' } }, required: ['next'] }, ''],
    [{ type: 'array', items: { anyOf: [{ $ref: '#' }] }, minItems: 1 }, ''],
    [{ $ref: 'other.json#/x' }, '.$ref'],
    [{ $ref: '#/$defs/none' }, '.$ref'],
  ];
  for (const [schema, param] of cases) assertRefused(schema, param);
});

test('what a builder widens it does not refuse', () => {
  const schema = {
    type: 'object',
    properties: { x: { type: 'string', not: { const: 'b' }, pattern: '(?=a)' } },
  };
  assert.throws(() => createGrammarBuilder().addSchema(schema), AppError);
  const builder = createGrammarBuilder({ unsupported: 'widen' });
  const name = builder.addSchema(schema, 'arguments');
  assert.match(builder.toString(), new RegExp(`^${name} ::=`, 'm'));
});
