/** A second model that drafts, named in the configuration or by a load: the answer stays the model's own. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

async function start(models: readonly object[]): Promise<Neuron> {
  const config = neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    engine: { threads: 1, slots: 2, context: 512, prefix_cache_mb: 0 },
    models: { dirs: [dirname(tiny)], hf_cache: join(tmpdir(), 'no-such-hub') },
    default_models: models,
  });
  const neuron = await startNeuron(config, { log: silentLog, baseDir: dirname(tiny) });
  await neuron.activated;
  return neuron;
}

async function post(neuron: Neuron, path: string, body: object): Promise<unknown> {
  const response = await fetch(`${neuron.url}${path}`, { method: 'POST', body: JSON.stringify(body) });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text);
}

/** Greedy and sampled, one after another and together. */
async function answers(neuron: Neuron): Promise<readonly string[]> {
  const ask = async (content: string, temperature: number): Promise<string> => {
    const { choices } = (await post(neuron, '/v1/chat/completions', {
      model: 'cortex-tiny',
      messages: [{ role: 'user', content }],
      temperature,
      seed: 5,
      max_tokens: 40,
      ignore_eos: true,
    })) as { choices: [{ message: { content: string } }] };
    return choices[0].message.content;
  };
  const first = await ask('What is the capital of France?', 0);
  const both = await Promise.all([ask('Who are you?', 0.7), ask('What is 3 plus 4?', 0)]);
  return [first, ...both];
}

describe('a draft model', () => {
  it('leaves every answer as it was, takes memory, and a load brings it as the configuration does', async () => {
    const neuron = await start([{ model_id: 'cortex-tiny', draft_model: 'cortex-tiny' }]);
    try {
      const configured = await answers(neuron);
      const [drafting] = neuron.registry.memory();
      await post(neuron, '/models/unload', { model_id: 'cortex-tiny' });
      await post(neuron, '/models/load', { model_id: 'cortex-tiny' });
      const plain = await answers(neuron);
      const [alone] = neuron.registry.memory();
      await post(neuron, '/models/unload', { model_id: 'cortex-tiny' });
      await post(neuron, '/models/load', { model_id: 'cortex-tiny', draft_model: 'cortex-tiny' });
      const loaded = await answers(neuron);

      assert.ok(plain.every((answer) => answer.length > 20));
      assert.deepEqual(configured, plain);
      assert.deepEqual(loaded, plain);
      assert.ok(drafting && alone);
      const text = `${JSON.stringify(drafting)} beside ${JSON.stringify(alone)}`;
      assert.ok(drafting.estimateMb > 1.7 * alone.estimateMb, text);
      // Also by what the owner tells.
      assert.ok(drafting.usedMb > 1.6 * alone.usedMb, text);
    } finally {
      await neuron.close();
    }
  });

  it('that the configuration names as a file fails its load with what to do', async () => {
    const neuron = await start([
      { model_id: 'cortex-tiny', draft_model: 'cortex-tiny.gguf' },
      { model_id: tiny, draft_model: 'absent' },
    ]);
    try {
      const [file, absent] = neuron.activation.state.failed;
      assert.match(file?.error ?? '', /draft_model is the id of a model, not a file; .* without \.gguf$/);
      assert.match(absent?.error ?? '', /^draft_model: there is no model "absent" in \[models\] dirs/);
    } finally {
      await neuron.close();
    }
  });
});
