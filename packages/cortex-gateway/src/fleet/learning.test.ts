import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noTerms } from '../decide/expected-time.ts';
import { RateBook } from '../decide/rate-book.ts';
import { AffinityBook } from './affinity-book.ts';
import type { AnswerFacts } from './ask.ts';
import { Learning } from './learning.ts';
import type { Lease } from './lease.ts';
import type { NodeState } from './node-state.ts';

function setup() {
  const rates = new RateBook();
  return { rates, learning: new Learning(rates, new AffinityBook()) };
}

const lease = (queueMs = 0): Lease => ({
  ...{ node: 'a', model: 'm', wireId: 'm', why: '', cold: false, options: null, ask: { model: 'm' } },
  terms: { ...noTerms(), queueMs },
  open: () => Promise.reject(new Error('not used')),
  charge: () => {},
  release: () => {},
});

const facts = (more: Partial<AnswerFacts> = {}): AnswerFacts => ({
  ...{ promptTokens: 1000, cachedTokens: 0, completionTokens: 100 },
  ...{ prefillMs: 500, decodeMs: 2000, firstTokenMs: 900, totalMs: 4000 },
  ...more,
});

const polled = (prefill: number, decode: number): NodeState =>
  ({
    name: 'a',
    canonicalId: (id: string) => id,
    health: { models: [{ id: 'm', tok_s_prefill: prefill, tok_s_decode: decode }] },
  }) as unknown as NodeState;

describe('Learning', () => {
  test('takes the neuron’s timings for rates, of the tokens that were not cached', () => {
    const { rates, learning } = setup();
    learning.answered(lease(), facts({ cachedTokens: 600 }));
    assert.deepEqual(
      { ...rates.of('a', 'm') },
      { loadMs: null, prefillTokS: 800, decodeTokS: 50, serviceMs: 2500 },
    );
  });

  test('without timings it takes what it saw, unless the request waited in a queue', () => {
    const { rates, learning } = setup();
    const seen = facts({ prefillMs: null, decodeMs: null });
    learning.answered(lease(7000), seen);
    assert.equal(rates.of('a', 'm'), null);
    learning.answered(lease(), seen);
    assert.equal(rates.of('a', 'm')?.serviceMs, 4000);
    assert.equal(Math.round(rates.of('a', 'm')?.prefillTokS ?? 0), 1111);
  });

  test('a handful of tokens, or an unknown share of cached ones, is no rate', () => {
    const { rates, learning } = setup();
    learning.answered(lease(), facts({ cachedTokens: 990, completionTokens: 2 }));
    learning.answered(lease(), facts({ cachedTokens: null, completionTokens: 2 }));
    assert.deepEqual([rates.of('a', 'm')?.prefillTokS, rates.of('a', 'm')?.decodeTokS], [null, null]);
  });

  test('follows what a neuron reports until an answer shows the rate itself', () => {
    const { rates, learning } = setup();
    learning.polled(polled(0, 0));
    assert.equal(rates.of('a', 'm'), null);
    learning.polled(polled(1000, 40));
    learning.polled(polled(2000, 40));
    assert.equal(rates.of('a', 'm')?.prefillTokS, 1300);
    const { version } = rates;
    learning.polled(polled(1300, 40));
    assert.equal(rates.version, version, 'a poll without news is not worth writing');
    learning.answered(lease(), facts());
    const known = rates.of('a', 'm')?.prefillTokS;
    learning.polled(polled(9000, 40));
    assert.equal(rates.of('a', 'm')?.prefillTokS, known);
  });
});
