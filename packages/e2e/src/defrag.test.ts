/**
 * Moves between devices with real weights. A machine's CPU is one device, so this neuron is given two that are
 * really one CPU; owners, books, moves and warm prefixes are those of the product.
 */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadConfig } from 'cortex-core/config/load';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import type { NeuronModel } from 'cortex-core/wire/neuron';
import { type Gateway, startGateway } from 'cortex-gateway/gateway';
import { createDevices, createGroupDevice, type DeviceSetup } from 'neuron/device/create-devices';
import type { DiscoveredDevice } from 'neuron/device/discovery';
import { type Neuron, startNeuron } from 'neuron/neuron';
import { postJson, tinyFile } from './stack.ts';

const small = { context: 512, slots: 1, prefix_cache_mb: 0 };
const question = [{ role: 'user', content: 'What is the capital of France?' }];

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'cortex-defrag-'));
  for (const name of ['a', 'b', 'big']) copyFileSync(tinyFile, join(dir, `${name}.gguf`));
});
after(() => rmSync(dir, { recursive: true, force: true }));

describe('a node whose free memory is in two pieces', () => {
  let neuron: Neuron;
  let gateway: Gateway;
  before(async () => {
    const probe = await startPair(100_000);
    const bigMb = await sizeOf(probe, 'big', {});
    const smallMb = await sizeOf(probe, 'a', small);
    await probe.close();
    // big fits on a device alone, and nothing beside it
    neuron = await startPair(bigMb + Math.floor(smallMb / 2));
    await load(neuron, { model_id: 'a', ...small, devices: [0] });
    await load(neuron, { model_id: 'b', ...small, devices: [1] });
    gateway = await startGateway(
      loadConfig('cortex', {
        defaults: {
          gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 60 },
          neurons: [{ name: 'box', endpoint: neuron.url }],
        },
      }),
      loadConfig('models', {}),
      { log: silentLog },
    );
  });
  after(async () => {
    await gateway.close();
    await neuron.close();
  });

  test('a dry run names the move', async () => {
    const answer = await postJson(`${gateway.url}/admin/defrag`, { dry_run: true });
    const { nodes } = (await answer.json()) as { nodes: [{ makes_room_for: string; moves: object[] }] };
    assert.equal(nodes[0].makes_room_for, 'big', JSON.stringify(nodes));
    assert.equal(nodes[0].moves.length, 1);
  });

  test('a request for the model that is kept out moves one aside, evicts none, and is answered', async () => {
    const before = await ask('a');
    await ask('b');
    assert.match(await ask('big'), /Paris/);
    const rows = await modelsOf(neuron);
    assert.deepEqual(rows.map(({ id, status }) => `${id} ${status}`).sort(), [
      'a loaded',
      'b loaded',
      'big loaded',
    ]);
    const placeOf = (id: string) => rows.find((row) => row.id === id)?.devices.join();
    assert.equal(placeOf('a'), placeOf('b'));
    assert.notEqual(placeOf('big'), placeOf('a'));
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(metrics, /^cortex_model_moves_total\{.*\} 1$/m);
    assert.doesNotMatch(metrics, /^cortex_evictions_total\{/m);
    // the one that moved says the same, from the prefix that went with it
    const again = [await ask('a'), await ask('b')];
    for (const text of again) assert.match(text, /"cached_tokens":[1-9]/);
    assert.equal(contentOf(again[0] ?? ''), contentOf(before));
  });

  async function ask(model: string): Promise<string> {
    const body = { model, messages: question, temperature: 0, max_tokens: 16 };
    const answer = await postJson(`${gateway.url}/v1/chat/completions`, body);
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    return text;
  }
});

function contentOf(text: string): string | undefined {
  const { choices } = JSON.parse(text) as { choices: { message: { content: string } }[] };
  return choices[0]?.message.content;
}

async function startPair(memoryMb: number): Promise<Neuron> {
  const setup: DeviceSetup = {
    deviceWorker: 'thread',
    nativeLog: false,
    libraryDir: null,
    clock: systemClock,
    log: silentLog,
  };
  const found = [0, 1].map((index): DiscoveredDevice => {
    const facts = { name: 'half a machine', kind: 'cpu', vram_total_mb: memoryMb, compute_capability: null };
    return { ...facts, id: `cpu:${index}`, index, nvidiaIndex: null, backendIndex: null };
  });
  const devices = createDevices(found, setup).map((device, index) => {
    return { indices: [index], kind: 'cpu', device, budgetMb: memoryMb };
  });
  const config = loadConfig('neuron', {
    defaults: {
      listen: '127.0.0.1',
      port: 0,
      engine: { context: 2048, slots: 4, threads: 1, prefix_cache_mb: 0 },
      models: { dirs: [dir], hf_cache: join(dir, 'no-hub') },
    },
  });
  return startNeuron(config, {
    log: silentLog,
    devices,
    openGroup: (members) => {
      const indices = members.flatMap((member) => member.indices);
      return createGroupDevice(
        found.filter(({ index }) => indices.includes(index)),
        setup,
      );
    },
  });
}

async function load(neuron: Neuron, spec: object): Promise<void> {
  const answer = await postJson(`${neuron.url}/models/load`, spec);
  assert.equal(answer.status, 200, await answer.text());
}

async function modelsOf(neuron: Neuron): Promise<readonly NeuronModel[]> {
  return (await (await fetch(`${neuron.url}/models`)).json()) as NeuronModel[];
}

/** MiB that a load with these options takes. */
async function sizeOf(neuron: Neuron, id: string, options: object): Promise<number> {
  await load(neuron, { model_id: id, ...options });
  const row = (await modelsOf(neuron)).find((each) => each.id === id);
  await postJson(`${neuron.url}/models/unload`, { model_id: id });
  return Math.ceil(row?.vram_used_mb ?? row?.vram_estimate_mb ?? 0);
}
