import assert from 'node:assert/strict';
import { test } from 'node:test';
import { proposeDraft } from './ngram-draft.ts';

const draft = (tokens: readonly number[], max: number): number[] => [
  ...proposeDraft(Int32Array.from(tokens), max),
];

test('what followed the same three tokens is proposed', () => {
  assert.deepEqual(draft([9, 1, 2, 3, 4, 5, 6, 8, 1, 2, 3], 3), [4, 5, 6]);
  assert.deepEqual(draft([9, 1, 2, 3, 4, 5, 6, 8, 1, 2, 3], 2), [4, 5]);
});

test('the place with the longest match wins over a later one', () => {
  assert.deepEqual(draft([5, 6, 1, 2, 3, 40, 7, 1, 2, 3, 50, 5, 6, 1, 2, 3], 1), [40]);
});

test('of equal matches the latest is taken', () => {
  assert.deepEqual(draft([1, 2, 3, 40, 1, 2, 3, 50, 1, 2, 3], 1), [50]);
});

test('a loop is continued past the end of what is known', () => {
  assert.deepEqual(draft([1, 2, 3, 1, 2, 3], 7), [1, 2, 3, 1, 2, 3, 1]);
});

test('nothing is proposed without three equal tokens, without room, or at a start', () => {
  assert.deepEqual(draft([7, 2, 3, 4, 8, 2, 3], 4), []);
  assert.deepEqual(draft([1, 2, 3, 4, 1, 2, 3], 0), []);
  assert.deepEqual(draft([1, 2, 3], 4), []);
  assert.deepEqual(draft([], 4), []);
});
