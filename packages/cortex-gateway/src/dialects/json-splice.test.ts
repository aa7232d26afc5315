import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spliceTopLevelString } from './json-splice.ts';

const splice = (text: string): string =>
  spliceTopLevelString(Buffer.from(text), 'model', 'né/"w"').toString();
const name = '"né/\\"w\\""';

test('replaces the value and no other byte', () => {
  assert.equal(
    splice('{ "a":"model", "model" :\t"x\\"y" ,"b":[{"model":"x"}]}'),
    `{ "a":"model", "model" :\t${name} ,"b":[{"model":"x"}]}`,
  );
});

test('finds a key with escapes, and every duplicate', () => {
  assert.equal(splice('{"mod\\u0065l":"x","model":"y"}'), `{"mod\\u0065l":${name},"model":${name}}`);
});

test('leaves what is not a string, nested, or a value named model', () => {
  for (const text of [
    '{"model":7}',
    '{"x":{"model":"a"}}',
    '{"x":"model"}',
    '{"model":["a"]}',
    '{"model":{"model":"a"}}',
  ]) {
    assert.equal(splice(text), text);
  }
});

test('keeps bytes that are not UTF-8', () => {
  const bytes = Buffer.concat([Buffer.from('{"x":"'), Buffer.of(0xff, 0xc3), Buffer.from('","model":"a"}')]);
  const out = Buffer.from(spliceTopLevelString(bytes, 'model', 'b'));
  assert.deepEqual(out, Buffer.concat([bytes.subarray(0, bytes.length - 4), Buffer.from('"b"}')]));
});
