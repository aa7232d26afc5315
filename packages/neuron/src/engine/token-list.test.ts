import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commonPrefix, TokenList } from './token-list.ts';

test('a list keeps what it was given and grows by what is pushed', () => {
  const source = Int32Array.of(1, 2, 3);
  const list = new TokenList(source, 1);
  source[0] = 99;
  for (let id = 4; id <= 200; id++) list.push(id);
  assert.deepEqual(
    [...list.view],
    Array.from({ length: 200 }, (_, at) => at + 1),
  );
  assert.equal(list.at(199), 200);
});

test('commonPrefix() counts from the start', () => {
  assert.equal(commonPrefix(Int32Array.of(1, 2, 3), Int32Array.of(1, 2, 4, 5)), 2);
  assert.equal(commonPrefix(Int32Array.of(1, 2), Int32Array.of(1, 2, 4)), 2);
  assert.equal(commonPrefix(new Int32Array(0), Int32Array.of(1)), 0);
});
