import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ResponseObject } from 'cortex-core/wire/responses';
import { FakeClock } from 'testkit/clock';
import type { StoredResponse } from '../dialects/responses/store-face.ts';
import { ResponseStore } from './response-store.ts';

const limits = { entriesMax: 3, bytesMax: 10_000, ageMsMax: 60_000 };
const stored = (id: string, text = 'x', itemId = `msg_${id}`): StoredResponse => ({
  response: { id, previous_response_id: null, output: [] } as unknown as ResponseObject,
  input: [{ type: 'message', id: itemId, content: text }],
});
const setup = (more: Partial<typeof limits> = {}) => {
  const clock = new FakeClock();
  return { clock, store: new ResponseStore({ ...limits, ...more }, clock) };
};

describe('ResponseStore', () => {
  test("another key's id is not found, nor deleted, nor is its item", () => {
    const { store } = setup();
    store.of('alice').put(stored('r'));
    assert.equal(store.of('bob').find('r'), null);
    assert.equal(store.of('bob').findItem('msg_r'), null);
    assert.equal(store.of('bob').delete('r'), false);
    assert.deepEqual(store.of('alice').find('r'), stored('r'));
    assert.equal(store.of('alice').findItem('msg_r')?.id, 'msg_r');
  });

  test('what was deleted is gone with its items, and its room is free', () => {
    const { store } = setup();
    store.of('a').put(stored('r'));
    assert.equal(store.of('a').delete('r'), true);
    assert.equal(store.of('a').find('r'), null);
    assert.equal(store.of('a').findItem('msg_r'), null);
    assert.deepEqual([store.entries, store.bytes], [0, 0]);
  });

  test('an item that several responses share is found until the last of them is gone', () => {
    for (const order of [
      ['old', 'new'],
      ['new', 'old'],
    ]) {
      const store = setup().store.of('a');
      for (const id of ['old', 'new']) store.put(stored(id, id, 'shared'));
      assert.equal(store.findItem('shared')?.content, 'new');
      store.delete(order[0] ?? '');
      assert.equal(store.findItem('shared')?.content, order[1]);
      store.delete(order[1] ?? '');
      assert.equal(store.findItem('shared'), null);
    }
  });

  test('age counts from the last use', async () => {
    const { store, clock } = setup();
    store.of('a').put(stored('used'));
    store.of('a').put(stored('unused'));
    await clock.advance(40_000);
    assert.ok(store.of('a').find('used'));
    await clock.advance(40_000);
    assert.ok(store.of('a').find('used'));
    assert.equal(store.of('a').find('unused'), null);
    assert.equal(store.entries, 1);
  });

  test('a key that fills the store pushes out its own, the longest unused first', () => {
    const { store } = setup();
    store.of('quiet').put(stored('q'));
    for (const id of ['1', '2']) store.of('busy').put(stored(id));
    assert.ok(store.of('busy').find('1'));
    store.of('busy').put(stored('3'));
    assert.equal(store.of('busy').find('2'), null);
    assert.ok(store.of('busy').find('1') && store.of('busy').find('3') && store.of('quiet').find('q'));
    assert.equal(store.entries, 3);
  });

  test('bytes are limited over all keys, and what is larger than all is not kept', () => {
    const { store } = setup({ bytesMax: 1000 });
    store.of('a').put(stored('huge', 'x'.repeat(2000)));
    assert.equal(store.of('a').find('huge'), null);
    store.of('a').put(stored('1', 'x'.repeat(600)));
    store.of('b').put(stored('2', 'x'.repeat(500)));
    assert.equal(store.of('a').find('1'), null);
    assert.ok(store.of('b').find('2'));
    assert.ok(store.bytes <= 1000);
  });

  test('10,000 entries of many keys never exceed the limits, and the counters come back to zero', () => {
    const { store } = setup({ entriesMax: 50, bytesMax: 8000 });
    for (let i = 0; i < 10_000; i++) {
      store.of(`key${i % 7}`).put(stored(`r${i}`, 'x'.repeat(i % 300)));
      assert.ok(store.entries <= 50 && store.bytes <= 8000);
    }
    for (let i = 0; i < 10_000; i++) store.of(`key${i % 7}`).delete(`r${i}`);
    assert.deepEqual([store.entries, store.bytes], [0, 0]);
  });

  test('events count as the response does, are left out where both do not fit, and go with it', () => {
    const { store } = setup({ bytesMax: 1000 });
    const shelf = store.of('a');
    shelf.put(stored('1'), 'e'.repeat(300));
    assert.equal(shelf.eventsOf('1'), 'e'.repeat(300));
    assert.equal(store.of('b').eventsOf('1'), null);
    const { bytes } = store;
    assert.ok(bytes > 300);
    shelf.put(stored('2'), 'e'.repeat(990));
    assert.ok(shelf.find('2') !== null && shelf.eventsOf('2') === null);
    shelf.put(stored('3'), 'e'.repeat(700));
    assert.ok(store.bytes <= 1000);
    assert.equal(shelf.eventsOf('1'), null);
    for (const id of ['2', '3']) shelf.delete(id);
    assert.deepEqual([store.entries, store.bytes], [0, 0]);
  });

  test('an id of another gateway is told from one that is gone, and 0 entries keeps nothing', () => {
    const { store } = setup();
    const elsewhere = setup().store.newId('resp');
    assert.match(store.of('a').whyMissing(elsewhere), /not made by this gateway/);
    assert.match(store.of('a').whyMissing(store.newId('resp')), /not used for 60 s/);
    const off = setup({ entriesMax: 0 }).store.of('a');
    off.put(stored('r'));
    assert.equal(off.keeps, false);
    assert.equal(off.find('r'), null);
  });
});
