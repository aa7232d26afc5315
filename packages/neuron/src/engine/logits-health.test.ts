import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isSamplable, logitsHealth } from './logits-health.ts';

const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: negInf } = Number;

test('logitsHealth() counts each kind and describes the finite ones', () => {
  assert.deepEqual(logitsHealth(Float32Array.of(nan, inf, inf, negInf, -2, 0, 5)), {
    len: 7,
    nan: 1,
    pos_inf: 2,
    neg_inf: 1,
    neg: 1,
    finite_min: -2,
    finite_max: 5,
    finite_mean: 1,
  });
});

test('logitsHealth() of a row without finite values has nulls', () => {
  assert.deepEqual(logitsHealth(Float32Array.of(nan)), {
    len: 1,
    nan: 1,
    pos_inf: 0,
    neg_inf: 0,
    neg: 0,
    finite_min: null,
    finite_max: null,
    finite_mean: null,
  });
  assert.equal(logitsHealth(new Float32Array(0)).finite_mean, null);
});

test('isSamplable() lets masked tokens pass, not NaN or +Infinity', () => {
  assert.equal(isSamplable(Float32Array.of(1, negInf)), true);
  assert.equal(isSamplable(Float32Array.of(1, nan)), false);
  assert.equal(isSamplable(Float32Array.of(1, inf)), false);
});
