import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planPrefill, stepTokensMax } from './plan-step.ts';

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

test('planPrefill() gives one prompt the whole graph when nothing decodes', () => {
  assert.deepEqual(planPrefill({ decoding: 0, pending: [1000], ubatch: 512, turn: 0 }), [512]);
});

test('planPrefill() leaves no rest too short for the quick attention, where the share allows it', () => {
  assert.deepEqual(planPrefill({ decoding: 0, pending: [562], ubatch: 512, turn: 0 }), [498]);
  assert.deepEqual(planPrefill({ decoding: 0, pending: [576], ubatch: 512, turn: 0 }), [512]);
  assert.deepEqual(planPrefill({ decoding: 0, pending: [512], ubatch: 512, turn: 0 }), [512]);
  assert.deepEqual(planPrefill({ decoding: 0, pending: [90], ubatch: 64, turn: 0 }), [64]);
});

test('planPrefill() leaves the most of a step to running streams', () => {
  assert.deepEqual(planPrefill({ decoding: 8, pending: [1000], ubatch: 512, turn: 0 }), [120]);
});

test('planPrefill() shares evenly and gives what a short prompt leaves to the others', () => {
  assert.deepEqual(planPrefill({ decoding: 0, pending: [1000, 1000], ubatch: 512, turn: 3 }), [256, 256]);
  assert.deepEqual(
    planPrefill({ decoding: 0, pending: [12, 1000, 1000], ubatch: 512, turn: 0 }),
    [12, 250, 250],
  );
});

test('planPrefill() never exceeds need or budget and always moves on', () => {
  for (let turn = 0; turn < 50; turn++) {
    for (const decoding of [0, 1, 7, 64, 600]) {
      for (const ubatch of [1, 16, 64, 512]) {
        const pending = Array.from(
          { length: 1 + (turn % 9) },
          (_, index) => ((index * 37 + turn * 11) % 400) + 1,
        );
        const shares = planPrefill({ decoding, pending, ubatch, turn });
        assert.ok(shares.every((share, index) => share >= 0 && share <= pending[index]!));
        assert.ok(sum(shares) > 0);
        assert.ok(decoding + sum(shares) <= stepTokensMax(decoding, ubatch));
      }
    }
  }
});

test('planPrefill() starves nobody when there are more prompts than tokens', () => {
  const pending = new Array(40).fill(5);
  const got = new Array(40).fill(0);
  for (let turn = 0; turn < 40; turn++) {
    for (const [index, share] of planPrefill({ decoding: 30, pending, ubatch: 64, turn }).entries()) {
      got[index] += share;
    }
  }
  assert.ok(Math.min(...got) > 0);
});
