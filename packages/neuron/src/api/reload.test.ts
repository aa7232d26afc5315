/** A reload of a neuron that serves, with real weights. */
import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import type { z } from 'zod';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

describe('reload of a neuron', () => {
  let dir: string;
  let neuron: Neuron;
  const config = (more: z.input<typeof neuronConfigSchema> = {}) =>
    neuronConfigSchema.parse({
      listen: '127.0.0.1',
      port: 0,
      device_worker: 'thread',
      engine: { threads: 1 },
      cpu: { memory_mb: 2000 },
      models: { dirs: [dir], hf_cache: join(dir, 'no-such-hub') },
      default_models: [{ model_id: 'a' }],
      ...more,
    });
  const chat = (model: string, more: object = {}, key = 'none') =>
    fetch(`${neuron.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({ model, messages: [{ role: 'user', content: 'Hello' }], max_tokens: 4, ...more }),
    });

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'neuron-reload-'));
    await copyFile(tiny, join(dir, 'a.gguf'));
    await copyFile(tiny, join(dir, 'b.gguf'));
    neuron = await startNeuron(config(), { log: silentLog });
    await neuron.activated;
  });
  after(async () => {
    await neuron.close();
    await rm(dir, { recursive: true });
  });

  it('loads new default models, leaves the others loaded and a running answer alone', async () => {
    const running = chat('a', { max_tokens: 200, ignore_eos: true });
    const report = neuron.reload(config({ default_models: [{ model_id: 'b' }] }));
    assert.deepEqual(report.changed, ['default_models.a: removed', 'default_models.b: added']);
    assert.deepEqual(report.notes, ['a is no longer a default model; where it is loaded it stays loaded']);
    while (!neuron.registry.isLoaded('b')) await new Promise((resolve) => setImmediate(resolve));
    assert.equal((await running).status, 200);
    assert.deepEqual([(await chat('a')).status, (await chat('b')).status], [200, 200]);
  });

  it('a key counts from the next request on, and can be taken away again', async () => {
    const defaults = { default_models: [{ model_id: 'b' }] };
    assert.deepEqual(neuron.reload(config({ ...defaults, key: 'secret' })).changed, ['key: added']);
    assert.equal((await chat('a')).status, 401);
    assert.equal((await chat('a', {}, 'secret')).status, 200);
    assert.deepEqual(neuron.reload(config(defaults)).changed, ['key: removed']);
    assert.equal((await chat('a')).status, 200);
  });

  it('limits count for models that are loaded already', async () => {
    const defaults = { default_models: [{ model_id: 'b' }] };
    neuron.reload(config({ ...defaults, admission: { max_in_flight: 3, max_queue_depth: 1 } }));
    const load = neuron.registry.loads().find(({ id }) => id === 'a');
    assert.deepEqual([load?.max_in_flight, load?.max_queue_depth], [3, 1]);
    neuron.reload(config({ ...defaults, limits: { max_body_mb: 0.00001 } }));
    assert.equal((await chat('a')).status, 413);
    neuron.reload(config(defaults));
    assert.equal((await chat('a')).status, 200);
  });

  it('what needs a restart is named, each time, and changes nothing', async () => {
    const defaults = { default_models: [{ model_id: 'b', context: 512 }] };
    const next = config({
      ...defaults,
      port: 1,
      engine: { threads: 2 },
      devices: [{ index: 0, memory_mb: 9 }],
    });
    const report = neuron.reload(next);
    assert.deepEqual(report.needsRestart, ['port: 0 -> 1', 'engine.threads: 1 -> 2', 'devices.0: added']);
    assert.deepEqual(report.changed, ['default_models.b.context: added']);
    assert.deepEqual(report.notes, ['the change of b counts when it is loaded next']);
    assert.deepEqual(neuron.reload(next).needsRestart, report.needsRestart);
    assert.equal((await chat('b')).status, 200);
  });
});
