import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findNearest } from './nearest-key.ts';

const keys = ['listen', 'metrics_listen', 'poll_interval_secs', 'poll_timeout_secs', 'key', 'port'];

for (const [typed, meant] of [
  ['poll_intervall_secs', 'poll_interval_secs'],
  ['poll-interval-secs', 'poll_interval_secs'],
  ['poll_interval', 'poll_interval_secs'],
  ['lisetn', 'listen'],
  ['LISTEN', 'listen'],
  ['prot', 'port'],
  ['kye', 'key'],
  ['candle', null],
  ['x', null],
  ['', null],
] as const) {
  test(`findNearest() of "${typed}" is ${meant}`, () => assert.equal(findNearest(typed, keys), meant));
}
