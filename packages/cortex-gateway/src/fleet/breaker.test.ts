import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { Breaker, type CircuitState } from './breaker.ts';

function setUp(failuresMax = 3) {
  const clock = new FakeClock();
  const states: CircuitState[] = [];
  const options = { clock, failuresMax: () => failuresMax, onCircuit: (s: CircuitState) => states.push(s) };
  const breaker = new Breaker(options);
  const fail = (times: number) => {
    for (let i = 0; i < times; i++) breaker.begin().end('failed');
  };
  return { clock, breaker, states, fail };
}

test('it opens after failures in a row, and a success between them counts anew', () => {
  const { breaker, fail } = setUp();
  fail(2);
  breaker.begin().end('ok');
  fail(2);
  breaker.begin().end('unknown');
  assert.equal(breaker.state, 'closed');
  fail(1);
  assert.equal(breaker.state, 'open');
  assert.match(breaker.refusal ?? '', /failed 3 requests in a row/);
});

test('after the back-off exactly one request goes, and decides', async () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  await clock.advance(4999);
  assert.equal(breaker.state, 'open');
  await clock.advance(1);
  assert.equal(breaker.refusal, null);
  const { end } = breaker.begin();
  assert.match(breaker.refusal ?? '', /being tried/);
  end('ok');
  assert.deepEqual([breaker.state, breaker.refusal, clock.pending], ['closed', null, 0]);
});

test('a failed probe doubles the back-off, up to a minute', async () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  for (const ms of [5000, 10_000, 20_000, 40_000, 60_000, 60_000]) {
    await clock.advance(ms - 1);
    assert.equal(breaker.state, 'open');
    await clock.advance(1);
    assert.equal(breaker.state, 'half_open');
    breaker.begin().end('failed');
  }
});

test('a probe that streams for long lets others in with its first byte, on probation', async () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  await clock.advance(5000);
  const probe = breaker.begin();
  probe.answered();
  assert.deepEqual([breaker.state, breaker.refusal], ['closed', null]);
  probe.end('failed');
  assert.equal(breaker.state, 'open');
  await clock.advance(9999);
  assert.equal(breaker.state, 'open');
  await clock.advance(1);
  assert.equal(breaker.state, 'half_open');
});

test('a probe whose client left lets the next request try', async () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  await clock.advance(5000);
  breaker.begin().end('unknown');
  assert.deepEqual([breaker.state, breaker.refusal], ['half_open', null]);
});

test('requests of before the opening neither close it with failures nor keep it open after a success', async () => {
  const { clock, breaker, fail } = setUp();
  const old = [breaker.begin(), breaker.begin()];
  fail(3);
  old[0]!.end('failed');
  await clock.advance(5000);
  assert.equal(breaker.state, 'half_open');
  old[1]!.end('ok');
  assert.equal(breaker.state, 'closed');
});

test('0 failures means never, and a closed breaker leaves no timer', () => {
  const never = setUp(0);
  never.fail(100);
  assert.equal(never.breaker.state, 'closed');
  const { clock, breaker, fail } = setUp();
  fail(3);
  breaker.close();
  assert.equal(clock.pending, 0);
});
