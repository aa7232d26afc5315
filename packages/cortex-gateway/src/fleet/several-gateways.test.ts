import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { answerBehind, createGate, type FakeNeuron } from 'testkit/fake-neuron';
import { advanceUntil, askChat, nodeOf, setUpFleet, startGatewayOver } from './fleet.test.kit.ts';

const loaded = (id: string) => ({ id, status: 'loaded' as const });

describe('two gateways over one fleet', () => {
  test('ask for the same cold model at once and make one load', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm' }] }]);
    const other = await startGatewayOver(neurons);
    const [neuron] = neurons as [FakeNeuron];
    const gate = createGate();
    neuron.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    const asked = () => neuron.events.filter((event) => event === 'load m').length;
    const calls = [gateway, other, gateway, other].map((each) => askChat(each, 'm'));
    await neuron.until(() => asked() === 2);
    gate.open();
    assert.deepEqual(
      (await Promise.all(calls)).map(({ status }) => status),
      [200, 200, 200, 200],
    );
    assert.equal(neuron.counters.loads, 1);
  });

  test('what one loaded, the other takes for loaded although its poll is old', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm' }] }]);
    const other = await startGatewayOver(neurons);
    const [neuron] = neurons as [FakeNeuron];
    assert.equal((await askChat(gateway, 'm')).status, 200);
    assert.equal(nodeOf(other.fleet, 'n0').toView().models.get('m')?.status, 'available');
    assert.equal((await askChat(other, 'm')).status, 200);
    assert.deepEqual([neuron.counters.loads, neuron.counters.unloads], [1, 0]);
  });

  test('a load of one evicts nothing for the other that comes to it', async () => {
    const { gateway, neurons } = await setUpFleet([{ devices: [2500], models: [loaded('a'), { id: 'm' }] }]);
    const [neuron] = neurons as [FakeNeuron];
    const gate = createGate();
    neuron.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    const first = askChat(gateway, 'm');
    await neuron.until(() => neuron.counters.loads === 1);
    neuron.models.get('m')!.status = 'loading';
    const other = await startGatewayOver(neurons);
    const second = askChat(other, 'm');
    await neuron.until(() => neuron.counters.loads === 1);
    gate.open();
    assert.equal((await first).status, 200);
    await other.fleet.pollNow('n0');
    assert.equal((await second).status, 200);
    assert.equal(neuron.counters.unloads, 0);
  });

  test('requests of the other are counted: the less busy replica is chosen', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([
      { models: [loaded('m')] },
      { models: [loaded('m')] },
    ]);
    const [first, second] = neurons as [FakeNeuron, FakeNeuron];
    first.reportedInFlight.set('m', 3);
    await fleet.pollNow('n0');
    for (let i = 0; i < 3; i++) await (await askChat(gateway, 'm')).text();
    assert.deepEqual([first.counters.chats, second.counters.chats], [0, 3]);
  });

  test('a model that the other is using is not evicted; when that lasts, the request is told to come again', async () => {
    const clock = new FakeClock();
    const { gateway, neurons } = await setUpFleet([{ devices: [1500], models: [loaded('a'), { id: 'b' }] }], {
      clock,
    });
    const [neuron] = neurons as [FakeNeuron];
    // the other gateway began after our last poll
    neuron.reportedInFlight.set('a', 1);
    const refused = askChat(gateway, 'b');
    let status = 0;
    void refused.then((answer) => {
      status = answer.status;
    });
    await advanceUntil(clock, 1000, () => status > 0);
    assert.equal(status, 503);
    assert.match(await (await refused).text(), /used by another gateway and was not evicted/);
    assert.deepEqual(neuron.events, []);
    const waits = askChat(gateway, 'b');
    await advanceUntil(
      clock,
      500,
      () => nodeOf(gateway.fleet, 'n0').toView().models.get('a')?.draining === true,
    );
    neuron.reportedInFlight.delete('a');
    await advanceUntil(clock, 500, () => neuron.counters.loads === 1);
    assert.equal((await waits).status, 200);
    assert.deepEqual(neuron.events, ['unload a', 'load b', 'chat b']);
  });
});

describe('what a neuron tells of the use by all', () => {
  const used = (idle_secs: number | null, over: object = {}) => ({
    ...{ load_id: 'one', requests: 1, loaded_secs: 1000, idle_secs },
    ...over,
  });

  test('keeps the idle TTL of one gateway from a model that another used between its polls', async () => {
    const clock = new FakeClock();
    const config = { eviction: { idle_ttl_secs: 60 } };
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }], { clock, config });
    const [neuron] = neurons as [FakeNeuron];
    assert.equal((await askChat(gateway, 'm')).status, 200);
    neuron.use.set('m', used(0));
    await fleet.pollNow('n0');
    await clock.advance(59_000);
    // the neuron has not told yet: it does when the unload is about to begin
    neuron.use.set('m', used(5, { requests: 2 }));
    const asked = neuron.counters.health;
    await clock.advance(2000);
    await neuron.until(() => neuron.counters.health > asked);
    await fleet.pollNow('n0');
    assert.equal(neuron.counters.unloads, 0);
    assert.equal(nodeOf(fleet, 'n0').toView().models.get('m')?.draining, false);
    await clock.advance(50_000);
    assert.equal(neuron.counters.unloads, 0);
    neuron.use.set('m', used(61, { requests: 2 }));
    await advanceUntil(clock, 1000, () => neuron.counters.unloads === 1);
    assert.equal(neuron.models.get('m')?.status, 'available');
  });

  test('makes the neuron refuse an idle unload that a request of another gateway overtook', async () => {
    const clock = new FakeClock();
    const config = { eviction: { idle_ttl_secs: 60 } };
    const { fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }], { clock, config });
    const [neuron] = neurons as [FakeNeuron];
    neuron.use.set('m', used(100));
    neuron.onUnload = () => {
      neuron.use.set('m', used(0, { requests: 2 }));
      return undefined;
    };
    await fleet.pollNow('n0');
    await advanceUntil(clock, 1000, () => neuron.counters.unloads === 1);
    await advanceUntil(clock, 1, () => nodeOf(fleet, 'n0').toView().models.get('m')?.status === 'loaded');
    assert.equal(neuron.models.get('m')?.status, 'loaded');
    await clock.advance(50_000);
    assert.equal(neuron.counters.unloads, 1, 'it was used just now');
  });

  test('spares a victim that a request of another gateway came to at the last moment', async () => {
    const models = [loaded('a'), loaded('b'), { id: 'new' }];
    const { gateway, neurons } = await setUpFleet([{ devices: [2500], models }]);
    const [neuron] = neurons as [FakeNeuron];
    for (const id of ['a', 'b']) neuron.use.set(id, used(id === 'a' ? 900 : 100));
    neuron.onUnload = (id) => {
      if (id === 'a') neuron.use.set('a', used(0, { requests: 2 }));
      return undefined;
    };
    await gateway.fleet.pollNow('n0');
    assert.equal((await askChat(gateway, 'new')).status, 200);
    assert.deepEqual(neuron.events, ['unload a', 'unload b', 'load new', 'chat new']);
    assert.deepEqual(
      [neuron.models.get('a')?.status, neuron.models.get('b')?.status],
      ['loaded', 'available'],
    );
  });

  test('decides who was unused longest, whoever used it', async () => {
    const models = [loaded('ours'), loaded('theirs'), loaded('unused'), { id: 'new' }, { id: 'newer' }];
    const { gateway, neurons } = await setUpFleet([{ devices: [3500], models }]);
    const [neuron] = neurons as [FakeNeuron];
    // before the clock of this process began, too
    neuron.use.set('ours', used(500_000));
    neuron.use.set('theirs', used(1));
    neuron.use.set('unused', used(null, { requests: 0 }));
    await gateway.fleet.pollNow('n0');
    for (const id of ['new', 'newer']) assert.equal((await askChat(gateway, id)).status, 200);
    const unloads = neuron.events.filter((event) => event.startsWith('unload'));
    assert.deepEqual(unloads, ['unload unused', 'unload ours']);
  });

  test('holds the minimum residency of what another gateway loaded', async () => {
    const clock = new FakeClock();
    const { gateway, fleet, neurons } = await setUpFleet(
      [{ devices: [1500], models: [loaded('a'), { id: 'b' }] }],
      {
        clock,
      },
    );
    const [neuron] = neurons as [FakeNeuron];
    neuron.use.set('a', used(null, { requests: 0, loaded_secs: 1 }));
    await fleet.pollNow('n0');
    const answer = askChat(gateway, 'b');
    await advanceUntil(clock, 1, () => gateway.fleet.waitingCount === 1);
    assert.match((await gateway.fleet.explain({ model: 'b' })).turn ?? '', /a/);
    assert.deepEqual(neuron.events, []);
    await advanceUntil(clock, 500, () => neuron.counters.loads === 1);
    assert.ok(clock.monotonicMs() >= 1000, `${clock.monotonicMs()} ms`);
    assert.equal((await answer).status, 200);
    assert.deepEqual(neuron.events, ['unload a', 'load b', 'chat b']);
  });

  test('is not asked of a neuron that does not tell', async () => {
    const { fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
    const [neuron] = neurons as [FakeNeuron];
    let body: unknown = null;
    neuron.onUnload = (_, spec) => {
      body = spec;
      return undefined;
    };
    await fleet.operations.unload('m', null);
    assert.deepEqual(body, { model_id: 'm' });
  });
});

describe('what a node is believed to have cached is forgotten when', () => {
  const ask = { model: 'm', promptTokens: 1000, affinity: { key: 'session', headTokens: null } };
  const facts = {
    ...{ promptTokens: 1000, cachedTokens: 0, completionTokens: 100 },
    ...{ prefillMs: 500, decodeMs: 2000, firstTokenMs: 900, totalMs: 4000 },
  };

  /** A fleet in which n0 has answered a conversation; `believed`: tokens of it that n0 is believed to have. */
  async function setUpConversation() {
    const { fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
    const [neuron] = neurons as [FakeNeuron];
    neuron.use.set('m', { load_id: 'one', requests: 1, loaded_secs: 10, idle_secs: 0 });
    await fleet.pollNow('n0');
    const lease = fleet.request(ask, new AbortController().signal).lease!;
    fleet.learn(lease, facts);
    lease.release();
    const believed = () => fleet.explain(ask).candidates[0]?.terms?.cachedTokens ?? 0;
    await fleet.pollNow('n0');
    assert.ok(believed() > 900, 'a poll without news changes nothing');
    return { fleet, neuron, believed };
  }

  test('its neuron has started anew', async () => {
    const { fleet, neuron, believed } = await setUpConversation();
    neuron.instance = 'another life';
    await fleet.pollNow('n0');
    assert.equal(believed(), 0);
  });

  test('an answer told of that before the poll did', async () => {
    const { fleet, neuron, believed } = await setUpConversation();
    neuron.instance = 'another life';
    nodeOf(fleet, 'n0').estrange();
    await fleet.pollNow('n0');
    assert.equal(believed(), 0);
  });

  test('the model went, whoever unloaded it, and when it is back', async () => {
    const { fleet, neuron, believed } = await setUpConversation();
    neuron.models.get('m')!.status = 'available';
    await fleet.pollNow('n0');
    neuron.models.get('m')!.status = 'loaded';
    await fleet.pollNow('n0');
    assert.equal(believed(), 0);
  });

  test('another gateway unloaded and loaded the model between two polls', async () => {
    const { fleet, neuron, believed } = await setUpConversation();
    neuron.use.set('m', { load_id: 'two', requests: 0, loaded_secs: 1, idle_secs: null });
    await fleet.pollNow('n0');
    assert.equal(believed(), 0);
  });
});

test('a gateway that starts in the middle of traffic serves after one poll, and knows what others do', async () => {
  const { gateway, neurons } = await setUpFleet([
    { models: [loaded('m'), loaded('idle')], devices: [2500] },
    { models: [{ id: 'cold' }] },
  ]);
  const [neuron] = neurons as [FakeNeuron];
  const gate = createGate();
  neuron.onChat = answerBehind(gate);
  const running = await askChat(gateway, 'm', { stream: true });
  neuron.reportedInFlight.set('m', 1);
  const before = neurons.map(({ counters }) => counters.models);
  const next = await startGatewayOver(neurons);
  assert.deepEqual(
    neurons.map(({ counters }, i) => counters.models - before[i]!),
    [1, 1],
  );
  const view = nodeOf(next.fleet, 'n0').toView();
  assert.deepEqual(
    [...view.models.values()].map(({ id, status, foreignLoad }) => [id, status, foreignLoad]),
    [
      ['m', 'loaded', 1],
      ['idle', 'loaded', 0],
    ],
  );
  gate.open();
  assert.match(await running.text(), /\[DONE\]/);
  assert.equal((await askChat(next, 'idle')).status, 200);
  assert.equal((await askChat(next, 'cold')).status, 200);
});
