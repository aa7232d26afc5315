import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { tinyFile } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import { checkAll, draw, schemas } from './structured-output.test.kit.ts';

const engine = new Engine({ nativeLog: false });
after(() => engine.close());

const draws = 200;

for (const [name, schema] of Object.entries(schemas)) {
  test(`${draws} answers of cortex-tiny at temperature 1.5 all satisfy "${name}"`, () => {
    const heard = draw(engine, tinyFile, schema, draws);
    checkAll(heard, schema);
    assert.ok(new Set(heard.map(({ text }) => text)).size > 5, 'the draws differ');
  });
}
