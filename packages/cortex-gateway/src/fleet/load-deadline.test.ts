import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LoadDeadline, type LoadStep } from './load-deadline.ts';

const GB = 1e9;
const step = (bytes_done: number, bytes_total = 60 * GB, phase = 'loading'): LoadStep => ({
  phase,
  percent: (100 * bytes_done) / bytes_total,
  bytes_done,
  bytes_total,
});

test('a large model has more time than a small one, and a slow node more than a fast one', () => {
  const at = (bytes: number, bytesPerSec: number | null) =>
    new LoadDeadline({ startedMs: 0, baseMs: 300_000, bytes, bytesPerSec }).atMs;
  assert.equal(at(0, null), 300_000);
  assert.equal(at(60 * GB, 1 * GB), 300_000 + 180_000);
  assert.equal(at(60 * GB, 0.1 * GB), 300_000 + 1_800_000);
  assert.equal(at(60 * GB, null), at(60 * GB, 100e6));
});

test('a load that moves is never over, one that stands still is', () => {
  const deadline = new LoadDeadline({ startedMs: 0, baseMs: 1000, bytes: 60 * GB, bytesPerSec: 60 * GB });
  let now = 0;
  for (let done = 0; done <= 60; done++) {
    now += 900;
    deadline.note(step(done * GB), now);
    assert.ok(deadline.atMs > now, `after ${done} GB`);
  }
  for (let i = 0; i < 5; i++) {
    now += 400;
    deadline.note(step(60 * GB), now);
  }
  assert.ok(deadline.atMs < now);
});

test('a byte now and then is no progress, another phase is', () => {
  const deadline = new LoadDeadline({ startedMs: 0, baseMs: 1000, bytes: 0, bytesPerSec: 60 * GB });
  deadline.note(step(0), 0);
  const first = deadline.atMs;
  deadline.note(step(1), 500);
  assert.equal(deadline.atMs, first);
  deadline.note(step(1, 60 * GB, 'fetching'), 500);
  assert.ok(deadline.atMs > first);
});

test('without bytes the percent counts', () => {
  const deadline = new LoadDeadline({ startedMs: 0, baseMs: 1000, bytes: 0, bytesPerSec: null });
  deadline.note({ phase: 'loading', percent: 1, bytes_done: 0, bytes_total: 0 }, 100);
  deadline.note({ phase: 'loading', percent: 2, bytes_done: 0, bytes_total: 0 }, 900);
  assert.equal(deadline.atMs, 1900);
});
