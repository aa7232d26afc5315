import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { Ledger } from './ledger.ts';

const principal = { accountId: 'a', keyId: 'k', hardCap: 100, windowSecs: null };

test('a reservation counts until it is settled, then what was used does', () => {
  const ledger = new Ledger(new FakeClock());
  const first = ledger.reserve(principal, 80);
  assert.throws(() => ledger.reserve(principal, 30), { code: 'insufficient_quota' });
  first.settle(10);
  first.settle(99);
  ledger.reserve(principal, 90).settle(90);
  assert.throws(() => ledger.reserve(principal, 1), { code: 'insufficient_quota', retryAfterSecs: null });
});

test('a rolling window forgets use as it grows old, and says when to come back', async () => {
  const clock = new FakeClock();
  const ledger = new Ledger(clock);
  const rolling = { ...principal, windowSecs: 60 };
  ledger.reserve(rolling, 100).settle(100);
  await clock.advance(30_000);
  assert.throws(() => ledger.reserve(rolling, 1), { code: 'rate_limit_exceeded', retryAfterSecs: 30 });
  await clock.advance(30_000);
  ledger.reserve(rolling, 100);
});

test('a request larger than the whole window is not told to wait: what it asks for is too much', () => {
  const ledger = new Ledger(new FakeClock());
  const rolling = { ...principal, windowSecs: 60 };
  assert.throws(() => ledger.reserve(rolling, 101), {
    code: 'insufficient_quota',
    retryAfterSecs: null,
    message: 'this request may take 101 tokens, key "k" has 100 per 60 s; set a smaller max_tokens',
  });
  ledger.reserve(rolling, 100).settle(30);
  assert.throws(() => ledger.reserve(rolling, 71), {
    code: 'rate_limit_exceeded',
    message: /, 70 of the 100 /,
  });
});
