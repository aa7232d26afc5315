import assert from 'node:assert/strict';
import { test } from 'node:test';
import { placeOfGreatest } from './greatest.ts';

/** libllama's: goes on from the first entry to whatever is greater. */
function byLoop(values: Float32Array): number {
  let place = 0;
  for (const [at, value] of values.entries()) if (value > (values[place] as number)) place = at;
  return place;
}

test('placeOfGreatest() is what a plain loop finds: ties, infinities, NaN, any length', () => {
  const special = [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 0, -0, 1, 1, 2];
  let state = Number(process.env.SEED ?? Date.now() % 1e6);
  const seed = state;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let round = 0; round < 2000; round++) {
    const values = Float32Array.from({ length: 1 + Math.floor(random() * 40) }, () =>
      random() < 0.3 ? (special[Math.floor(random() * special.length)] as number) : random() * 10 - 5,
    );
    assert.equal(placeOfGreatest(values), byLoop(values), `SEED=${seed}: ${values.join(' ')}`);
  }
});
