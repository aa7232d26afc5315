import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { AppError } from 'cortex-core/wire/errors';
import { type CompiledGrammar, createGrammarCache } from '../../engine/grammar/compiled-grammar.ts';
import type { GrammarState } from '../../engine/grammar/grammar-machine.ts';
import { toResponseGrammar } from './response-grammar.ts';
import { createRandom, liftDefs, type Random, randomSchema } from './schema-cases.test.kit.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
// It divides doubles: 0.07 / 0.01 is 7.000000000000001 there.
const ajv = new Ajv2020({ strict: false, multipleOfPrecision: 3 });
addFormats.default(ajv);

/** A vocabulary is not needed to read bytes. */
const grammars = createGrammarCache({
  size: 0,
  eogTokens: [],
  isEog: () => false,
  pieceOf: () => ({ bytes: new Uint8Array() }),
  tokenize: () => new Int32Array(),
});

function compile(schema: unknown): CompiledGrammar {
  const spec = toResponseGrammar({ type: 'json_schema', json_schema: { name: 'answer', schema } });
  assert.ok(spec !== null);
  return grammars.compile(spec.gbnf, spec.root ?? 'root');
}

function accepts({ machine }: CompiledGrammar, text: string): boolean {
  machine.beginToken();
  let state: GrammarState | null = machine.start;
  for (const byte of new TextEncoder().encode(text)) {
    state = machine.step(state, byte);
    if (state === null) return false;
  }
  return state.isEnd;
}

/** A text that the grammar allows, byte by byte at random; null when it did not end in time. */
function speak({ machine }: CompiledGrammar, random: Random): string | null {
  const bytes: number[] = [];
  let state: GrammarState = machine.start;
  while (bytes.length < 4000) {
    machine.beginToken();
    const ways: number[] = [];
    for (let byte = 0; byte < 256; byte++) if (machine.step(state, byte) !== null) ways.push(byte);
    if (state.isEnd && (ways.length === 0 || random() < 0.5))
      return new TextDecoder().decode(Uint8Array.from(bytes));
    const closing = ways.filter((byte) => '"]}'.includes(String.fromCharCode(byte)));
    const from = closing.length > 0 && random() < 0.4 ? closing : ways;
    const byte = from[Math.floor(random() * from.length)] as number;
    bytes.push(byte);
    state = machine.step(state, byte) as GrammarState;
  }
  return null;
}

function isValid(validate: ValidateFunction, text: string): boolean {
  try {
    return validate(JSON.parse(text));
  } catch {
    return false;
  }
}

test('the grammar of a random schema accepts its values, and nothing that is not one', () => {
  console.log(`SEED=${seed}`);
  const random = createRandom(seed);
  let [spoken, mutants] = [0, 0];
  for (let round = 0; round < 300; round++) {
    const { schema: loose, make } = randomSchema(random);
    const schema = liftDefs(loose);
    const note = `SEED=${seed} round ${round} ${JSON.stringify(schema)}`;
    const grammar = compile(schema);
    const validate = ajv.compile(schema as object);
    for (let draw = 0; draw < 4; draw++) {
      const value = make();
      const text = JSON.stringify(value);
      assert.ok(validate(value), `the maker is wrong: ${text} ${note}`);
      assert.ok(accepts(grammar, text), `refused ${text} ${note}`);
      assert.ok(accepts(grammar, JSON.stringify(value, null, 2)), `refused the indented ${text} ${note}`);
      for (let change = 0; change < 6; change++) {
        const mutant = mutate(text, random);
        if (!accepts(grammar, mutant)) continue;
        mutants++;
        assert.ok(isValid(validate, mutant), `accepted ${mutant} ${note}`);
      }
      const said = speak(grammar, random);
      if (said === null) continue;
      spoken++;
      assert.ok(isValid(validate, said), `said ${said} ${JSON.stringify(validate.errors)} ${note}`);
    }
  }
  assert.ok(spoken > 500 && mutants > 100, `too little was tried: ${spoken} spoken, ${mutants} mutants`);
});

/** One small change somewhere: a character gone, doubled, swapped for another. */
function mutate(text: string, random: Random): string {
  const chars = [...text];
  const at = Math.floor(random() * chars.length);
  const other = [...'0123456789-.eE"{}[],: \\ntruefalsabcxyzé'];
  const swapped = other[Math.floor(random() * other.length)] as string;
  const way = Math.floor(random() * 3);
  if (way === 0) chars.splice(at, 1);
  else if (way === 1) chars.splice(at, 0, swapped);
  else chars[at] = swapped;
  return chars.join('');
}

test('bounds of numbers are exact on both sides', () => {
  const random = createRandom(seed + 1);
  for (let round = 0; round < 200; round++) {
    const scale = 10 ** Math.floor(random() * 4);
    const [a, b] = [random() * 4000 - 2000, random() * 4000 - 2000].map((value) => Math.round(value) / scale);
    const [minimum, maximum] = [Math.min(a as number, b as number), Math.max(a as number, b as number)];
    const grammar = compile({ type: 'number', minimum, maximum });
    const strict = compile({ type: 'number', exclusiveMinimum: minimum, exclusiveMaximum: maximum + 1 });
    for (const value of [minimum, maximum, (minimum + maximum) / 2]) {
      const text = String(Number(value.toFixed(4)));
      assert.ok(accepts(grammar, text), `${text} in ${minimum}..${maximum}`);
    }
    for (const value of [minimum - 0.001, maximum + 0.001, minimum - 1, maximum + 5000, minimum - 5000]) {
      const text = String(Number(value.toFixed(4)));
      assert.ok(!accepts(grammar, text), `${text} not in ${minimum}..${maximum}`);
    }
    assert.ok(!accepts(strict, String(minimum)), `${minimum} is excluded`);
    assert.ok(!accepts(strict, String(maximum + 1)), `${maximum + 1} is excluded`);
  }
});

test('two spellings of one key cannot slip past additionalProperties', () => {
  const grammar = compile({
    type: 'object',
    properties: { ab: { type: 'null' } },
    additionalProperties: { type: 'boolean' },
  });
  assert.ok(accepts(grammar, '{"ab": null, "abc": true}'));
  assert.ok(accepts(grammar, '{"a": true, "b": false}'));
  assert.ok(!accepts(grammar, '{"ab": true}'));
  assert.ok(!accepts(grammar, '{"\\u0061b": true}'));
});

test('what OpenAI calls strict works: every property required, nothing else, null for what may be missing', () => {
  const grammar = compile({
    type: 'object',
    properties: {
      steps: {
        type: 'array',
        items: { $ref: '#/$defs/step' },
      },
      answer: { type: ['string', 'null'] },
    },
    required: ['steps', 'answer'],
    additionalProperties: false,
    $defs: {
      step: {
        type: 'object',
        properties: {
          explanation: { type: 'string' },
          output: { anyOf: [{ type: 'number' }, { $ref: '#' }] },
        },
        required: ['explanation', 'output'],
        additionalProperties: false,
      },
    },
  });
  assert.ok(accepts(grammar, '{"steps":[{"explanation":"x","output":4}],"answer":null}'));
  assert.ok(
    accepts(grammar, '{"steps":[{"explanation":"","output":{"steps":[],"answer":"a"}}],"answer":"b"}'),
  );
  assert.ok(!accepts(grammar, '{"steps":[]}'));
  assert.ok(!accepts(grammar, '{"steps":[],"answer":3}'));
  assert.ok(!accepts(grammar, '{"steps":[],"answer":null,"more":1}'));
});

test('a hostile schema is refused with a reason, and no answer can come of it', () => {
  const nest = (depth: number, wrap: (inner: unknown) => unknown): unknown => {
    let schema: unknown = { type: 'string' };
    for (let level = 0; level < depth; level++) schema = wrap(schema);
    return schema;
  };
  const cases: Readonly<Record<string, unknown>> = {
    'depth of 10,000': nest(10_000, (items) => ({ type: 'array', items })),
    'depth of 10,000 in anyOf': nest(10_000, (one) => ({ anyOf: [one] })),
    'ten megabytes': { type: 'string', description: 'x'.repeat(10_000_000) },
    'ten megabytes of properties': {
      type: 'object',
      properties: Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`property number ${i}`, {}])),
    },
    '100,000 enum values': { enum: Array.from({ length: 100_000 }, (_, i) => `value ${i}`) },
    'a reference to itself': { $ref: '#' },
    'a circle of references': {
      $ref: '#/$defs/a',
      $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } },
    },
    'a circle of choices': { anyOf: [{ $ref: '#' }, { $ref: '#' }] },
    'a circle of allOf': { allOf: [{ $ref: '#' }] },
    'a value that needs itself': {
      type: 'object',
      properties: { next: { $ref: '#' } },
      required: ['next'],
      additionalProperties: false,
    },
    'nested counts': {
      type: 'string',
      pattern: `^${'('.repeat(40)}a${'{1000})'.repeat(40)}{2}$`,
      maxLength: 9,
    },
    'an automaton of every letter': {
      type: 'string',
      pattern: `^(${'[a-z]*'.repeat(1200)})*[a-m](${'[a-z]?'.repeat(500)})$`,
      maxLength: 3000,
    },
    'enum under a large pattern': {
      enum: Array.from({ length: 4000 }, (_, i) => `${'a'.repeat(60)}${i}`),
      pattern: `^(${'a?'.repeat(400)})*$`,
    },
    'a class of a hundred thousand characters': {
      type: 'string',
      pattern: `[${Array.from({ length: 100_000 }, (_, i) => String.fromCodePoint(0x10000 + 2 * i)).join('')}]`,
      maxLength: 3,
    },
    'doubling allOf': {
      $ref: '#/$defs/d0',
      $defs: Object.fromEntries(
        Array.from({ length: 60 }, (_, i): [string, unknown] => [
          `d${i}`,
          { allOf: [{ $ref: `#/$defs/d${i + 1}` }, { $ref: `#/$defs/d${i + 1}` }] },
        ]).concat([['d60', { type: 'string' }]]),
      ),
    },
    'thousands of branches beside a large base': {
      type: 'object',
      properties: Object.fromEntries(
        Array.from({ length: 900 }, (_, i) => [`p${i}`, { const: 'x'.repeat(400) }]),
      ),
      anyOf: Array.from({ length: 4000 }, (_, i) => ({ required: [`p${i % 900}`, `p${(i * 7) % 900}`] })),
    },
    'groups 10,000 deep': { type: 'string', pattern: '('.repeat(10_000) + ')'.repeat(10_000) },
    'doubling references': {
      $ref: '#/$defs/d0',
      $defs: Object.fromEntries(
        Array.from({ length: 60 }, (_, i): [string, unknown] => [
          `d${i}`,
          {
            allOf: [
              { anyOf: [{ $ref: `#/$defs/d${i + 1}` }, { type: 'null' }] },
              { anyOf: [{}, { title: 'x' }] },
            ],
          },
        ]).concat([['d60', { type: 'string' }]]),
      ),
    },
  };
  for (const [name, schema] of Object.entries(cases)) {
    let reason = '';
    try {
      const grammar = compile(schema);
      assert.ok(name === 'doubling references', `${name} was compiled`);
      assert.ok(grammar.machine.start);
    } catch (error) {
      assert.ok(error instanceof AppError, `${name}: ${String(error)}`);
      assert.equal(error.status, 400, name);
      reason = error.message;
      assert.ok(reason.length < 500, reason);
    }
  }
});

test('a pattern that makes backtracking matchers hang is enforced, or refused, in no time', () => {
  const grammar = compile({ type: 'string', pattern: '^(a+)+$' });
  assert.ok(accepts(grammar, `"${'a'.repeat(5000)}"`));
  assert.ok(!accepts(grammar, `"${'a'.repeat(5000)}!"`));
  const bomb = compile({ enum: [`${'a'.repeat(50)}!`, 'aaa'], pattern: '^(a|a)*$' });
  assert.ok(accepts(bomb, '"aaa"'));
  assert.ok(!accepts(bomb, `"${'a'.repeat(50)}!"`));
});
