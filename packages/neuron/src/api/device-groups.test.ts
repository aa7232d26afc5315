import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import type { Discovery, NeuronModel } from 'cortex-core/wire/neuron';
import { childPids } from 'testkit/child-pids';
import { createDevices, createGroupDevice, type DeviceSetup } from '../device/create-devices.ts';
import type { DiscoveredDevice } from '../device/discovery.ts';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

/** A machine of two devices that are really one CPU: owners, groups and books are those of the product. */
async function startPair(
  worker: 'thread' | 'process',
  dir: string,
  memoryMb = 400,
  over: object = {},
): Promise<Neuron> {
  const setup: DeviceSetup = {
    deviceWorker: worker,
    nativeLog: false,
    libraryDir: null,
    clock: systemClock,
    log: silentLog,
  };
  const found = [0, 1].map((index): DiscoveredDevice => {
    const facts = { name: 'half a machine', kind: 'cpu', vram_total_mb: memoryMb, compute_capability: null };
    return { ...facts, id: `cpu:${index}`, index, nvidiaIndex: null, backendIndex: null };
  });
  const owners = createDevices(found, setup);
  const devices = owners.map((device, index) => {
    return { indices: [index], kind: 'cpu', device, budgetMb: memoryMb };
  });
  const config = neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    engine: { threads: 1, slots: 1, flash_attention: false, speculation: 'off' },
    models: { dirs: [dir], hf_cache: join(tmpdir(), 'no-such-hub') },
    ...over,
  });
  return startNeuron(config, {
    log: silentLog,
    devices,
    openGroup: (members) => {
      const indices = members.flatMap((member) => member.indices);
      const wanted = found.filter(({ index }) => indices.includes(index));
      return createGroupDevice(wanted, setup);
    },
  });
}

interface Answer {
  readonly status: number;
  readonly body: {
    readonly error?: string;
    readonly code?: string;
    readonly choices?: readonly { readonly message: { readonly content: string } }[];
  };
}

async function post(neuron: Neuron, path: string, body: unknown): Promise<Answer> {
  const response = await fetch(`${neuron.url}${path}`, { method: 'POST', body: JSON.stringify(body) });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

async function models(neuron: Neuron): Promise<readonly NeuronModel[]> {
  return (await (await fetch(`${neuron.url}/models`)).json()) as NeuronModel[];
}

async function freeMb(neuron: Neuron): Promise<readonly (number | null)[]> {
  const health = await (await fetch(`${neuron.url}/health`)).json();
  return (health as { devices: { vram_free_mb: number | null }[] }).devices.map((each) => each.vram_free_mb);
}

async function ask(neuron: Neuron, model: string): Promise<string> {
  const messages = [{ role: 'user', content: 'What is the capital of France?' }];
  const { body } = await post(neuron, '/v1/chat/completions', { model, messages, temperature: 0 });
  return body.choices?.[0]?.message.content ?? JSON.stringify(body);
}

/** The request that meets the death itself fails, with a code that says to try again. */
async function untilAnswered(neuron: Neuron, model: string): Promise<string> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const text = await ask(neuron, model);
    if (!/device_gone|model_recovering|lost its owner/.test(text)) return text;
  }
  throw new Error('not answered');
}

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'groups-'));
  for (const name of ['one', 'two']) copyFileSync(tiny, join(dir, `${name}.gguf`));
});
after(() => rmSync(dir, { recursive: true }));

for (const worker of ['thread', 'process'] as const) {
  describe(`groups of devices whose owners are a ${worker} each`, () => {
    let neuron: Neuron;
    before(async () => {
      neuron = await startPair(worker, dir);
    });
    after(() => neuron.close());

    for (const split of [
      { devices: [0, 1] },
      { tensor_parallel: 2, split_mode: 'layer' },
      { devices: [1, 0], split_mode: 'row' },
    ]) {
      it(`runs a model with ${JSON.stringify(split)}, on both books, and leaves nothing behind`, async () => {
        const before = await freeMb(neuron);
        const loaded = await post(neuron, '/models/load', { model_id: 'one', ...split });
        assert.equal(loaded.status, 200, loaded.body.error);
        if (worker === 'process') assert.equal(childPids('owner/process-main').length, 3);
        assert.match(await ask(neuron, 'one'), /Paris/);
        assert.deepEqual((await models(neuron)).find(({ id }) => id === 'one')?.devices, [0, 1]);
        const during = await freeMb(neuron);
        assert.ok(
          during.every((free, at) => (free ?? 0) < (before[at] ?? 0)),
          `${before} -> ${during}`,
        );
        assert.equal((await post(neuron, '/models/unload', { model_id: 'one' })).status, 200);
        assert.deepEqual(await freeMb(neuron), before);
        while (childPids('owner/process-main').length > (worker === 'process' ? 2 : 0)) {
          await new Promise((resolve) => setImmediate(resolve));
        }
      });
    }

    if (worker === 'process') {
      it('loads the model of a group whose owner died into a new one', async () => {
        const singles = childPids('owner/process-main');
        assert.equal((await post(neuron, '/models/load', { model_id: 'one', devices: [0, 1] })).status, 200);
        const before = await freeMb(neuron);
        for (const pid of childPids('owner/process-main')) {
          if (!singles.includes(pid)) process.kill(pid, 'SIGKILL');
        }
        assert.match(await untilAnswered(neuron, 'one'), /Paris/);
        assert.deepEqual(await freeMb(neuron), before);
        const [model] = (await models(neuron)).filter(({ id }) => id === 'one');
        assert.deepEqual([model?.status, model?.devices], ['loaded', [0, 1]]);
        await post(neuron, '/models/unload', { model_id: 'one' });
        while (childPids('owner/process-main').length > 2)
          await new Promise((resolve) => setImmediate(resolve));
      });
    }

    it('answers alike on one device and on two', async () => {
      await post(neuron, '/models/load', { model_id: 'one', devices: [0] });
      await post(neuron, '/models/load', { model_id: 'two', devices: [0, 1] });
      assert.equal(await ask(neuron, 'one'), await ask(neuron, 'two'));
      for (const model_id of ['one', 'two']) await post(neuron, '/models/unload', { model_id });
    });

    it('refuses what cannot be a group', async () => {
      for (const [over, status] of [
        [{ devices: [0, 1], split_mode: 'none' }, 400],
        [{ devices: [0, 1], split_mode: 'tensor' }, 400],
        [{ devices: [0, 2] }, 400],
        [{ tensor_parallel: 3 }, 400],
      ] as const) {
        const answer = await post(neuron, '/models/load', { model_id: 'one', ...over });
        assert.equal(answer.status, status, JSON.stringify(answer.body));
      }
    });
  });
}

describe('the memory of a machine', () => {
  it('is promised once when two loads race for it, also over a group', async () => {
    const neuron = await startPair('thread', dir, 60);
    try {
      // Each needs about 70 MiB of the 120: one fits the group, none fits a device.
      const wide = { context: 2048, slots: 1, prefix_cache_mb: 20, devices: [0, 1] };
      const both = await Promise.all(
        ['one', 'two'].map((model_id) => post(neuron, '/models/load', { model_id, ...wide })),
      );
      assert.deepEqual(both.map(({ status }) => status).sort(), [200, 503], JSON.stringify(both));
      const refused = both.find(({ status }) => status === 503);
      assert.match(
        refused?.body.error ?? '',
        /needs \d+ MiB on cpu:0\+1, \d+ MiB free of 120 MiB budget \(weights 4 \+ KV 18 \+ compute \d+ \+ prefix cache 20\); /,
      );
      assert.equal(refused?.body.code, 'insufficient_vram');
    } finally {
      await neuron.close();
    }
  });

  it('is shown as foreseen and as taken, and limits are advertised', async () => {
    // in a thread the daemon's own garbage collection would be part of what is measured
    const neuron = await startPair('process', dir);
    try {
      await post(neuron, '/models/load', { model_id: 'one', devices: [0], prefix_cache_mb: 0 });
      const model = (await models(neuron)).find(({ id }) => id === 'one');
      const [used, foreseen] = [model?.vram_used_mb ?? 0, model?.vram_estimate_mb ?? 0];
      assert.ok(Math.abs(used - foreseen) <= 0.1 * foreseen, `${used} against ${foreseen}`);
      assert.deepEqual(model?.limit, { context: 4096, input: 4095, output: 4096 });
      const metrics = await (await fetch(`${neuron.url}/metrics`)).text();
      assert.match(metrics, new RegExp(`^neuron_model_memory_mb{model="one"} ${used}$`, 'm'));
      assert.match(metrics, new RegExp(`^neuron_model_memory_estimate_mb{model="one"} ${foreseen}$`, 'm'));
      const discovery = (await (await fetch(`${neuron.url}/discovery`)).json()) as Discovery;
      assert.equal(discovery.max_prompt_tokens, 4095);
      const refused = await post(neuron, '/models/load', {
        model_id: 'two',
        lora: [{ file: '/etc/passwd' }],
      });
      assert.equal(refused.status, 400);
      assert.match(refused.body.error ?? '', /may not name files/);
    } finally {
      await neuron.close();
    }
  });

  it('is planned after a restart by what loads took before it, and by a budget of the configuration', async () => {
    const over = { state_dir: join(dir, 'state'), devices: [{ index: 1, memory_mb: 64 }] };
    const body = { model_id: 'one', devices: [0], prefix_cache_mb: 0 };
    const seen: (NeuronModel | undefined)[] = [];
    for (let life = 0; life < 2; life++) {
      const neuron = await startPair('thread', dir, 400, over);
      try {
        assert.equal((await post(neuron, '/models/load', body)).status, 200);
        seen.push((await models(neuron)).find(({ id }) => id === 'one'));
        const budget = await post(neuron, '/models/load', { model_id: 'two', devices: [1] });
        assert.equal(budget.body.code, 'does_not_fit', JSON.stringify(budget.body));
        assert.match(budget.body.error ?? '', /64 MiB free of 64 MiB budget/);
      } finally {
        await neuron.close();
      }
    }
    const [first, second] = seen;
    assert.equal(second?.vram_estimate_mb, first?.vram_used_mb);
  });
});
