/** A request may arrive in any state of a model and of an operation on it; it must always get an answer. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, test } from 'node:test';
import { answerBehind, createGate, type FakeNeuron } from 'testkit/fake-neuron';
import { askChat, nodeOf, post, setUpFleet } from './fleet.test.kit.ts';

const loaded = (id: string) => ({ id, status: 'loaded' as const });

describe('a request that arrives', () => {
  test('while its model drains for an unload waits, and is served by the load after it', async () => {
    const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
    const [neuron] = neurons as [FakeNeuron];
    const gate = createGate();
    const answers = neuron.onChat;
    neuron.onChat = answerBehind(gate);
    const running = await askChat(gateway, 'm', { stream: true });
    const unload = post(gateway, '/admin/unload', { model: 'm' });
    const node = nodeOf(fleet, 'n0');
    while (!node.toView().models.get('m')?.draining) await new Promise((resolve) => setImmediate(resolve));
    neuron.onChat = answers;
    const late = askChat(gateway, 'm');
    gate.open();
    assert.match(await running.text(), /\[DONE\]/);
    assert.equal((await unload).status, 200);
    assert.equal((await late).status, 200);
    assert.deepEqual(neuron.events, ['chat m', 'unload m', 'load m', 'chat m']);
  });

  test('while the neuron unloads waits, whether the unload works, is refused or breaks', async () => {
    for (const [outcome, loads] of [
      [undefined, 1],
      [{ status: 500, body: { error: 'stuck' } }, 0],
      ['break', 0],
    ] as const) {
      const { gateway, fleet, neurons } = await setUpFleet([{ models: [loaded('m')] }]);
      const [neuron] = neurons as [FakeNeuron];
      const gate = createGate();
      neuron.onUnload = async () => {
        await gate.opened;
        if (outcome === 'break') throw new Error('the connection breaks');
        return outcome;
      };
      const unload = post(gateway, '/admin/unload', { model: 'm' });
      await neuron.until(() => neuron.counters.unloads === 1);
      assert.equal(nodeOf(fleet, 'n0').toView().models.get('m')?.status, 'unloading');
      const late = askChat(gateway, 'm');
      gate.open();
      await unload;
      await fleet.pollNow('n0');
      assert.equal((await late).status, 200, String(outcome));
      assert.equal(neuron.counters.loads, loads);
      assert.equal(fleet.waitingCount, 0);
    }
  });

  test('after a failed load loads again', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm' }] }]);
    const [neuron] = neurons as [FakeNeuron];
    neuron.onLoad = () => ({ status: 500, body: { error: 'bad day', code: 'load_failed' } });
    assert.equal((await askChat(gateway, 'm')).status, 500);
    neuron.onLoad = () => undefined;
    assert.equal((await askChat(gateway, 'm')).status, 200);
  });

  test('for a poisoned model is refused until somebody loads it', async () => {
    const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm', status: 'poisoned' }] }]);
    const refused = await askChat(gateway, 'm');
    assert.match(await refused.text(), /model_poisoned/);
    assert.equal((await post(gateway, '/admin/load', { model: 'm' })).status, 200);
    assert.equal((await askChat(gateway, 'm')).status, 200);
    assert.equal(neurons[0]!.counters.loads, 1);
  });

  test('goes to the configured address, whatever the neuron says of itself', async () => {
    const { gateway, neurons, fleet } = await setUpFleet([{ models: [loaded('m')] }]);
    const [neuron] = neurons as [FakeNeuron];
    neuron.discoveryExtras = { hostname: 'localhost', url: gateway.url, endpoint: gateway.url };
    nodeOf(fleet, 'n0').misses = 1;
    await fleet.pollNow('n0');
    assert.equal((await askChat(gateway, 'm')).status, 200);
    assert.equal(neuron.counters.chats, 1);
  });
});

test('an idle connection is promised longer than pools and proxies keep theirs, and is used again', async () => {
  const { gateway } = await setUpFleet([{ models: [loaded('m')] }]);
  const socket = connect(gateway.port, '127.0.0.1');
  const read = async (): Promise<string> => {
    let text = '';
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      text += String(chunk);
      if (text.includes('"total":1}}')) return text;
    }
    return text;
  };
  const heads: string[] = [];
  for (let i = 0; i < 3; i++) {
    socket.write('GET /health HTTP/1.1\r\nhost: x\r\n\r\n');
    heads.push(await read());
  }
  for (const head of heads) {
    assert.match(head, /^HTTP\/1\.1 200/);
    const secs = Number(/keep-alive: timeout=(\d+)/i.exec(head)?.[1]);
    // 60 s is what nginx, AWS and most pools keep
    assert.ok(secs > 60, head);
  }
  socket.destroy();
});
