import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from './clock.ts';

test('FakeClock stands still until it is advanced', async () => {
  const clock = new FakeClock(1000);
  assert.deepEqual([clock.now(), clock.monotonicMs()], [1000, 0]);
  await clock.advance(250);
  assert.deepEqual([clock.now(), clock.monotonicMs()], [1250, 250]);
});

test('FakeClock fires timers by due time, then in the order they were set, each at its own time', async () => {
  const clock = new FakeClock();
  const fired: [string, number][] = [];
  const note = (name: string) => () => void fired.push([name, clock.monotonicMs()]);
  clock.setTimer(30, note('c'));
  clock.setTimer(10, note('a'));
  clock.setTimer(30, note('d'));
  clock.setTimer(20, note('b'));
  clock.setTimer(31, note('late'));
  await clock.advance(30);
  assert.deepEqual(fired, [
    ['a', 10],
    ['b', 20],
    ['c', 30],
    ['d', 30],
  ]);
  assert.equal(clock.pending, 1);
});

test('FakeClock does not fire a cancelled timer', async () => {
  const clock = new FakeClock();
  const timer = clock.setTimer(10, () => assert.fail('fired'));
  timer.cancel();
  await clock.advance(10);
  assert.equal(clock.pending, 0);
});

test('FakeClock lets promises go on between timers, so that a loop of sleeps runs in one advance', async () => {
  const clock = new FakeClock();
  const woken: number[] = [];
  const loop = (async () => {
    for (let round = 0; round < 5; round++) {
      await clock.sleep(100);
      woken.push(clock.monotonicMs());
    }
  })();
  await clock.advance(499);
  assert.deepEqual(woken, [100, 200, 300, 400]);
  await clock.advance(1);
  await loop;
  assert.deepEqual(woken, [100, 200, 300, 400, 500]);
});

test('FakeClock.sleep() rejects with the reason of its signal and leaves no timer', async () => {
  const clock = new FakeClock();
  const controller = new AbortController();
  const sleeping = clock.sleep(100, controller.signal);
  controller.abort(new Error('stop'));
  await assert.rejects(sleeping, /stop/);
  await assert.rejects(clock.sleep(100, controller.signal), /stop/);
  assert.equal(clock.pending, 0);
});
