import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { createGate, type FakeNeuron } from 'testkit/fake-neuron';
import { advanceUntil, askChat, nodeOf, post, setUpFleet } from './fleet.test.kit.ts';

const signal = new AbortController().signal;

/** Holds every load of `id` open until the gate is. */
function holdLoads(neuron: FakeNeuron, id: string) {
  const gate = createGate();
  neuron.onLoad = async (spec) => {
    if (spec.model_id === id) await gate.opened;
    return undefined;
  };
  return gate;
}

test('a gateway that stops refuses what a person asked to load and that has not begun', async () => {
  const { fleet, neurons } = await setUpFleet([{ models: [{ id: 'a' }, { id: 'b' }] }]);
  const [neuron] = neurons as [FakeNeuron];
  holdLoads(neuron, 'a');
  const outcomes = Promise.allSettled(['a', 'b'].map((id) => fleet.operations.load(id, 'n0')));
  await neuron.until(() => neuron.counters.loads === 1);
  fleet.stop();
  for (const outcome of await outcomes) {
    assert.equal(outcome.status === 'rejected' && outcome.reason.code, 'shutting_down');
  }
});

describe('cancel', () => {
  test('stops that load on its neuron and no other, and its waiters hear why', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([
      { models: [{ id: 'a' }] },
      { models: [{ id: 'b' }] },
    ]);
    const [first, second] = neurons as [FakeNeuron, FakeNeuron];
    holdLoads(first, 'a');
    const gate = holdLoads(second, 'b');
    const waits = Array.from({ length: 3 }, () => fleet.request({ model: 'a' }, signal).ready);
    const other = fleet.request({ model: 'b' }, signal).ready;
    const refused = Promise.allSettled(waits);
    await first.until(() => first.counters.loads === 1);
    await second.until(() => second.counters.loads === 1);
    const answer = await post(gateway, '/admin/cancel', { model: 'a' });
    assert.deepEqual(await answer.json(), { status: 'cancelled', model: 'a', nodes: ['n0'] });
    for (const outcome of await refused) {
      assert.equal(outcome.status, 'rejected');
      assert.equal(outcome.reason.code, 'load_cancelled');
    }
    assert.deepEqual([first.counters.cancels, second.counters.cancels], [1, 0]);
    assert.deepEqual([first.counters.unloads, second.counters.unloads], [0, 0]);
    gate.open();
    (await other).release();
    assert.equal(fleet.waitingCount, 0);
  });

  test('of a load that is not there is a 404 that says so', async () => {
    const { gateway } = await setUpFleet([{ models: [{ id: 'a', status: 'loaded' }] }]);
    const answer = await post(gateway, '/admin/cancel', { model: 'a' });
    assert.equal(answer.status, 404);
    assert.match(await answer.text(), /not being loaded on any node/);
    const unknown = await post(gateway, '/admin/cancel', { model: 'a', node: 'moon' });
    assert.match(await unknown.text(), /there is no node \\"moon\\"/);
  });

  test('of a load in the queue ends it at once; the one before it goes on', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [{ id: 'a' }, { id: 'b' }] }]);
    const [neuron] = neurons as [FakeNeuron];
    const gate = holdLoads(neuron, 'a');
    const first = fleet.request({ model: 'a' }, signal).ready;
    const second = fleet.request({ model: 'b' }, signal).ready.catch((error) => error.code);
    await neuron.until(() => neuron.counters.loads === 1);
    assert.deepEqual(nodeOf(fleet, 'n0').toView().pending, ['a', 'b']);
    await post(gateway, '/admin/cancel', { model: 'b' });
    assert.equal(await second, 'load_cancelled');
    gate.open();
    (await first).release();
    assert.deepEqual(neuron.events, ['load a']);
  });

  test('a model can be loaded again right after', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [{ id: 'a' }] }]);
    const [neuron] = neurons as [FakeNeuron];
    holdLoads(neuron, 'a');
    const refused = fleet.request({ model: 'a' }, signal).ready.catch((error) => error.code);
    await neuron.until(() => neuron.counters.loads === 1);
    await post(gateway, '/admin/cancel', { model: 'a' });
    assert.equal(await refused, 'load_cancelled');
    neuron.onLoad = () => undefined;
    assert.equal((await askChat(gateway, 'a')).status, 200);
  });
});

describe('deadline', () => {
  const config = { gateway: { load_timeout_secs: 60 } };
  const models = { models: [{ id: 'm', vram_mb: 1 }] };

  test('a load that stands still is stopped, exactly it, and every waiter hears why', async () => {
    const clock = new FakeClock();
    const setup = await setUpFleet([{ models: [{ id: 'm' }] }], { clock, config, models });
    const [neuron] = setup.neurons as [FakeNeuron];
    holdLoads(neuron, 'm');
    const waits = [1, 2].map(() => setup.fleet.request({ model: 'm' }, signal).ready.catch((error) => error));
    await neuron.until(() => neuron.counters.loads === 1);
    await advanceUntil(clock, 1000, () => neuron.counters.cancels > 0);
    for (const error of await Promise.all(waits)) {
      assert.equal(error.code, 'cold_load_failed');
      assert.match(error.message, /made no progress for 6\d s and was stopped/);
    }
    assert.deepEqual(neuron.events, ['load m', 'cancel m']);
    assert.equal(setup.fleet.operations.loadStatus('m'), null);
  });

  for (const manner of ['silent', 'drip'] as const) {
    test(`a neuron that is ${manner} in the middle of a load holds nobody for ever`, async () => {
      const clock = new FakeClock();
      const setup = await setUpFleet([{ models: [{ id: 'm' }] }], { clock, config, models });
      const [neuron] = setup.neurons as [FakeNeuron];
      neuron.manner = manner;
      let code = '';
      const refused = setup.fleet.request({ model: 'm' }, signal).ready.catch((error) => {
        code = error.code;
      });
      await advanceUntil(clock, 1000, () => code !== '');
      await refused;
      assert.equal(code, 'cold_load_failed');
      assert.ok(clock.monotonicMs() < 120_000);
      assert.equal(setup.fleet.waitingCount, 0);
      neuron.manner = 'normal';
      let isPolled = false;
      void setup.fleet.pollNow('n0').then(() => {
        isPolled = true;
      });
      await advanceUntil(clock, 1000, () => isPolled);
      (await setup.fleet.request({ model: 'm' }, signal).ready).release();
    });
  }

  test('who waits for a load on a node that falls silent is served by another that can', async () => {
    const clock = new FakeClock();
    const setup = await setUpFleet([{ models: [{ id: 'm' }] }, { models: [{ id: 'm' }] }], { clock, models });
    const { fleet, neurons } = setup;
    const [first] = neurons as [FakeNeuron, FakeNeuron];
    const gate = holdLoads(first, 'm');
    const waiting = fleet.request({ model: 'm' }, signal);
    assert.equal(waiting.node, 'n0');
    await first.until(() => first.counters.loads === 1);
    first.manner = 'silent';
    let node = '';
    const served = waiting.ready.then((lease) => {
      node = lease.node;
      lease.release();
    });
    for (let misses = 0; misses < 3; misses++) {
      let isPolled = false;
      void fleet.pollNow('n0').then(() => {
        isPolled = true;
      });
      await advanceUntil(clock, 1000, () => isPolled);
    }
    await advanceUntil(clock, 1000, () => node !== '');
    await served;
    assert.equal(node, 'n1');
    assert.ok(clock.monotonicMs() < 60_000, `after ${clock.monotonicMs()} ms, when the load was given up`);
    gate.open();
  });

  test('a load that moves outlives any constant', async () => {
    const clock = new FakeClock();
    const setup = await setUpFleet([{ models: [{ id: 'm' }] }], { clock, config, models });
    const [neuron] = setup.neurons as [FakeNeuron];
    const gate = holdLoads(neuron, 'm');
    const ready = setup.fleet.request({ model: 'm' }, signal).ready;
    await neuron.until(() => neuron.counters.loads === 1);
    const node = nodeOf(setup.fleet, 'n0');
    for (let percent = 1; percent <= 20; percent++) {
      const bytes = { bytes_done: percent * 1e9, bytes_total: 100e9 };
      neuron.loading = [{ model_id: 'm', phase: 'loading', percent, eta_secs: null, ...bytes }];
      await advanceUntil(clock, 1000, () => node.progressOf('m')?.percent === percent);
      await clock.advance(50_000);
    }
    assert.ok(clock.monotonicMs() > 1_000_000);
    assert.equal(setup.fleet.operations.loadStatus('m')?.percent, 20);
    assert.ok(node.loadRate.bytesPerSec !== null);
    gate.open();
    (await ready).release();
    assert.equal(neuron.counters.cancels, 0);
  });

  test('a stopped gateway leaves the load to the neuron', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [{ id: 'm' }] }]);
    const [neuron] = neurons as [FakeNeuron];
    const gate = holdLoads(neuron, 'm');
    const refused = fleet.request({ model: 'm' }, signal).ready.catch((error) => error.code);
    await neuron.until(() => neuron.counters.loads === 1);
    await gateway.close();
    assert.equal(await refused, 'shutting_down');
    assert.deepEqual([neuron.counters.cancels, neuron.counters.unloads], [0, 0]);
    gate.open();
  });
});

test('a request that gives up waiting gets 503, Retry-After and what is known of the load', async () => {
  const config = { gateway: { cold_load_wait_secs: 0 } };
  const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm' }] }], { config });
  const [neuron] = neurons as [FakeNeuron];
  const gate = holdLoads(neuron, 'm');
  neuron.loading = [{ model_id: 'm', phase: 'fetching', percent: 40, eta_secs: 17 }];
  await gateway.fleet.pollNow('n0');
  const answer = await askChat(gateway, 'm');
  assert.deepEqual([answer.status, answer.headers.get('retry-after')], [503, '17']);
  const { error } = (await answer.json()) as { error: { loading: object } };
  assert.deepEqual(error.loading, { node: 'n0', state: 'fetching', percent: 40, eta: 17 });
  gate.open();
});

test('two cold loads of different models do not race for the same memory', async () => {
  const { fleet, neurons } = await setUpFleet([{ devices: [1500], models: [{ id: 'a' }, { id: 'b' }] }]);
  const [neuron] = neurons as [FakeNeuron];
  const gate = holdLoads(neuron, 'a');
  const first = fleet.request({ model: 'a' }, signal).ready;
  const second = fleet.request({ model: 'b' }, signal).ready;
  await neuron.until(() => neuron.counters.loads === 1);
  gate.open();
  const lease = await first;
  assert.deepEqual(neuron.events, ['load a']);
  lease.release();
  (await second).release();
  assert.deepEqual(neuron.events, ['load a', 'unload a', 'load b']);
});
