import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from 'cortex-core/config/load';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import { answerBehind, createGate, type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import {
  advanceUntil,
  askChat,
  cortexConfigOver,
  nodeOf,
  post,
  setUpFleet,
} from '../fleet/fleet.test.kit.ts';
import { startGateway } from '../gateway.ts';

const loaded = (id: string) => ({ id, status: 'loaded' as const });
const noModels = modelsConfigSchema.parse({});

describe('reload', () => {
  test('a node that is added serves, one that left takes nothing new and ends what it has', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
    const [old] = neurons as [FakeNeuron];
    const fresh = await startFakeNeuron({ models: [loaded('m'), loaded('other')] });
    const gate = createGate();
    old.onChat = answerBehind(gate);
    const running = await askChat(gateway, 'm', { stream: true });
    const next = { ...cortexConfigOver([]), neurons: [{ name: 'fresh', endpoint: fresh.url }] };
    const reloading = gateway.reload(next, noModels);
    // while the new one is asked for the first time, the old one still serves
    assert.deepEqual(
      fleet.nodes().map(({ name }) => name),
      ['fresh', 'n0'],
    );
    const meanwhile = fleet.request({ model: 'm' }, new AbortController().signal);
    assert.equal(meanwhile.node, 'n0');
    meanwhile.lease?.release();
    assert.deepEqual((await reloading).changed, ['neurons.n0: removed', 'neurons.fresh: added']);
    assert.deepEqual(
      fleet.nodes().map(({ name }) => name),
      ['fresh'],
    );
    assert.equal((await askChat(gateway, 'm')).status, 200);
    assert.equal((await askChat(gateway, 'other')).status, 200);
    assert.deepEqual([old.counters.chats, fresh.counters.chats], [1, 2]);
    gate.open();
    assert.match(await running.text(), /\[DONE\]/);
    await fresh.close();
  });

  test('a node that left during an idle unload is not watched any more, and its successor is', async () => {
    const clock = new FakeClock();
    const config = { eviction: { idle_ttl_secs: 60 } };
    const { gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], { clock, config });
    const [old] = neurons as [FakeNeuron];
    const fresh = await startFakeNeuron({ models: [loaded('m')] });
    const gate = createGate();
    old.onUnload = async () => {
      await gate.opened;
      return { status: 500, body: { error: 'no' } };
    };
    await advanceUntil(clock, 1000, () => old.counters.unloads === 1);
    const next = { ...cortexConfigOver([], config), neurons: [{ name: 'n0', endpoint: fresh.url }] };
    await gateway.reload(next, noModels);
    const sinceMs = clock.monotonicMs();
    gate.open();
    await advanceUntil(clock, 1000, () => fresh.counters.unloads === 1);
    assert.equal(fresh.models.get('m')?.status, 'available');
    assert.equal(old.counters.unloads, 1);
    // else its time would be looked at with the next poll only, in an hour
    assert.ok(clock.monotonicMs() - sinceMs < 1_000_000, `${clock.monotonicMs() - sinceMs} ms`);
    await fresh.close();
  });

  describe('a node that gets another address', () => {
    const at = (url: string) => ({ ...cortexConfigOver([]), neurons: [{ name: 'n0', endpoint: url }] });
    const gated = (neuron: FakeNeuron) => {
      const gate = createGate();
      neuron.onLoad = async () => {
        await gate.opened;
        return undefined;
      };
      return gate;
    };

    test('serves at the old one until the new one was asked once, and keeps its drain', async () => {
      const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
      const [old] = neurons as [FakeNeuron];
      const fresh = await startFakeNeuron({ models: [loaded('m')] });
      const gate = createGate();
      old.onChat = answerBehind(gate);
      const running = await askChat(gateway, 'm', { stream: true });
      const reloading = gateway.reload(at(fresh.url), noModels);
      const meanwhile = fleet.request({ model: 'm' }, new AbortController().signal);
      assert.notEqual(meanwhile.lease, null, 'there is a gap in which it does not serve');
      meanwhile.lease?.release();
      await reloading;
      assert.equal((await askChat(gateway, 'm')).status, 200);
      assert.deepEqual([old.counters.chats, fresh.counters.chats], [1, 1]);
      gate.open();
      assert.match(await running.text(), /\[DONE\]/);
      fleet.operations.drain('n0', 'drained', null);
      await gateway.reload(at(old.url), noModels);
      assert.equal(nodeOf(fleet, 'n0').service.mode, 'drained');
      await fresh.close();
    });

    test('ends what runs at the old one at its drain’s deadline, unless the drain is undone before', async (t) => {
      for (const isUndone of [true, false]) {
        const clock = new FakeClock();
        const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }], { clock });
        const [old] = neurons as [FakeNeuron];
        const fresh = await startFakeNeuron({ models: [loaded('m')] });
        t.after(() => fresh.close());
        const gate = createGate();
        old.onChat = answerBehind(gate);
        const running = await askChat(gateway, 'm', { stream: true });
        if (isUndone) fleet.operations.drain('n0', 'drained', 60_000);
        await gateway.reload(at(fresh.url), noModels);
        if (isUndone) fleet.operations.undrain('n0');
        else fleet.operations.drain('n0', 'drained', 60_000);
        await clock.advance(60_000);
        gate.open();
        assert.match(await running.text(), isUndone ? /\[DONE\]/ : /being drained and its time is over/);
      }
    });

    test('loads at the new one what was being loaded, for those who wait and for who asked', async () => {
      const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm' }, { id: 'other' }] }]);
      const [old] = neurons as [FakeNeuron];
      const fresh = await startFakeNeuron({ models: [{ id: 'm' }, { id: 'other' }] });
      const gate = gated(old);
      const waits = askChat(gateway, 'm');
      await old.until(() => old.counters.loads === 1);
      const asked = gateway.fleet.operations.load('other', 'n0');
      await gateway.reload(at(fresh.url), noModels);
      assert.equal((await waits).status, 200);
      assert.equal(await asked, 'n0');
      assert.deepEqual([old.counters.chats, fresh.counters.loads, fresh.counters.chats], [0, 2, 1]);
      gate.open();
      await fresh.close();
    });

    test('does not end a load of the same neuron under another name of its machine', async () => {
      const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm' }] }]);
      const [neuron] = neurons as [FakeNeuron];
      const gate = gated(neuron);
      const waits = askChat(gateway, 'm');
      await neuron.until(() => neuron.counters.loads === 1);
      neuron.models.get('m')!.status = 'loading';
      await gateway.reload(at(neuron.url.replace('127.0.0.1', 'localhost')), noModels);
      gate.open();
      assert.equal((await waits).status, 200);
      assert.deepEqual([neuron.counters.loads, neuron.counters.cancels], [1, 0]);
    });

    test('lets nobody evict under a request that the old address still has', async () => {
      const models = [loaded('m'), { id: 'big', vramMb: 2000 }];
      const { gateway, fleet, neurons } = await setUpFleet([{ devices: [2000], models }]);
      const [old] = neurons as [FakeNeuron];
      const fresh = await startFakeNeuron({ devices: [2000], models });
      const held = fleet.request({ model: 'm' }, new AbortController().signal).lease;
      await gateway.reload(at(fresh.url), noModels);
      const own = fleet.request({ model: 'm' }, new AbortController().signal).lease;
      const big = fleet.operations.load('big', 'n0');
      while (nodeOf(fleet, 'n0').toView().models.get('m')?.draining !== true) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      held?.release();
      for (let i = 0; i < 10; i++) await fleet.pollNow('n0');
      assert.deepEqual(fresh.events, [], 'it was unloaded under a request');
      own?.release();
      assert.equal(await big, 'n0');
      assert.deepEqual([old.events, fresh.events], [[], ['unload m', 'load big']]);
      await fresh.close();
    });
  });

  test('a node that stays keeps its state, its drain and its loads; nothing is loaded or unloaded', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m'), { id: 'cold' }] }]);
    const [neuron] = neurons as [FakeNeuron];
    const gate = createGate();
    neuron.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    const cold = fleet.request({ model: 'cold' }, new AbortController().signal).ready;
    await neuron.until(() => neuron.counters.loads === 1);
    const before = nodeOf(fleet, 'n0');
    fleet.operations.drain('n0', 'cordoned', null);
    const models = modelsConfigSchema.parse({ models: [{ id: 'm', vram_mb: 77 }], aliases: { fast: 'm' } });
    await gateway.reload(cortexConfigOver(neurons), models);
    assert.equal(nodeOf(fleet, 'n0'), before);
    assert.equal(before.service.mode, 'cordoned');
    assert.equal((await askChat(gateway, 'fast')).status, 200);
    gate.open();
    (await cold).release();
    const report = await gateway.reload(cortexConfigOver(neurons), noModels);
    assert.deepEqual(report.changed, ['models.m: removed', 'aliases.fast: removed']);
    assert.deepEqual(report.notes, ['m is no longer in the catalogue; where it is loaded it stays loaded']);
    assert.equal((await askChat(gateway, 'm')).status, 200);
    assert.deepEqual([neuron.counters.loads, neuron.counters.unloads], [1, 0]);
  });

  test('a source that is added to a loaded model is still the same model', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('hub:m')] }]);
    assert.equal((await askChat(gateway, 'm')).status, 404);
    await gateway.reload(
      cortexConfigOver(neurons),
      modelsConfigSchema.parse({ models: [{ id: 'm', source: 'hub' }] }),
    );
    assert.deepEqual([...nodeOf(fleet, 'n0').toView().models.keys()], ['m']);
    assert.equal((await askChat(gateway, 'm')).status, 200);
  });

  test('keys count from the next request on, and a running one is not disturbed', async () => {
    const entitlements = (key: string) => ({
      entitlements: { require_auth: true, keys: [{ key, account_id: 'a' }] },
    });
    const config = { ...entitlements('old'), gateway: { neuron_key: 'n-old' } };
    const { gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }], { config });
    const [neuron] = neurons as [FakeNeuron];
    const ask = (key: string) =>
      fetch(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}` },
        body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], stream: true }),
      });
    const gate = createGate();
    const answers = neuron.onChat;
    neuron.onChat = answerBehind(gate);
    const running = await ask('old');
    const next = { ...entitlements('new'), gateway: { neuron_key: 'n-new', admin_keys: ['admin'] } };
    const report = await gateway.reload(cortexConfigOver(neurons, next), noModels);
    assert.deepEqual([...report.changed].sort(), [
      'entitlements.keys.a.key: changed',
      'gateway.admin_keys: changed',
      'gateway.neuron_key: changed',
    ]);
    neuron.onChat = answers;
    assert.equal((await ask('old')).status, 401);
    assert.equal((await ask('new')).status, 200);
    assert.equal(neuron.chats.at(-1)?.headers.authorization, 'Bearer n-new');
    assert.equal((await fetch(`${gateway.url}/admin/fleet`)).status, 401);
    gate.open();
    assert.match(await running.text(), /\[DONE\]/);
  });

  test('limits count at once; addresses are told to need a restart, each time', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
    const next = cortexConfigOver(neurons, { gateway: { max_body_mb: 0.00001, listen: '127.0.0.1:1' } });
    const report = await gateway.reload(next, noModels);
    assert.deepEqual(report.changed, ['gateway.max_body_mb: 64 -> 0.00001']);
    assert.deepEqual(report.needsRestart, ['gateway.listen: "127.0.0.1:0" -> "127.0.0.1:1"']);
    assert.equal((await askChat(gateway, 'm')).status, 413);
    assert.deepEqual(await gateway.reload(next, noModels), { ...report, changed: [] });
  });

  test('what is made once at the start is told, and stays as it is', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
    const next = {
      gateway: { stream_check_every: 7 },
      responses: { max_entries: 1 },
      failover: { attach_mb: 1, budget_ratio: 0.5, attempts: 9 },
    };
    for (let i = 0; i < 2; i++) {
      const report = await gateway.reload(cortexConfigOver(neurons, next), noModels);
      assert.deepEqual(report.needsRestart.map((line) => line.split(':')[0]).sort(), [
        'failover.attach_mb',
        'failover.budget_ratio',
        'gateway.stream_check_every',
        'responses.max_entries',
      ]);
      assert.deepEqual(report.changed, i === 0 ? ['failover.attempts: 3 -> 9'] : []);
    }
  });
});

describe('POST /admin/reload', () => {
  test('answers with what changed, and with every fault of a bad file', async () => {
    const neuron = await startFakeNeuron({ models: [loaded('m')] });
    const config = cortexConfigOver([neuron]);
    let read = () => ({ config, models: modelsConfigSchema.parse({ aliases: { fast: 'm' } }) });
    const gateway = await startGateway(config, noModels, {
      log: silentLog,
      onReload: async () => {
        const next = read();
        return gateway.reload(next.config, next.models);
      },
    });
    const good = await post(gateway, '/admin/reload', {});
    assert.deepEqual(await good.json(), {
      status: 'reloaded',
      changed: ['aliases.fast: added'],
      needs_restart: [],
      notes: [],
    });
    const again = (await (await post(gateway, '/admin/reload', {})).json()) as { status: string };
    assert.equal(again.status, 'unchanged');
    read = () => {
      const fault = { source: 'cortex.toml', column: null, suggestion: null, message: 'is no number' };
      throw new ConfigError([
        { ...fault, line: 3, key: 'gateway.keepalive_secs' },
        { ...fault, line: 9, key: 'gateway.max_body_mb' },
      ]);
    };
    const bad = await post(gateway, '/admin/reload', {});
    assert.equal(bad.status, 422);
    const { error } = (await bad.json()) as { error: { code: string; message: string; faults: unknown[] } };
    assert.equal(error.code, 'invalid_configuration');
    assert.match(error.message, /2 faults and nothing was changed:\ncortex.toml:3 gateway.keepalive_secs: /);
    assert.equal(error.faults.length, 2);
    assert.equal((await askChat(gateway, 'fast')).status, 200);
    await gateway.close();
    await neuron.close();
  });

  test('of a gateway without files says so', async () => {
    const { gateway } = await setUpFleet([{}]);
    const answer = await post(gateway, '/admin/reload', {});
    assert.equal(answer.status, 404);
    assert.match(await answer.text(), /runs without configuration files/);
  });
});
