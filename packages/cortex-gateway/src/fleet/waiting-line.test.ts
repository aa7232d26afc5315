import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { after, describe, test } from 'node:test';
import { createGate } from 'testkit/fake-neuron';
import type { Asker } from './ask.ts';
import type { Lease } from './lease.ts';
import { type FleetSetup, setupFleet as setup } from './waiting-line.test.kit.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

async function setupFleet(...options: Parameters<typeof setup>): Promise<FleetSetup> {
  const made = await setup(...options);
  cleanups.push(made.close);
  return made;
}

const alive = (): AbortSignal => new AbortController().signal;
const asker = (key: string, more: Partial<Asker> = {}): Asker => ({
  key,
  session: 's',
  priority: 0,
  ...more,
});
/** Lets time pass until the lease is there. */
async function leased({ clock }: FleetSetup, ready: Promise<Lease>): Promise<Lease> {
  let lease: Lease | null = null;
  let failure: unknown = null;
  ready.then(
    (got) => {
      lease = got;
    },
    (cause) => {
      failure = cause;
    },
  );
  for (let i = 0; lease === null; i++) {
    if (failure !== null) throw failure;
    assert.ok(i < 2000, 'never served');
    await clock.advance(100);
  }
  return lease;
}

const atOnce = { turns: { maxWaitMs: 0, residencyFactor: 0, residencyMaxMs: 0 } };
const twoModels = { devices: [1500], models: [{ id: 'a' }, { id: 'b' }] };

describe('the waiting line', () => {
  test('A and B of equal rank alternate twenty times: each comes back', async () => {
    const made = await setupFleet([twoModels]);
    const { fleet, neurons, events } = made;
    for (let i = 0; i < 20; i++) {
      for (const id of ['a', 'b'])
        (await leased(made, fleet.request({ model: id }, alive()).ready)).release();
    }
    assert.equal(neurons[0]!.counters.loads, 40);
    assert.equal(events.filter((event) => event.kind === 'swapped').length, 39);
  });

  test('a lower rank waits for nobody: it is refused and evicts nothing', async () => {
    const { fleet, neurons } = await setupFleet([twoModels], {
      models: [
        { id: 'a', residency_priority: 200 },
        { id: 'b', residency_priority: 100 },
      ],
    });
    (await fleet.request({ model: 'a' }, alive()).ready).release();
    assert.throws(() => fleet.request({ model: 'b' }, alive()), /a may not be displaced/);
    assert.equal(neurons[0]!.counters.unloads, 0);
  });

  test('the turn that a load waits for is part of what is expected, and passes as time does', async () => {
    const made = await setupFleet([twoModels]);
    const { fleet, clock } = made;
    const termsOfB = () => fleet.explain({ model: 'b' }).candidates[0]?.terms;
    assert.equal(termsOfB()?.turnMs, 0);
    const running = await fleet.request({ model: 'a' }, alive()).ready;
    const other = fleet.request({ model: 'b' }, alive());
    // the node's memory is read once more after the load of a
    for (let i = 0; i < 100 && termsOfB()?.turnMs === 0; i++) await clock.advance(100);
    const turnMs = termsOfB()?.turnMs ?? 0;
    assert.ok(turnMs > 20_000 && turnMs < 60_000, `${turnMs}`);
    await clock.advance(5000);
    assert.equal(termsOfB()?.turnMs, turnMs - 5000);
    running.release();
    (await leased(made, other.ready)).release();
    assert.equal(termsOfB()?.turnMs, 0);
  });

  test('the resident model goes on serving its own requests until another one is due', async () => {
    const made = await setupFleet([twoModels]);
    const { fleet, clock, neurons, events } = made;
    const running = await fleet.request({ model: 'a' }, alive()).ready;
    const other = fleet.request({ model: 'b' }, alive());
    let served = 0;
    for (; served < 5; served++) {
      await clock.advance(1000);
      const next = fleet.request({ model: 'a' }, alive());
      assert.ok(next.lease !== null, 'a request for the resident model had to wait');
      next.lease.release();
    }
    assert.equal(neurons[0]!.counters.unloads, 0);
    await clock.advance(60_000);
    assert.equal(fleet.view().nodes[0]!.models.get('a')?.draining, true);
    const late = fleet.request({ model: 'a' }, alive());
    assert.equal(late.lease, null, 'a draining model takes no request');
    running.release();
    (await leased(made, other.ready)).release();
    (await leased(made, late.ready)).release();
    const swaps = events.flatMap((event) => (event.kind === 'swapped' ? [event.reason] : []));
    assert.equal(swaps[0], 'due');
  });

  test('a load that fails evicts once, and nobody again before its time; by hand it may at once', async () => {
    const made = await setupFleet([twoModels], {}, atOnce);
    const { fleet, clock, neurons } = made;
    const broken = { status: 500, body: { error: 'out of memory', code: 'load_failed' } };
    neurons[0]!.onLoad = ({ model_id }) => (model_id === 'b' ? broken : undefined);
    const use = async (model: string): Promise<void> =>
      (await leased(made, fleet.request({ model }, alive()).ready)).release();
    await use('a');
    await assert.rejects(use('b'), /out of memory/);
    await use('a');
    for (let again = 0; again < 3; again++) {
      assert.throws(() => fleet.request({ model: 'b' }, alive()), {
        code: 'insufficient_vram',
        retryAfterSecs: 10,
        message: /loading "b" on n0 failed: out of memory; it evicts nobody on n0 for a while/,
      });
    }
    const loads = ['load a', 'unload a', 'load b', 'load a'];
    assert.deepEqual(neurons[0]!.events, loads);
    await clock.advance(10_000);
    await assert.rejects(use('b'), /out of memory/);
    await use('a');
    await clock.advance(10_000);
    // the second time it is longer
    assert.throws(() => fleet.request({ model: 'b' }, alive()), { code: 'insufficient_vram' });
    neurons[0]!.onLoad = () => undefined;
    await fleet.operations.load('b', 'n0');
    await use('a');
    // it has worked
    await use('b');
  });

  test('a request that comes while another model loads, or leaves, waits for its turn', async () => {
    const made = await setupFleet([twoModels], {}, atOnce);
    const { fleet, neurons } = made;
    const gate = createGate();
    neurons[0]!.onLoad = () => gate.opened.then(() => undefined);
    const first = fleet.request({ model: 'a' }, alive()).ready;
    await neurons[0]!.until(() => neurons[0]!.counters.loads === 1);
    neurons[0]!.models.get('a')!.status = 'loading';
    await fleet.pollNow('n0');
    const other = fleet.request({ model: 'b' }, alive()).ready;
    gate.open();
    (await leased(made, first)).release();
    const away = createGate();
    neurons[0]!.onUnload = () => away.opened.then(() => undefined);
    await neurons[0]!.until(() => neurons[0]!.counters.unloads === 1);
    const again = fleet.request({ model: 'b' }, alive()).ready;
    away.open();
    for (const ready of [other, again]) (await leased(made, ready)).release();
    assert.deepEqual(neurons[0]!.events, ['load a', 'unload a', 'load b']);
  });

  test('a request right behind a load is not refused because its neuron told no size while it loaded', async () => {
    const made = await setupFleet([twoModels], {}, atOnce);
    const { fleet, neurons } = made;
    const gate = createGate();
    neurons[0]!.onLoad = () => gate.opened.then(() => undefined);
    const first = fleet.request({ model: 'a' }, alive()).ready;
    await neurons[0]!.until(() => neurons[0]!.counters.loads === 1);
    neurons[0]!.models.get('a')!.status = 'loading';
    neurons[0]!.reportedFreeMb.set(0, 500);
    await fleet.pollNow('n0');
    gate.open();
    const lease = await first;
    // in this tick nothing was read since the load
    const other = fleet.request({ model: 'b' }, alive()).ready;
    neurons[0]!.reportedFreeMb.clear();
    lease.release();
    (await leased(made, other)).release();
    assert.deepEqual(neurons[0]!.events, ['load a', 'unload a', 'load b']);
  });

  test('a thousand aborted requests leave nothing behind, and nobody is evicted for them', async () => {
    const { fleet, clock, neurons } = await setupFleet([twoModels]);
    const running = await fleet.request({ model: 'a' }, alive()).ready;
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const waits = Array.from({ length: 1000 }, () => fleet.request({ model: 'b' }, stop.signal).ready);
    assert.equal(fleet.waitingCount, 1000);
    stop.abort(new Error('gone'));
    for (const outcome of await Promise.allSettled(waits)) assert.equal(outcome.status, 'rejected');
    assert.equal(fleet.waitingCount, 0);
    await clock.advance(1000_000);
    assert.deepEqual(fleet.view().nodes[0]!.pending, []);
    assert.equal(neurons[0]!.counters.unloads, 0);
    running.release();
    assert.equal(fleet.view().nodes[0]!.models.get('a')?.leases, 0);
  });

  test('who leaves while the victim drains lets it stay', async () => {
    const { fleet, clock, neurons } = await setupFleet([twoModels]);
    const running = await fleet.request({ model: 'a' }, alive()).ready;
    const stop = new AbortController();
    const wait = fleet.request({ model: 'b' }, stop.signal).ready;
    await clock.advance(60_000);
    assert.equal(fleet.view().nodes[0]!.models.get('a')?.draining, true);
    stop.abort(new Error('gone'));
    await assert.rejects(wait, /gone/);
    running.release();
    await clock.advance(0);
    const again = await fleet.request({ model: 'a' }, alive()).ready;
    again.release();
    assert.equal(neurons[0]!.counters.unloads, 0);
  });

  test('beyond the slots of a model requests wait here, fair between keys, and nobody overtakes', async () => {
    const { fleet, neurons } = await setupFleet([{ models: [{ id: 'm', status: 'loaded' as const }] }]);
    neurons[0]!.slots = { max_in_flight: 1, max_queue_depth: 1 };
    await fleet.pollNow('n0');
    const order: string[] = [];
    const ask = (key: string, more: Partial<Asker> = {}): Promise<Lease> => {
      const ticket = fleet.request({ model: 'm', promptTokens: 100, asker: asker(key, more) }, alive());
      return ticket.ready.then((lease) => {
        order.push(key);
        return lease;
      });
    };
    const first = [await ask('flood'), await ask('flood')];
    const waiting = [...Array.from({ length: 6 }, () => ask('flood')), ask('few'), ask('few')];
    const urgent = ask('urgent', { priority: 5 });
    assert.equal(fleet.waitingCount, 9);
    for (const lease of first) lease.release();
    (await urgent).release();
    for (const wait of waiting) wait.then((lease) => lease.release());
    await Promise.all(waiting);
    // equal shares from here on, not the order in which they came
    assert.deepEqual(order.slice(2, 7), ['urgent', 'flood', 'few', 'flood', 'few']);
    assert.equal(fleet.waitingCount, 0);
  });

  test('who stands behind others is not refused because the models swap meanwhile', async () => {
    const made = await setupFleet([twoModels]);
    const { fleet, neurons } = made;
    neurons[0]!.slots = { max_in_flight: 1, max_queue_depth: 0 };
    const all = Array.from(
      { length: 24 },
      (_, i) => fleet.request({ model: i % 2 === 0 ? 'a' : 'b' }, alive()).ready,
    );
    const served = all.map((ready) => ready.then((lease) => lease.release()));
    await leased(
      made,
      Promise.all(served).then(() => ({}) as Lease),
    );
    assert.equal(fleet.waitingCount, 0);
  });

  test('an orchestrator and its two workers do not swap at each of their calls', async () => {
    const made = await setupFleet([twoModels]);
    const { fleet, clock, events, neurons } = made;
    neurons[0]!.onLoad = () => clock.sleep(10_000).then(() => undefined);
    const serve = async (model: string, ms: number): Promise<void> => {
      const lease = await leased(made, fleet.request({ model: model }, alive()).ready);
      await clock.advance(ms);
      lease.release();
    };
    // the orchestrator asks for a plan, the workers make six calls with pauses, then it goes on
    await serve('a', 2000);
    for (let call = 0; call < 6; call++) {
      await serve('b', 2000);
      await clock.advance(1000);
    }
    await serve('a', 2000);
    const swaps = events.filter((event) => event.kind === 'swapped').length;
    assert.equal(swaps, 2);
  });
});

describe('a victim', () => {
  test('keeps its lease: the request that had it when the decision fell is not cut', async () => {
    const made = await setupFleet([twoModels], {}, atOnce);
    const { fleet, clock, neurons } = made;
    const first = await fleet.request({ model: 'a' }, alive()).ready;
    // in one tick: a lease of the resident model, and the decision to evict it
    const second = fleet.request({ model: 'a' }, alive());
    const other = fleet.request({ model: 'b' }, alive());
    assert.ok(second.lease !== null);
    first.release();
    await clock.advance(5000);
    assert.equal(neurons[0]!.counters.unloads, 0);
    second.lease.release();
    (await leased(made, other.ready)).release();
    assert.deepEqual(neurons[0]!.events, ['load a', 'unload a', 'load b']);
  });

  test('that does not drain in time stays, and the load fails with an error that may be retried', async () => {
    const made = await setupFleet(
      [twoModels],
      {},
      {
        ...atOnce,
        drain: { timeoutMs: 30_000, cutAfter: false },
      },
    );
    const { fleet, neurons } = made;
    const running = await fleet.request({ model: 'a' }, alive()).ready;
    const failed = leased(made, fleet.request({ model: 'b' }, alive()).ready);
    await assert.rejects(failed, (cause: { code: string; message: string }) => {
      assert.equal(cause.code, 'insufficient_vram');
      assert.match(
        cause.message,
        /"a" still answers, or is used by another gateway and was not evicted; try again/,
      );
      return true;
    });
    assert.equal(neurons[0]!.counters.unloads, 0);
    assert.ok(fleet.request({ model: 'a' }, alive()).lease !== null, 'it takes requests again');
    running.release();
  });

  test('that does not drain in time is passed over for one that does', async () => {
    const models = [{ id: 'a' }, { id: 'b' }, { id: 'c' }];
    const made = await setupFleet(
      [{ devices: [2000], models }],
      {},
      {
        ...atOnce,
        drain: { timeoutMs: 30_000, cutAfter: false },
      },
    );
    const { fleet, clock, neurons } = made;
    const stuck = await fleet.request({ model: 'a' }, alive()).ready;
    const soon = await fleet.request({ model: 'b' }, alive()).ready;
    const wait = fleet.request({ model: 'c' }, alive()).ready;
    // the plan takes a, which never ends; then b, which does
    while (!fleet.view().nodes[0]!.models.get('b')!.draining) await clock.advance(100);
    soon.release();
    (await leased(made, wait)).release();
    assert.deepEqual(neurons[0]!.events, ['load a', 'load b', 'unload b', 'load c']);
    stuck.release();
  });

  test('is cut after its time only when the configuration says so', async () => {
    const made = await setupFleet(
      [twoModels],
      {},
      {
        ...atOnce,
        drain: { timeoutMs: 30_000, cutAfter: true },
      },
    );
    const { fleet, neurons } = made;
    const running = await fleet.request({ model: 'a' }, alive()).ready;
    neurons[0]!.use.set('a', { load_id: 'x', requests: 1, loaded_secs: 1, idle_secs: 0 });
    neurons[0]!.reportedInFlight.set('a', 1);
    await fleet.pollNow('n0');
    const other = fleet.request({ model: 'b' }, alive());
    (await leased(made, other.ready)).release();
    assert.deepEqual(neurons[0]!.events, ['load a', 'unload a', 'load b']);
    running.release();
  });

  test('that answers requests of another gateway drains as well', async () => {
    const made = await setupFleet(
      [{ devices: [1500], models: [{ id: 'a', status: 'loaded' as const }, { id: 'b' }] }],
      {},
      atOnce,
    );
    const { fleet, clock, neurons } = made;
    neurons[0]!.reportedInFlight.set('a', 1);
    await fleet.pollNow('n0');
    const other = fleet.request({ model: 'b' }, alive());
    const reads = neurons[0]!.counters.health;
    await neurons[0]!.until(() => neurons[0]!.counters.health > reads);
    await clock.advance(1000);
    assert.equal(neurons[0]!.counters.unloads, 0);
    neurons[0]!.reportedInFlight.clear();
    await fleet.pollNow('n0');
    await clock.advance(1000);
    (await leased(made, other.ready)).release();
    assert.deepEqual(neurons[0]!.events, ['unload a', 'load b']);
  });
});

describe('time to live', () => {
  const config = { models: [{ id: 'm', ttl_secs: 100 }, { id: 'kept' }, { id: 'pin', pinned_on: ['n0'] }] };
  const models = [{ id: 'm' }, { id: 'kept' }, { id: 'pin', status: 'loaded' as const }];

  test('an unused model is unloaded after its own time, and a request brings it back at once', async () => {
    const made = await setupFleet([{ models }], config);
    const { fleet, clock, neurons, events } = made;
    for (const id of ['m', 'kept']) (await fleet.request({ model: id }, alive()).ready).release();
    await fleet.pollNow('n0');
    await clock.advance(99_000);
    assert.equal(neurons[0]!.counters.unloads, 0);
    (await fleet.request({ model: 'm' }, alive()).ready).release();
    await clock.advance(99_000);
    assert.equal(neurons[0]!.counters.unloads, 0);
    await clock.advance(2000);
    await neurons[0]!.until(() => neurons[0]!.counters.unloads === 1);
    (await fleet.request({ model: 'm' }, alive()).ready).release();
    assert.deepEqual(neurons[0]!.events, ['load m', 'load kept', 'unload m', 'load m']);
    assert.deepEqual(
      events.flatMap((event) => (event.kind === 'evicted' ? [event.reason] : [])),
      ['ttl'],
    );
  });

  test('the default time holds for all but pinned models', async () => {
    const made = await setupFleet([{ models }], config, { idleTtlSecs: 50 });
    const { fleet, clock, neurons } = made;
    (await fleet.request({ model: 'kept' }, alive()).ready).release();
    await fleet.pollNow('n0');
    await clock.advance(51_000);
    await neurons[0]!.until(() => neurons[0]!.counters.unloads === 1);
    await fleet.pollNow('n0');
    await clock.advance(51_000);
    await fleet.pollNow('n0');
    assert.deepEqual(neurons[0]!.events, ['load kept', 'unload kept']);
  });

  test('a request that comes while the unload runs waits for its end and is served', async () => {
    const made = await setupFleet([{ models }], config);
    const { fleet, clock, neurons } = made;
    (await fleet.request({ model: 'm' }, alive()).ready).release();
    await fleet.pollNow('n0');
    const gate = createGate();
    neurons[0]!.onUnload = () => gate.opened.then(() => undefined);
    await clock.advance(101_000);
    await neurons[0]!.until(() => neurons[0]!.counters.unloads === 1);
    const tickets = Array.from({ length: 3 }, () => fleet.request({ model: 'm' }, alive()));
    assert.ok(tickets.every((ticket) => ticket.lease === null));
    gate.open();
    for (const ticket of tickets) (await ticket.ready).release();
    assert.equal(neurons[0]!.counters.loads, 2);
  });

  test('an unload that the neuron refuses leaves the model in service', async () => {
    const made = await setupFleet([{ models }], config);
    const { fleet, clock, neurons } = made;
    (await fleet.request({ model: 'm' }, alive()).ready).release();
    await fleet.pollNow('n0');
    neurons[0]!.onUnload = () => ({ status: 500, body: { error: 'no' } });
    await clock.advance(101_000);
    await neurons[0]!.until(() => neurons[0]!.counters.unloads === 1);
    const { ready } = fleet.request({ model: 'm' }, alive());
    (await ready).release();
    assert.equal(neurons[0]!.counters.loads, 1);
  });
});
