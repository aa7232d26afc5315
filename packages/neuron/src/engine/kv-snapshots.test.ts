import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { loadLibrary } from '../libllama/load-library.ts';
import { tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import { KvSnapshots } from './kv-snapshots.ts';
import type { LoadedModel } from './loaded-model.ts';
import type { ReservedSequence } from './reserved-sequence.ts';

let engine: Engine;
let model: LoadedModel;

before(() => {
  engine = new Engine({ nativeLog: false });
  model = engine.load(tinySpec());
});
after(() => engine.close());

const tokens = (from: number, count: number) => Int32Array.from({ length: count }, (_, at) => from + at);

function distance(a: Float32Array, b: Float32Array): number {
  return a.reduce((max, value, index) => Math.max(max, Math.abs(value - b[index]!)), 0);
}

test('a restored sequence goes on as if nothing had come between', () => {
  model.forwardLogits(tokens(20, 30), 0);
  const snapshot = model.snapshotKv();
  assert.equal(snapshot.length, 30);
  assert.ok(snapshot.bytes > 0);
  const expected = model.forwardLogits(tokens(90, 3), 30);
  model.forwardLogits(tokens(200, 50), 0);
  assert.deepEqual(model.restoreKv(snapshot.id), snapshot);
  assert.ok(distance(model.forwardLogits(tokens(90, 3), 30), expected) < 1e-4);
  model.clearKv();
  model.restoreKv(snapshot.id);
  assert.ok(distance(model.forwardLogits(tokens(90, 3), 30), expected) < 1e-4);
  model.dropKvSnapshot(snapshot.id);
});

test('two snapshots branch from one beginning, and an empty one is the beginning', () => {
  model.clearKv();
  const empty = model.snapshotKv();
  assert.deepEqual([empty.bytes, empty.length], [0, 0]);
  model.forwardLogits(tokens(20, 10), 0);
  const short = model.snapshotKv();
  model.forwardLogits(tokens(30, 10), 10);
  const long = model.snapshotKv();
  assert.ok(long.bytes > short.bytes && long.id > short.id && short.id > empty.id);
  model.restoreKv(short.id);
  assert.throws(() => model.forwardLogits(tokens(40, 1), 20), /offset must be from 0 to 10/);
  model.restoreKv(long.id);
  model.forwardLogits(tokens(40, 1), 20);
  model.restoreKv(empty.id);
  assert.throws(() => model.forwardLogits(tokens(40, 1), 1), /offset must be from 0 to 0/);
  for (const { id } of [empty, short, long]) model.dropKvSnapshot(id);
});

test('an unknown snapshot is refused with the ones there are', () => {
  const { id } = model.snapshotKv();
  const isRefusal = (error: unknown) =>
    error instanceof AppError && error.code === 'invalid_request' && error.param === 'id';
  assert.throws(() => model.restoreKv(999), isRefusal);
  assert.throws(
    () => model.restoreKv(999),
    new RegExp(`RestoreKv: there is no KV snapshot 999; there are ${id}`),
  );
  model.dropKvSnapshot(id);
  assert.throws(() => model.dropKvSnapshot(id), isRefusal);
  assert.notEqual(model.snapshotKv().id, id);
});

test('snapshots stay below their limit, and a dropped one makes room', () => {
  const { api } = loadLibrary({ nativeLog: false });
  const sized = { ...api, llama_state_seq_get_size: () => 40, llama_state_seq_get_data: () => 40 };
  const reserved = { id: 4, length: 3 } as ReservedSequence;
  const snapshots = new KvSnapshots({ api: sized, context: 0n, reserved, modelId: 'm', bytesMax: 100 });
  snapshots.take();
  const second = snapshots.take();
  assert.throws(
    () => snapshots.take(),
    /2 KV snapshots take 80 bytes and one of 40 would pass the limit of 100/,
  );
  snapshots.drop(second.id);
  snapshots.take();
});
