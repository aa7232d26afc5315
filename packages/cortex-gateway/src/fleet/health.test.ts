import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Log } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import { answerBehind, createGate, type FakeNeuron } from 'testkit/fake-neuron';
import { advanceUntil, askChat, nodeOf, post, setUpFleet } from './fleet.test.kit.ts';

const loaded = (id: string) => ({ id, status: 'loaded' as const });
const polling = { gateway: { poll_interval_secs: 10, poll_timeout_secs: 5 } };

describe('polls', () => {
  for (const manner of ['silent', 'drip'] as const) {
    test(`a neuron that is ${manner} delays no other, and is unhealthy after three misses`, async () => {
      const clock = new FakeClock();
      const { fleet, gateway, neurons } = await setUpFleet(
        [{ models: [loaded('a')] }, { models: [loaded('b')] }],
        {
          clock,
          config: polling,
        },
      );
      const [hung, well] = neurons as [FakeNeuron, FakeNeuron];
      hung.manner = manner;
      const before = well.counters.health;
      const node = nodeOf(fleet, 'n0');
      await advanceUntil(clock, 500, () => node.misses === 1);
      assert.equal(node.healthy, true);
      await advanceUntil(clock, 500, () => !node.healthy);
      assert.equal(node.misses, 3);
      // three misses took 45 s at most; the other was asked all the while
      assert.ok(well.counters.health - before >= 3, String(well.counters.health - before));
      assert.equal(nodeOf(fleet, 'n1').healthy, true);
      assert.equal((await askChat(gateway, 'b')).status, 200);
      const refused = await askChat(gateway, 'a');
      assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '3']);
      hung.manner = 'normal';
      await advanceUntil(clock, 500, () => node.healthy);
      assert.equal((await askChat(gateway, 'a')).status, 200);
    });
  }

  test('a crowd of hung neurons does not hold up the poll of one that is well', async () => {
    const clock = new FakeClock();
    const { fleet, neurons } = await setUpFleet(
      Array.from({ length: 40 }, () => ({})),
      { clock, config: { gateway: { poll_timeout_secs: 3600 } } },
    );
    const [well, ...hung] = neurons as [FakeNeuron, ...FakeNeuron[]];
    for (const neuron of hung) neuron.manner = 'silent';
    for (const node of fleet.nodes()) if (node.name !== 'n0') void fleet.pollNow(node.name);
    const before = well.counters.health;
    let isDone = false;
    void fleet.pollNow('n0').then(() => {
      isDone = true;
    });
    await advanceUntil(clock, 50, () => isDone);
    assert.equal(well.counters.health, before + 1);
    assert.ok(clock.monotonicMs() < 2000);
  });

  test('bytes of an answer are proof of life: a busy node that misses polls stays', async () => {
    const clock = new FakeClock();
    const { fleet, gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], {
      clock,
      config: polling,
    });
    const [neuron] = neurons as [FakeNeuron];
    const node = nodeOf(fleet, 'n0');
    let write = (): void => {};
    neuron.onChat = (call) => {
      call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      write = () => void call.response.write(': busy\n\n');
      write();
    };
    const answer = await askChat(gateway, 'm', { stream: true });
    const reader = answer.body!.getReader();
    await reader.read();
    neuron.failing = true;
    for (let i = 0; i < 5; i++) {
      await advanceUntil(clock, 500, () => node.misses === 2);
      write();
      await reader.read();
      assert.deepEqual([node.misses, node.healthy], [0, true]);
    }
    await reader.cancel();
  });

  test('a neuron that comes back with other devices and models is believed at its first poll', async () => {
    const lines: string[] = [];
    const { fleet, neurons } = await setUpFleet([{ devices: [1000], models: [loaded('old')] }], {
      log: recorder(lines),
    });
    const [neuron] = neurons as [FakeNeuron];
    neuron.failing = true;
    await fleet.pollNow('n0');
    neuron.failing = false;
    neuron.deviceMb = [24_000, 24_000];
    neuron.models.clear();
    neuron.addModel(loaded('new'));
    await fleet.pollNow('n0');
    const view = nodeOf(fleet, 'n0').toView();
    assert.deepEqual(
      view.devices.map(({ totalMb }) => totalMb),
      [24_000, 24_000],
    );
    assert.deepEqual([...view.models.keys()], ['new']);
    assert.ok(lines.includes('warn node came back with other devices'));
  });

  test('a neuron of another wire version is used, shown and warned of once', async () => {
    const lines: string[] = [];
    const { fleet, gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], {
      log: recorder(lines),
    });
    const [neuron] = neurons as [FakeNeuron];
    assert.deepEqual(
      lines.filter((line) => line.includes('wire version')),
      [],
    );
    for (const [told, says] of [
      [99, /speaks wire version 99 \(its version is fake\), this gateway speaks 1/],
      [null, /tells no wire version/],
    ] as const) {
      lines.length = 0;
      neuron.discoveryExtras = { wire_version: told };
      nodeOf(fleet, 'n0').misses = 1;
      await fleet.pollNow('n0');
      nodeOf(fleet, 'n0').misses = 1;
      await fleet.pollNow('n0');
      assert.equal(lines.filter((line) => says.test(line)).length, 1);
      const answer = await fetch(`${gateway.url}/admin/fleet`);
      const { nodes } = (await answer.json()) as { nodes: { wire_version: unknown; warnings: string[] }[] };
      assert.equal(nodes[0]!.wire_version, told);
      assert.match(nodes[0]!.warnings[0] ?? '', says);
    }
    assert.equal((await askChat(gateway, 'm')).status, 200);
  });

  test('a neuron whose clock is years off is treated like any other', async () => {
    const { fleet, gateway } = await setUpFleet([{ models: [loaded('m')] }], {
      clock: new FakeClock(Date.UTC(1999, 0, 1)),
    });
    assert.equal(nodeOf(fleet, 'n0').healthy, true);
    assert.equal((await askChat(gateway, 'm')).status, 200);
  });
});

describe('servable', () => {
  test('a healthy node whose model cannot serve gets no request, and health says why', async () => {
    const detail = '1405 MiB free, 1500 needed for one sequence';
    const { gateway, neurons } = await setUpFleet([
      { models: [{ ...loaded('m'), servable: { ok: false, reason: 'kv', detail } }] },
      { models: [loaded('m')] },
    ]);
    for (let i = 0; i < 3; i++)
      assert.equal((await askChat(gateway, 'm')).headers.get('x-cortex-route')?.includes('n1'), true);
    assert.equal(neurons[0]!.counters.chats, 0);
    const health = (await (await fetch(`${gateway.url}/health`)).json()) as { unservable: object[] };
    assert.deepEqual(health, {
      status: 'impaired',
      nodes: { healthy: 2, total: 2 },
      unservable: [{ node: 'n0', model: 'm', reason: 'unservable', detail }],
    });
  });
});

describe('breaker', () => {
  test('a node whose requests fail although it answers polls rests, is tried with one, and comes back', async () => {
    const clock = new FakeClock();
    const { fleet, gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], {
      clock,
      config: { gateway: { rest_after_failures: 3 } },
    });
    const [neuron] = neurons as [FakeNeuron];
    const answers = neuron.onChat;
    neuron.onChat = (call) => void call.response.destroy();
    for (let i = 0; i < 3; i++) assert.equal((await askChat(gateway, 'm')).status, 502);
    assert.equal(nodeOf(fleet, 'n0').healthy, true);
    const refused = await askChat(gateway, 'm');
    assert.equal(refused.status, 503);
    assert.ok(Number(refused.headers.get('retry-after')) > 0);
    assert.match(await refused.text(), /n0 failed 3 requests in a row and rests/);
    assert.equal(neuron.counters.chats, 3);
    const health = (await (await fetch(`${gateway.url}/health`)).json()) as Record<string, unknown>;
    assert.deepEqual(health.nodes, { healthy: 1, total: 1 });
    assert.equal(health.status, 'degraded');
    await clock.advance(5000);
    const gate = createGate();
    neuron.onChat = async (call) => {
      await gate.opened;
      return await answers(call);
    };
    const probe = askChat(gateway, 'm');
    await neuron.until(() => neuron.counters.chats === 4);
    assert.match(await (await askChat(gateway, 'm')).text(), /is being tried with one request/);
    gate.open();
    assert.equal((await probe).status, 200);
    assert.equal(nodeOf(fleet, 'n0').service.circuit, 'closed');
    assert.equal((await askChat(gateway, 'm')).status, 200);
  });

  test('a request that waited for a load is the one that tries the node, and holds nothing afterwards', async () => {
    const clock = new FakeClock();
    const { fleet, gateway, neurons } = await setUpFleet([{ models: [loaded('m'), { id: 'cold' }] }], {
      clock,
      config: { gateway: { rest_after_failures: 2 } },
    });
    const [neuron] = neurons as [FakeNeuron];
    const answers = neuron.onChat;
    neuron.onChat = (call) => void call.response.destroy();
    for (let i = 0; i < 2; i++) assert.equal((await askChat(gateway, 'm')).status, 502);
    await clock.advance(5000);
    neuron.onChat = answers;
    assert.equal((await askChat(gateway, 'cold')).status, 200);
    const node = nodeOf(fleet, 'n0');
    assert.deepEqual([node.service.circuit, node.leaseCount], ['closed', 0]);
    assert.equal((await askChat(gateway, 'm')).status, 200);
  });

  test('refusals for want of room, faults of the request and clients that leave open nothing', async () => {
    const { fleet, gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], {
      config: { gateway: { rest_after_failures: 2 } },
    });
    const [neuron] = neurons as [FakeNeuron];
    for (const status of [503, 429, 400, 422]) {
      neuron.onChat = (call) => void call.response.writeHead(status).end('{}');
      for (let i = 0; i < 4; i++) await (await askChat(gateway, 'm')).text();
    }
    neuron.onChat = () => {};
    for (let i = 0; i < 4; i++) {
      const leave = new AbortController();
      const asked = neuron.counters.chats;
      const call = fetch(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'x' }] }),
        signal: leave.signal,
      }).catch(() => {});
      await neuron.until(() => neuron.counters.chats > asked);
      leave.abort();
      await call;
      await neuron.until(() => neuron.counters.aborted > i);
    }
    assert.equal(nodeOf(fleet, 'n0').service.circuit, 'closed');
  });
});

describe('drain', () => {
  test('a drained node gets no request and no load, and what runs there ends', async () => {
    const { fleet, gateway, neurons } = await setUpFleet([
      { models: [loaded('m'), { id: 'cold' }] },
      { models: [loaded('m')] },
    ]);
    const [first, second] = neurons as [FakeNeuron, FakeNeuron];
    const gate = createGate();
    first.onChat = answerBehind(gate);
    const running = await askChat(gateway, 'm', { stream: true });
    assert.match(running.headers.get('x-cortex-route') ?? '', /n0/);
    const drain = await post(gateway, '/admin/drain', { node: 'n0' });
    const service = { reason: 'is drained by an operator', circuit: 'closed', in_flight: 1, loads: 0 };
    assert.deepEqual(await drain.json(), { node: 'n0', state: 'draining', ...service });
    for (let i = 0; i < 4; i++) await (await askChat(gateway, 'm')).text();
    assert.deepEqual([first.counters.chats, second.counters.chats], [1, 4]);
    const cold = await askChat(gateway, 'cold');
    assert.equal(cold.status, 503);
    assert.match(await cold.text(), /needs n0, which is drained by an operator/);
    const load = await post(gateway, '/admin/load', { model: 'cold', node: 'n0' });
    assert.match(await load.text(), /drained by an operator/);
    const health = (await (await fetch(`${gateway.url}/health`)).json()) as Record<string, unknown>;
    assert.deepEqual(health.out_of_service, [{ node: 'n0', reason: 'is drained by an operator' }]);
    assert.deepEqual([health.status, health.nodes], ['impaired', { healthy: 2, total: 2 }]);
    gate.open();
    assert.match(await running.text(), /\[DONE\]/);
    assert.equal(nodeOf(fleet, 'n0').leaseCount, 0);
    await post(gateway, '/admin/undrain', { node: 'n0' });
    assert.equal((await askChat(gateway, 'cold')).status, 200);
    assert.equal(first.counters.loads, 1);
  });

  test('a cordoned node serves what it has and loads nothing', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [loaded('m'), { id: 'cold' }] }]);
    await post(gateway, '/admin/drain', { node: 'n0', cordon: true });
    assert.equal((await askChat(gateway, 'm')).status, 200);
    const cold = await askChat(gateway, 'cold');
    assert.equal(cold.status, 503);
    assert.match(await cold.text(), /cordoned by an operator/);
    assert.equal(neurons[0]!.counters.loads, 0);
  });

  test('what still runs at the deadline is cut with an error that may be tried again', async () => {
    const clock = new FakeClock();
    const { gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], { clock });
    const [neuron] = neurons as [FakeNeuron];
    neuron.onChat = (call) => {
      call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      call.response.write(': prefill\n\n');
    };
    const running = await askChat(gateway, 'm', { stream: true });
    await post(gateway, '/admin/drain', { node: 'n0', deadline: 60 });
    await clock.advance(60_000);
    const text = await running.text();
    assert.match(text, /being drained and its time is over/);
    assert.doesNotMatch(text, /\[DONE\]/);
    await neuron.until(() => neuron.counters.aborted === 1);
  });

  test('a load in the queue goes to another node, the one that runs there goes on', async () => {
    const { fleet, neurons } = await setUpFleet(
      [{ models: [{ id: 'a' }, { id: 'b' }] }, { models: [{ id: 'b' }], devices: [10] }],
      { models: { models: [{ id: 'b', vram_mb: 5, pinned_on: [] }] } },
    );
    const [first, second] = neurons as [FakeNeuron, FakeNeuron];
    const gate = createGate();
    first.onLoad = async (spec) => {
      if (spec.model_id === 'a') await gate.opened;
      return undefined;
    };
    const { signal } = new AbortController();
    const a = fleet.request({ model: 'a' }, signal).ready;
    const onFirst = fleet.operations.load('b', 'n0').catch((error) => error.code);
    const b = fleet.request({ model: 'b' }, signal).ready;
    await first.until(() => first.counters.loads === 1);
    fleet.operations.drain('n0', 'drained', null);
    assert.equal(await onFirst, 'node_unhealthy');
    const lease = await b;
    assert.deepEqual([lease.node, second.counters.loads], ['n1', 1]);
    lease.release();
    gate.open();
    // its waiter finds the node closed and is told so
    await assert.rejects(a, /drained by an operator/);
    assert.equal(fleet.waitingCount, 0);
    assert.equal(first.models.get('a')?.status, 'loaded');
  });

  test('bad orders name the field', async () => {
    const { gateway } = await setUpFleet([{}]);
    for (const [body, says] of [
      [{}, /node: /],
      [{ node: 'moon' }, /there is no node/],
      [{ node: 'n0', deadline: -1 }, /deadline: /],
      [{ node: 'n0', deadline: 5, cordon: true }, /deadline: a cordoned node keeps/],
      [{ node: 'n0', why: 'x' }, /why/],
    ] as const) {
      const answer = await post(gateway, '/admin/drain', body);
      assert.ok(answer.status === 400 || answer.status === 404);
      assert.match(await answer.text(), says);
    }
  });
});

function recorder(lines: string[]): Log {
  const note = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  const log: Log = {
    debug: () => {},
    info: note('info'),
    warn: note('warn'),
    error: note('error'),
    child: () => log,
  };
  return log;
}
