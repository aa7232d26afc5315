/** Real neurons with real weights on one machine: load, evict, drain, recycle. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { answers, readStream } from './fleet-streams.ts';
import { type LocalFleet, startLocalFleet } from './local-fleet.ts';

const names = ['node1', 'node2', 'node3'] as const;

describe('a local fleet with room for one, one and two models', () => {
  let fleet: LocalFleet;
  before(async () => {
    fleet = await startLocalFleet({
      rooms: [1.5, 1.5, 2.5],
      models: ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'],
      catalogue: ['six', 'seven', 'eight'].map((id) => {
        return { id, pinned_on: ['node3'], residency_priority: 100 };
      }),
    });
  });
  after(() => fleet.close());

  const loaded = (): readonly string[] => names.flatMap((name) => fleet.loadedOn(name)).sort();

  test('each model is loaded where there is room, until there is none', async () => {
    for (const model of ['one', 'two', 'three', 'four']) await answers(fleet, model);
    assert.deepEqual(loaded(), ['four', 'one', 'three', 'two']);
    assert.deepEqual(
      names.map((name) => fleet.loadedOn(name).length),
      [1, 1, 2],
    );
    assert.equal(await fleet.metric(/^cortex_evictions_total/), 0);
  });

  test('a fifth takes the place of one, which comes back when it is asked for', async () => {
    await answers(fleet, 'five');
    assert.equal(await fleet.metric(/^cortex_evictions_total/), 1);
    const gone = ['one', 'two', 'three', 'four'].find((model) => !loaded().includes(model));
    assert.ok(gone !== undefined, loaded().join());
    await answers(fleet, gone);
    assert.equal(await fleet.metric(/^cortex_evictions_total/), 2);
    assert.equal(loaded().length, 4);
  });

  test('a model that answers is not evicted: the idle one is, and its answer is whole', async () => {
    for (const model of ['six', 'seven']) await answers(fleet, model);
    const reader = readStream(await fleet.openStream('six', 1500));
    await reader.started;
    await answers(fleet, 'eight');
    assert.equal(
      fleet.view('node3').models.get('six')?.leases,
      1,
      'the answer is over: ask for a longer one',
    );
    assert.deepEqual([...fleet.loadedOn('node3')].sort(), ['eight', 'six']);
    assert.equal((await reader.ended).kind, 'whole');
    assert.equal(fleet.held, 0);
  });

  test('POST /admin/defrag gives a worn device a fresh owner, and the model keeps its warm prefix', async () => {
    for (const name of names) await fleet.gateway.fleet.pollNow(name);
    const worn = names.find((name) => (fleet.view(name).devices[0]?.loadCycles ?? 0) > 0) ?? 'none is worn';
    const [model = ''] = fleet.loadedOn(worn);
    await answers(fleet, model);
    const answer = await fetch(`${fleet.gateway.url}/admin/defrag`, {
      method: 'POST',
      body: JSON.stringify({ node: worn }),
    });
    const report = (await answer.json()) as { nodes: [{ done: object }] };
    assert.deepEqual(report.nodes[0].done, { moves: 0, recycled: 1, reloading: [], error: null });
    assert.equal(fleet.view(worn).devices[0]?.loadCycles, 0);
    const { text } = await fleet.ask(model);
    assert.match(text, /Paris/);
    assert.match(text, /"cached_tokens":[1-9]/);
  });
});

describe('a node with room for one model', () => {
  let fleet: LocalFleet;
  before(async () => {
    fleet = await startLocalFleet({
      rooms: [1.5],
      models: ['one', 'two'],
      eviction: { defrag_after_cycles: 3 },
    });
  });
  after(() => fleet.close());

  test('a busy model drains before another takes its place', async () => {
    const reader = readStream(await fleet.openStream('one', 600));
    await reader.started;
    const two = fleet.ask('two');
    assert.equal((await reader.ended).kind, 'whole');
    assert.match((await two).text, /Paris/);
    assert.deepEqual(fleet.loadedOn('node1'), ['two']);
  });

  test('worn, it renews its owner by itself once nobody waits', async () => {
    for (const model of ['one', 'two']) await answers(fleet, model);
    await fleet.untilMetric(/^cortex_device_recycles_total/, 1);
    await answers(fleet, 'two');
    assert.equal(await fleet.metric(/^cortex_evictions_total/), 3);
  });
});
