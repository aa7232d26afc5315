/** Defragmentation end to end against fake neurons of several devices, on real sockets. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import {
  answerBehind,
  answerWords,
  createGate,
  FakeNeuron,
  type FakeNeuronOptions,
} from 'testkit/fake-neuron';
import type { z } from 'zod';
import { type Gateway, startGateway } from '../gateway.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function setup(
  options: FakeNeuronOptions,
  models: z.input<typeof modelsConfigSchema> = {},
  config: z.input<typeof cortexConfigSchema> = {},
): Promise<{ readonly gateway: Gateway; readonly neuron: FakeNeuron }> {
  const neuron = new FakeNeuron(options);
  await neuron.listen();
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...config,
      gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
      neurons: [{ name: 'box', endpoint: neuron.url }],
    }),
    modelsConfigSchema.parse(models),
    { log: silentLog },
  );
  cleanups.push(async () => {
    await neuron.close();
    await gateway.close();
  });
  return { gateway, neuron };
}

async function ask(gateway: Gateway, model: string, more: object = {}): Promise<Response> {
  const body = { model, messages: [{ role: 'user', content: 'hi' }], ...more };
  return await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(body) });
}

async function defrag(gateway: Gateway, body: object): Promise<{ status: number; text: string }> {
  const answer = await fetch(`${gateway.url}/admin/defrag`, { method: 'POST', body: JSON.stringify(body) });
  return { status: answer.status, text: await answer.text() };
}

const loaded = (id: string, device: number, vramMb: number) => {
  return { id, status: 'loaded' as const, devices: [device], vramMb };
};

/** 900 MiB are free in two pieces; moving b makes them one. */
const fragmented: FakeNeuronOptions = {
  devices: [1000, 1000],
  models: [loaded('a', 0, 400), loaded('b', 1, 300), { id: 'big', vramMb: 900 }],
};

describe('a model that only fragments keep out', () => {
  test('is loaded after a move, and nothing is evicted', async () => {
    const { gateway, neuron } = await setup(fragmented);
    const answer = await ask(gateway, 'big');
    assert.equal(answer.status, 200, await answer.text());
    assert.deepEqual(neuron.events, ['move b 1>0', 'load big', 'chat big']);
    await (await ask(gateway, 'b')).text();
    assert.equal(neuron.counters.unloads, 0);
  });

  test('requests for the moving model wait for it and are answered', async () => {
    const { gateway, neuron } = await setup(fragmented);
    const gate = createGate();
    neuron.onMove = async () => {
      await gate.opened;
      return undefined;
    };
    const big = ask(gateway, 'big');
    await neuron.until(() => neuron.counters.moves === 1);
    const waiting = ask(gateway, 'b', { stream: true });
    const streamed = await waiting;
    assert.equal(neuron.counters.chats, 0);
    gate.open();
    assert.match(await streamed.text(), /Hello[\s\S]*\[DONE\]/);
    assert.equal((await big).status, 200);
    assert.equal(gateway.fleet.waitingCount, 0);
  });

  test('a move that fails leaves the model serving where it was; room is then made by eviction', async () => {
    const { gateway, neuron } = await setup(fragmented);
    neuron.onMove = () => ({ status: 503, body: { error: 'the device is busy', code: 'device_gone' } });
    const answer = await ask(gateway, 'big');
    assert.equal(answer.status, 200, await answer.text());
    assert.deepEqual(neuron.events, ['move b 1>0', 'unload a', 'load big', 'chat big']);
    assert.deepEqual(neuron.models.get('b')?.devices, [1]);
    assert.equal((await ask(gateway, 'b')).status, 200);
    // and none is tried again while it is known to fail
    const { text } = await defrag(gateway, { model: 'a', dry_run: true });
    assert.match(text, /a move on box failed a short while ago/);
  });

  test('a model that its neuron lost in a failed move is loaded again', async () => {
    const { gateway, neuron } = await setup({
      devices: [1000, 1000],
      models: [loaded('a', 0, 400), loaded('b', 1, 100), { id: 'big', vramMb: 950 }],
    });
    neuron.onMove = (id) => {
      neuron.models.get(id)!.status = 'available';
      return { status: 500, body: { error: 'the owner died' } };
    };
    const report = JSON.parse((await defrag(gateway, { node: 'box', model: 'big' })).text);
    assert.match(report.nodes[0].done.error, /could not move "b" to device 0: the owner died/);
    await neuron.until(() => neuron.events.includes('load b'));
    assert.equal((await ask(gateway, 'b')).status, 200);
  });

  test('a busy model is not moved: the idle one is, or nothing', async () => {
    const { gateway, neuron } = await setup(fragmented, {
      models: ['a', 'b'].map((id) => ({ id, residency_priority: 1000 })),
    });
    const gate = createGate();
    neuron.onChat = answerBehind(gate);
    const streaming = await ask(gateway, 'b', { stream: true });
    neuron.onChat = (call) => answerWords(call, ['ok']);
    assert.equal((await ask(gateway, 'big')).status, 200);
    assert.deepEqual(neuron.events.slice(1, 3), ['move a 0>1', 'load big']);
    gate.open();
    assert.match(await streaming.text(), /done/);
  });
});

describe('POST /admin/defrag', () => {
  test('dry_run shows the plan and changes nothing', async () => {
    const { gateway, neuron } = await setup(fragmented);
    const { status, text } = await defrag(gateway, { dry_run: true });
    assert.equal(status, 200, text);
    const { dry_run: dryRun, nodes } = JSON.parse(text);
    assert.equal(dryRun, true);
    assert.deepEqual(nodes[0].moves, [{ model: 'b', from: 1, to: 0, vram_mb: 300 }]);
    assert.equal(nodes[0].makes_room_for, 'big');
    assert.deepEqual(neuron.events, []);
  });

  test('carries out moves, then gives worn devices a fresh owner', async () => {
    const { gateway, neuron } = await setup(fragmented);
    await gateway.fleet.operations.unload('a', null);
    await gateway.fleet.operations.load('a', 'box');
    neuron.events.length = 0;
    const { nodes } = JSON.parse((await defrag(gateway, { node: 'box' })).text);
    assert.deepEqual(nodes[0].done, { moves: 1, recycled: 1, reloading: [], error: null });
    assert.deepEqual(neuron.events, ['move b 1>0', 'recycle 0']);
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(metrics, /^cortex_model_moves_total\{model="b",node="box"\} 1$/m);
    assert.match(metrics, /^cortex_device_recycles_total\{node="box",device="0"\} 1$/m);
  });

  test('a recycle waits for the running answer, and requests wait for the recycle', async () => {
    const { gateway, neuron } = await setup({ models: [loaded('a', 0, 400), loaded('b', 0, 300)] });
    await gateway.fleet.operations.unload('b', null);
    const gate = createGate();
    neuron.onChat = async (call) => {
      if (neuron.counters.chats === 1) await gate.opened;
      answerWords(call, ['ok']);
    };
    const first = ask(gateway, 'a');
    await neuron.until(() => neuron.counters.chats === 1);
    const run = defrag(gateway, { node: 'box' });
    const second = ask(gateway, 'a', { stream: true });
    const opened = await second;
    assert.deepEqual([neuron.counters.recycles, neuron.counters.chats], [0, 1]);
    gate.open();
    assert.equal(JSON.parse((await run).text).nodes[0].done.recycled, 1);
    assert.equal((await first).status, 200);
    assert.match(await opened.text(), /ok/);
    assert.deepEqual(neuron.events.slice(-2), ['recycle 0', 'chat a']);
  });

  test('an unknown node or model is 404, a wrong body 400 with the field', async () => {
    const { gateway } = await setup(fragmented);
    assert.equal((await defrag(gateway, { node: 'nobody' })).status, 404);
    for (const dry_run of [true, false]) {
      const unknown = await defrag(gateway, { model: 'nobody', dry_run });
      assert.equal(unknown.status, 404);
      assert.match(unknown.text, /model \\"nobody\\" not found on any node/);
    }
    const wrong = await defrag(gateway, { dry_run: 'yes' });
    assert.equal(wrong.status, 400);
    assert.match(wrong.text, /dry_run/);
  });
});

describe('eviction.defrag_after_cycles', () => {
  test('a worn node is defragmented by itself at a poll, and only once', async () => {
    const { gateway, neuron } = await setup(
      { models: [loaded('a', 0, 400), loaded('b', 0, 300)] },
      {},
      { eviction: { defrag_after_cycles: 2 } },
    );
    for (let i = 0; i < 2; i++) {
      assert.equal(neuron.counters.recycles, 0);
      await gateway.fleet.operations.unload('b', null);
      await gateway.fleet.operations.load('b', null);
      await gateway.fleet.pollNow('box');
    }
    await neuron.until(() => neuron.counters.recycles === 1);
    await gateway.fleet.pollNow('box');
    await gateway.fleet.pollNow('box');
    assert.equal(neuron.counters.recycles, 1);
    assert.equal((await ask(gateway, 'a')).status, 200);
  });

  test('not while a model there answers, and never with 0', async () => {
    for (const cycles of [1, 0]) {
      const { gateway, neuron } = await setup(
        { models: [loaded('a', 0, 400), loaded('b', 0, 300)] },
        {},
        { eviction: { defrag_after_cycles: cycles } },
      );
      const gate = createGate();
      neuron.onChat = async (call) => {
        await gate.opened;
        answerWords(call, ['ok']);
      };
      const busy = ask(gateway, 'a');
      await neuron.until(() => neuron.counters.chats === 1);
      await gateway.fleet.operations.unload('b', null);
      await gateway.fleet.pollNow('box');
      assert.equal(neuron.counters.recycles, 0);
      gate.open();
      await (await busy).text();
      await gateway.fleet.pollNow('box');
      if (cycles === 1) await neuron.until(() => neuron.counters.recycles === 1);
      await gateway.fleet.pollNow('box');
      assert.equal(neuron.counters.recycles, cycles);
    }
  });
});
