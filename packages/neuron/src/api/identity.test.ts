/** Who this neuron is, and that it does nothing for a model that it has not: field traps T21 and T22. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type Discovery, instanceHeader, type NeuronHealth } from 'cortex-core/wire/neuron';
import { type Neuron, startNeuron } from '../neuron.ts';

const dir = fileURLToPath(new URL('../../../../models/cortex-tiny', import.meta.url));

async function start(listen: string): Promise<Neuron> {
  const config = neuronConfigSchema.parse({
    listen,
    port: 0,
    engine: { threads: 1, context: 512, slots: 1 },
    cpu: { memory_mb: 1000 },
    models: { dirs: [dir], hf_cache: join(dir, 'no-such-hub') },
    default_models: [{ model_id: 'cortex-tiny' }],
  });
  const neuron = await startNeuron(config, { log: silentLog });
  await neuron.activated;
  return neuron;
}

describe('a neuron that listens on every address', () => {
  let neuron: Neuron;
  let base: string;
  before(async () => {
    neuron = await start('0.0.0.0');
    base = `http://127.0.0.1:${neuron.port}`;
  });
  after(() => neuron.close());

  const read = async <T>(path: string): Promise<T> => (await (await fetch(base + path)).json()) as T;
  const post = (path: string, body: unknown) => {
    return fetch(base + path, { method: 'POST', body: JSON.stringify(body) });
  };

  it('names one life of itself in discovery, in health and on every answer, and the next one otherwise', async () => {
    const { instance } = await read<Discovery>('/discovery');
    assert.match(instance ?? '', /^[0-9a-f-]{36}$/);
    assert.equal((await read<NeuronHealth>('/health')).instance, instance);
    const messages = [{ role: 'user', content: 'Hi' }];
    for (const model of ['cortex-tiny', 'another']) {
      const answer = await post('/v1/chat/completions', { model, messages, max_tokens: 1 });
      assert.equal(answer.headers.get(instanceHeader), instance, `${model}: ${await answer.text()}`);
    }
    const next = await start('127.0.0.1');
    assert.notEqual(next.discovery.instance, instance);
    await next.close();
  });

  it('refuses every kind of request for a model that it has not loaded, with the code that says so', async () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    for (const [path, body] of [
      ['/v1/chat/completions', { messages }],
      ['/v1/chat/completions', { messages, stream: true }],
      ['/v1/completions', { prompt: 'Hi' }],
      ['/v1/embeddings', { input: 'Hi' }],
      ['/v1/rerank', { query: 'Hi', documents: ['Hi'] }],
    ] as const) {
      const answer = await post(path, { model: 'another', ...body });
      const text = await answer.text();
      assert.equal(answer.status, 404, `${path}: ${text}`);
      assert.match(text, /"code":"model_not_(found|loaded)"/, path);
    }
  });

  it('tells whoever asks the address that it was asked at, not localhost', async () => {
    const { url } = await read<{ url: string }>('/models/cortex-tiny/endpoint');
    assert.equal(url, base);
  });

  it('counts the models that were unloaded, until the device has a fresh owner', async () => {
    const cycles = async () => (await read<NeuronHealth>('/health')).devices.map((each) => each.load_cycles);
    assert.deepEqual(await cycles(), [0]);
    assert.equal((await post('/models/unload', { model_id: 'cortex-tiny' })).status, 200);
    assert.equal((await post('/models/load', { model_id: 'cortex-tiny' })).status, 200);
    assert.deepEqual(await cycles(), [1]);
    assert.equal((await post('/devices/recycle', { device: 0 })).status, 200);
    assert.deepEqual(await cycles(), [0]);
  });
});
