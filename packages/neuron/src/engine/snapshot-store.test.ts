import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SnapshotStore } from './snapshot-store.ts';

/** A state of so many bytes, which counts how often it was freed. */
function stateOf(bytes: number) {
  const state = {
    bytes,
    data: new Uint8Array(bytes),
    closed: 0,
    close() {
      state.closed++;
    },
  };
  return state;
}

const tokens = (first: number, length: number): Int32Array =>
  Int32Array.from({ length }, (_, at) => (at === 0 ? first : at));
const kept = (store: SnapshotStore): number[] => store.views.map((view) => view.tokens[0]!).sort();

test('the least recently used go when the budget is spent, and each is freed once', () => {
  const store = new SnapshotStore(100);
  const states = [1, 2, 3].map((first) => {
    const state = stateOf(40);
    store.add(tokens(first, 10), state, true);
    if (first === 2) store.use(store.views.find((view) => view.tokens[0] === 1)!.id);
    return state;
  });
  assert.deepEqual(kept(store), [1, 3], 'the first was used after the second');
  assert.deepEqual(
    states.map(({ closed }) => closed),
    [0, 1, 0],
  );
  store.add(tokens(4, 10), stateOf(90), true);
  assert.deepEqual(kept(store), [4]);
  store.clear();
  store.clear();
  assert.deepEqual(
    states.map(({ closed }) => closed),
    [1, 1, 1],
  );
  assert.equal(store.hasRoomFor(101), false);
});

test('what was freed is room again: the same state saved for ever never pushes others out', () => {
  const store = new SnapshotStore(100);
  store.add(tokens(1, 10), stateOf(40), true);
  for (let round = 0; round < 50; round++) store.add(tokens(2, 10), stateOf(40), true);
  assert.deepEqual(kept(store), [1, 2]);
});

test('a state that cannot be cut does not stand for a beginning of it', () => {
  const store = new SnapshotStore(1000);
  store.add(tokens(1, 10), stateOf(40), false);
  assert.equal(store.covers(tokens(1, 6), true), true);
  assert.equal(store.covers(tokens(1, 6), false), false);
  assert.equal(store.covers(tokens(1, 10), false), true);
  assert.equal(store.covers(tokens(1, 11), true), false);
});
