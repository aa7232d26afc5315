import { after, test } from 'node:test';
import { testModel } from 'testkit/test-models';
import { Engine } from './engine.ts';
import { checkAll, draw, schemas } from './structured-output.test.kit.ts';

const smol = testModel('SmolLM2-135M-Instruct.Q4_1.gguf');
const engine = new Engine({ nativeLog: false });
after(() => engine.close());

/** Short: 135M parameters on one busy core decode some tens of tokens a second. */
const verdict = {
  type: 'array',
  prefixItems: [{ enum: ['yes', 'no', null] }, { type: 'integer', minimum: 1, maximum: 120 }],
  items: false,
  minItems: 2,
};

test('200 answers of SmolLM2 at temperature 1.5 all satisfy one schema', { skip: smol.skip }, () => {
  checkAll(draw(engine, smol.file, verdict, 200), verdict);
});

test('answers of SmolLM2 at temperature 1.5 satisfy every other schema', { skip: smol.skip }, () => {
  for (const [name, schema] of Object.entries(schemas)) {
    // A list without end is cut by the budget now and then.
    if (name !== 'list') checkAll(draw(engine, smol.file, schema, 4), schema);
  }
});
