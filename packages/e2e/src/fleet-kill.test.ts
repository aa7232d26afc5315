/** kill -9 of a real neuron: before an answer, in the middle of twenty, and the way back. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { answers, readStream } from './fleet-streams.ts';
import { type LocalFleet, startLocalFleet } from './local-fleet.ts';

const names = ['node1', 'node2', 'node3'] as const;

describe('kill -9 of a neuron', () => {
  let fleet: LocalFleet;
  before(async () => {
    fleet = await startLocalFleet({ rooms: [2.5, 2.5, 2.5], models: ['one', 'two'], slots: 8 });
    await Promise.all(names.map((name) => fleet.gateway.fleet.operations.load('one', name)));
  });
  after(() => fleet.close());

  test('before the first byte nobody notices: another replica answers', async () => {
    await fleet.node('node1').kill();
    for (const { status, text, route } of await Promise.all(
      Array.from({ length: 6 }, () => fleet.ask('one')),
    )) {
      assert.equal(status, 200, text);
      assert.doesNotMatch(route, /node=node1/);
    }
    assert.equal(fleet.held, 0);
  });

  test('it comes back as another one: what it had is forgotten, and it is given work again', async () => {
    await fleet.node('node1').start();
    await fleet.until('node1', (node) => node.healthy && node.models.get('one')?.status === 'available');
    await fleet.gateway.fleet.operations.load('one', 'node1');
    assert.deepEqual(fleet.loadedOn('node1'), ['one']);
    const { operations } = fleet.gateway.fleet;
    for (const other of ['node2', 'node3']) operations.drain(other, 'drained', null);
    for (const { status, route } of await Promise.all(Array.from({ length: 6 }, () => fleet.ask('one')))) {
      assert.equal(status, 200);
      assert.match(route, /node=node1/);
    }
    for (const other of ['node2', 'node3']) operations.undrain(other);
  });

  test('in the middle of 20 streams: each ends whole or with a typed error, and all counters go to zero', async () => {
    const streams = await Promise.all(Array.from({ length: 20 }, () => fleet.openStream('one', 400)));
    const onVictim = streams.filter((each) => each.headers.get('x-cortex-route')?.includes('node=node2'));
    assert.ok(onVictim.length > 0, 'no stream runs on the neuron that is killed');
    const readers = streams.map(readStream);
    await Promise.all(readers.map((reader) => reader.started));
    await fleet.node('node2').kill();
    const ends = await Promise.all(readers.map((reader) => reader.ended));
    const kinds = ends.map((end) => end.kind);
    assert.ok(!kinds.includes('cut'), `a stream ended without a word: ${JSON.stringify(ends)}`);
    assert.ok(kinds.includes('whole'));
    for (const end of ends) {
      if (end.kind === 'error')
        assert.match(end.code, /^(upstream_connection_error|device_gone|node_unhealthy)$/);
    }
    assert.equal(fleet.held, 0);
    await fleet.until('node2', (node) => !node.healthy);
    await answers(fleet, 'two');
    await fleet.node('node2').start();
    await fleet.until('node2', (node) => node.healthy);
    assert.equal(fleet.view('node2').models.get('one')?.status, 'available');
  });
});
