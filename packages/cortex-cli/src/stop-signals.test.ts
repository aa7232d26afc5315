import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { isDaemon, listenForStop, SAME_PRESS_MS } from './stop-signals.ts';

test('a Ctrl-C that arrives twice at once is one, a later one is the second', async () => {
  const source = new EventEmitter();
  const clock = new FakeClock();
  const seen: string[] = [];
  const forget = listenForStop(source, clock, {
    onFirst: (signal) => seen.push(`first ${signal}`),
    onSecond: (signal) => seen.push(`second ${signal}`),
  });
  source.emit('SIGINT');
  source.emit('SIGINT');
  source.emit('SIGHUP');
  assert.deepEqual(seen, ['first SIGINT']);
  await clock.advance(SAME_PRESS_MS);
  source.emit('SIGTERM');
  assert.deepEqual(seen, ['first SIGINT', 'second SIGTERM']);
  forget();
  assert.equal(
    source.listenerCount('SIGINT') + source.listenerCount('SIGTERM') + source.listenerCount('SIGHUP'),
    0,
  );
});

test('a hang-up that has work of its own stops nothing, and a terminal has none', () => {
  const source = new EventEmitter();
  const seen: string[] = [];
  const forget = listenForStop(source, new FakeClock(), {
    onFirst: (signal) => seen.push(signal),
    onSecond: () => assert.fail('second'),
    onHangup: () => seen.push('reload'),
  });
  source.emit('SIGHUP');
  source.emit('SIGHUP');
  source.emit('SIGTERM');
  assert.deepEqual(seen, ['reload', 'reload', 'SIGTERM']);
  forget();
  const [pipe, screen] = [{ isTTY: false }, { isTTY: true }].map((each) => ({ ...each, write: () => true }));
  assert.equal(isDaemon({ stdout: pipe!, stderr: pipe! }), true);
  assert.equal(isDaemon({ stdout: pipe!, stderr: screen! }), false);
});
