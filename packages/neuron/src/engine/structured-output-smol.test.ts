import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { testModel } from 'testkit/test-models';
import { Engine } from './engine.ts';
import { checkAll, draw, schemas } from './structured-output.test.kit.ts';

const smol = testModel('SmolLM2-135M-Instruct.Q4_1.gguf');
const engine = new Engine({ nativeLog: false });
after(() => engine.close());

/** Few tokens each: 135M parameters on two cores take long for more. */
const short: Readonly<Record<string, unknown>> = {
  verdict: { enum: ['yes', 'no', 'perhaps', 7, null, true] },
  sum: { type: 'integer', minimum: -40, maximum: 1200, multipleOf: 4 },
  size: {
    type: 'object',
    properties: { w: { type: 'integer', minimum: 1, maximum: 9 } },
    required: ['w'],
    additionalProperties: false,
  },
};

for (const [name, schema] of Object.entries(short)) {
  test(`200 answers of SmolLM2 at temperature 1.5 all satisfy "${name}"`, { skip: smol.skip }, () => {
    const heard = draw(engine, smol.file, schema, 200, { threads: 2 });
    checkAll(heard, schema);
    assert.ok(new Set(heard.map(({ text }) => text)).size > 3, 'the draws differ');
  });
}

test('answers of SmolLM2 at temperature 1.5 satisfy every longer schema', { skip: smol.skip }, () => {
  for (const [name, schema] of Object.entries(schemas)) {
    // A list without end is cut by the budget now and then.
    if (name !== 'list') checkAll(draw(engine, smol.file, schema, 4, { threads: 2 }), schema);
  }
});
