import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diffConfig, toReloadReport } from './diff-config.ts';

const linesOf = (before: unknown, after: unknown) => diffConfig(before, after).map(({ line }) => line);

test('each key that differs is one line with both values', () => {
  const before = { gateway: { a: 10, b: 'x' }, log: { level: 'info' } };
  assert.deepEqual(linesOf(before, { gateway: { a: 5, b: 'x' }, log: { level: 'debug' } }), [
    'gateway.a: 10 -> 5',
    'log.level: "info" -> "debug"',
  ]);
  assert.deepEqual(linesOf(before, structuredClone(before)), []);
});

test('tables of an array go by their name, whatever their order', () => {
  const a = { name: 'a', endpoint: 'http://a' };
  const b = { name: 'b', endpoint: 'http://b' };
  assert.deepEqual(linesOf({ neurons: [a, b] }, { neurons: [b, { ...a, endpoint: 'http://c' }] }), [
    'neurons.a.endpoint: "http://a" -> "http://c"',
  ]);
  assert.deepEqual(linesOf({ neurons: [a] }, { neurons: [b] }), ['neurons.a: removed', 'neurons.b: added']);
});

test('no key and no token is ever shown', () => {
  const before = {
    key: 'sk-old',
    gateway: { neuron_key: 'n-old', admin_keys: ['a-old'] },
    entitlements: { keys: [{ key_id: 'alice', key: 'sk-alice-old', hard_cap: 1 }] },
  };
  const after = {
    gateway: { neuron_key: 'n-new', admin_keys: [] },
    entitlements: { keys: [{ key_id: 'alice', key: 'sk-alice-new', hard_cap: 2 }] },
  };
  assert.deepEqual(linesOf(before, after), [
    'key: removed',
    'gateway.neuron_key: changed',
    'gateway.admin_keys: changed',
    'entitlements.keys.alice.key: changed',
    'entitlements.keys.alice.hard_cap: 1 -> 2',
  ]);
});

test('two tables of one name and arrays of plain values are compared all the same', () => {
  const rows = (cap: number) => ({
    keys: [
      { key_id: 'x', cap: 1 },
      { key_id: 'x', cap },
    ],
  });
  assert.deepEqual(linesOf(rows(1), rows(2)), ['keys.x#1.cap: 1 -> 2']);
  assert.deepEqual(linesOf({ dirs: ['a'] }, { dirs: ['a', 'b'] }), ['dirs: changed']);
});

test('a report parts what took effect from what needs a restart', () => {
  const changes = diffConfig({ listen: 'a', n: 1 }, { listen: 'b', n: 2 });
  assert.deepEqual(
    toReloadReport(changes, (key) => key === 'listen'),
    { changed: ['n: 1 -> 2'], needsRestart: ['listen: "a" -> "b"'], notes: [] },
  );
});
