import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import {
  type Discovery,
  modelSpecSchema,
  type NeuronHealth,
  type NeuronModel,
} from 'cortex-core/wire/neuron';
import { startNeuron } from '../neuron.ts';
import { ScriptedDevice } from './scripted-device.test.kit.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

describe('what a neuron advertises', () => {
  it('shrinks to what the measured rate reads in time, on /models and /discovery, and the context stays', async () => {
    const config = neuronConfigSchema.parse({
      listen: '127.0.0.1',
      port: 0,
      limits: { prefill_secs_max: 0.05 },
      models: { hf_cache: join(tmpdir(), 'no-such-hub') },
      default_models: [{ model_id: tiny, context: 8192 }],
    });
    const device = new ScriptedDevice();
    const devices = [{ indices: [0], kind: 'cpu', device, budgetMb: 1000 }];
    const neuron = await startNeuron(config, { log: silentLog, devices });
    const advertised = async () => {
      const [model] = (await (await fetch(`${neuron.url}/models`)).json()) as NeuronModel[];
      const discovery = (await (await fetch(`${neuron.url}/discovery`)).json()) as Discovery;
      return { limit: model?.limit, longest: discovery.max_prompt_tokens };
    };
    try {
      await neuron.activated;
      assert.deepEqual(await advertised(), {
        limit: { context: 8192, input: 8191, output: 8192 },
        longest: 8191,
      });
      const messages = [{ role: 'user', content: 'x'.repeat(150) }];
      const ask = async (prompt: object[]) => {
        const body = JSON.stringify({ model: 'cortex-tiny', messages: prompt });
        const answer = fetch(`${neuron.url}/v1/chat/completions`, { method: 'POST', body });
        const generation = await device.next();
        generation.emit('y');
        generation.finish();
        assert.equal((await answer).status, 200);
        return generation;
      };
      // A short prompt says nothing of a long one.
      await ask([{ role: 'user', content: 'hello' }]);
      assert.equal((await advertised()).longest, 8191);
      const generation = await ask(messages);
      // 10 ms of prefill, 2 tokens from the cache.
      const rate = (generation.params.tokens.length - 2) * 100;
      const input = Math.floor((rate * 0.05) / 256) * 256;
      assert.ok(input >= 512, String(rate));
      assert.deepEqual(await advertised(), { limit: { context: 8192, input, output: 8192 }, longest: input });
      // Loaded anew with another context, it is another one, of which nothing was measured.
      const post = async (path: string, body: object): Promise<number> =>
        (await fetch(`${neuron.url}${path}`, { method: 'POST', body: JSON.stringify(body) })).status;
      assert.equal(await post('/models/unload', { model_id: 'cortex-tiny' }), 200);
      assert.equal((await advertised()).longest, 0);
      await neuron.registry.load(modelSpecSchema.parse({ model_id: 'cortex-tiny', context: 512 }), tiny);
      assert.deepEqual(await advertised(), {
        limit: { context: 512, input: 511, output: 512 },
        longest: 511,
      });
    } finally {
      await neuron.close();
    }
  });

  it('is as many requests at once as there was room for slots, after a reload too, unless told otherwise', async () => {
    for (const [told, expected] of [
      [null, null],
      [3, 3],
    ] as const) {
      const config = neuronConfigSchema.parse({
        listen: '127.0.0.1',
        port: 0,
        engine: { prefix_cache_mb: 0 },
        admission: { max_in_flight: told },
        models: { hf_cache: join(tmpdir(), 'no-such-hub') },
        default_models: [{ model_id: tiny }],
      });
      const device = new ScriptedDevice();
      const neuron = await startNeuron(config, {
        log: silentLog,
        devices: [{ indices: [0], kind: 'cpu', device, budgetMb: 75 }],
      });
      const atOnce = async () => {
        const { models } = (await (await fetch(`${neuron.url}/health`)).json()) as NeuronHealth;
        return models[0]?.max_in_flight;
      };
      try {
        await neuron.activated;
        const slots = device.loads[0]?.slots ?? 0;
        assert.ok(slots >= 1 && slots < 4, String(slots));
        assert.equal(await atOnce(), expected ?? slots);
        neuron.reload(config);
        assert.equal(await atOnce(), expected ?? slots);
      } finally {
        await neuron.close();
      }
    }
  });
});
