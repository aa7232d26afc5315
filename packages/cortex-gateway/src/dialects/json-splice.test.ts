import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTopLevelFields } from './json-splice.ts';

const set = (text: string, fields: Record<string, unknown> = { model: 'né/"w"' }): string =>
  setTopLevelFields(Buffer.from(text), fields).toString();
const name = '"né/\\"w\\""';

test('replaces the value and no other byte', () => {
  assert.equal(
    set(' { "a":"model", "model" :\t"x\\"y" ,"b":[{"model":"x"}]}\n'),
    ` { "a":"model", "model" :\t${name} ,"b":[{"model":"x"}]}\n`,
  );
});

test('finds a key with escapes, and every duplicate', () => {
  assert.equal(set('{"mod\\u0065l":"x","model":"y"}'), `{"mod\\u0065l":${name},"model":${name}}`);
});

test('replaces a value of any kind', () => {
  for (const value of ['7', '-1.5e3', 'null', '{"model":"a,}"}', '["model",{"b":"]"}]', '""']) {
    assert.equal(set(`{"x":1,"model": ${value} ,"y":"model"}`), `{"x":1,"model": ${name} ,"y":"model"}`);
    assert.equal(set(`{"model":${value}}`), `{"model":${name}}`);
  }
});

test('puts what is not there in front', () => {
  assert.equal(set('{ }', { a: 1, b: [2] }), '{"a":1,"b":[2] }');
  assert.equal(set('{"x":{"a":2}}', { a: { b: null } }), '{"a":{"b":null},"x":{"a":2}}');
  assert.equal(set('{"x":"a"}', { a: 1, x: 2, gone: undefined }), '{"a":1,"x":2}');
});

test('keeps bytes that are not UTF-8', () => {
  const bytes = Buffer.concat([Buffer.from('{"x":"'), Buffer.of(0xff, 0xc3), Buffer.from('","model":"a"}')]);
  const out = Buffer.from(setTopLevelFields(bytes, { model: 'b' }));
  assert.deepEqual(out, Buffer.concat([bytes.subarray(0, bytes.length - 4), Buffer.from('"b"}')]));
});
