/** Three real neurons with real weights on one machine: load, evict, drain, recycle, fail over, die, come back. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SseParser } from 'cortex-core/wire/sse';
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
    const reader = readStream(await fleet.openStream('six', 3000));
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

test('a busy model drains before another takes its place', async () => {
  const fleet = await startLocalFleet({ rooms: [1.5], models: ['one', 'two'] });
  try {
    const reader = readStream(await fleet.openStream('one', 2000));
    await reader.started;
    const two = fleet.ask('two');
    assert.equal((await reader.ended).kind, 'whole');
    assert.match((await two).text, /Paris/);
    assert.deepEqual(fleet.loadedOn('node1'), ['two']);
  } finally {
    await fleet.close();
  }
});

test('a worn node renews its owner by itself once nobody waits', async () => {
  const fleet = await startLocalFleet({
    rooms: [1.5],
    models: ['one', 'two'],
    eviction: { defrag_after_cycles: 3 },
  });
  try {
    for (const model of ['one', 'two', 'one', 'two']) await answers(fleet, model);
    await fleet.untilMetric(/^cortex_device_recycles_total/, 1);
    await answers(fleet, 'two');
    assert.equal(await fleet.metric(/^cortex_evictions_total/), 3);
  } finally {
    await fleet.close();
  }
});

describe('kill -9 of a neuron', () => {
  let fleet: LocalFleet;
  before(async () => {
    fleet = await startLocalFleet({ rooms: [2.5, 2.5, 2.5], models: ['one', 'two'], slots: 8 });
    await Promise.all(names.map((name) => fleet.gateway.fleet.load('one', name)));
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
    await fleet.gateway.fleet.load('one', 'node1');
    assert.deepEqual(fleet.loadedOn('node1'), ['one']);
    const answered = await Promise.all(Array.from({ length: 6 }, () => fleet.ask('one')));
    assert.ok(
      answered.some(({ route }) => route.includes('node=node1')),
      answered[0]?.route,
    );
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

async function answers(fleet: LocalFleet, model: string): Promise<void> {
  const { status, text } = await fleet.ask(model);
  assert.equal(status, 200, text);
  assert.match(text, /Paris/);
}

/** `cut`: neither `[DONE]` behind a finish reason, nor an error event. */
type StreamEnd = { readonly kind: 'whole' | 'cut' } | { readonly kind: 'error'; readonly code: string };

interface StreamReader {
  /** The first token is here. */
  readonly started: Promise<void>;
  readonly ended: Promise<StreamEnd>;
}

function readStream(response: Response): StreamReader {
  let start = (): void => {};
  const started = new Promise<void>((resolve) => {
    start = resolve;
  });
  return { started, ended: read(response, start) };
}

async function read(response: Response, onToken: () => void): Promise<StreamEnd> {
  const parser = new SseParser();
  let isFinished = false;
  let end: StreamEnd = { kind: 'cut' };
  try {
    for await (const chunk of response.body ?? []) {
      for (const { data } of parser.push(chunk)) {
        if (data.includes('"content":"')) onToken();
        if (/"finish_reason":"/.test(data)) isFinished = true;
        if (data === '[DONE]' && isFinished) end = { kind: 'whole' };
        const { error } = data.startsWith('{') ? (JSON.parse(data) as { error?: { code: string } }) : {};
        if (error !== undefined) end = { kind: 'error', code: error.code };
      }
    }
  } catch (thrown) {
    return { kind: 'error', code: `the connection broke: ${String(thrown)}` };
  } finally {
    onToken();
  }
  return end;
}
