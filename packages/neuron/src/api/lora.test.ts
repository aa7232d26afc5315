import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { readGgufHeader } from '../models/gguf-header.ts';
import { writeSyntheticAdapter } from '../models/synthetic-gguf.test.kit.ts';
import { startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

describe('LoRA adapters of default_models', () => {
  let dir: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'lora-'));
    const { metadata } = await readGgufHeader(tiny);
    const architecture = String(metadata.get('general.architecture'));
    const embedding = Number(metadata.get(`${architecture}.embedding_length`));
    const matrix = { name: 'blk.0.attn_q.weight', inputs: embedding, outputs: embedding };
    await writeSyntheticAdapter(join(dir, 'strong.gguf'), architecture, matrix, 1);
    await writeSyntheticAdapter(join(dir, 'other.gguf'), 'gpt2', matrix, 1);
  });
  after(() => rmSync(dir, { recursive: true }));

  async function answer(lora: readonly { file: string; scale?: number }[]): Promise<string> {
    const config = neuronConfigSchema.parse({
      listen: '127.0.0.1',
      port: 0,
      engine: { threads: 1, slots: 1 },
      models: { hf_cache: join(tmpdir(), 'no-such-hub') },
      default_models: [{ model_id: tiny, lora }],
    });
    const neuron = await startNeuron(config, { log: silentLog, baseDir: dir });
    try {
      await neuron.activated;
      const [failed] = neuron.activation.state.failed;
      if (failed !== undefined) return `failed: ${failed.error}`;
      const response = await fetch(`${neuron.url}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify({
          model: 'cortex-tiny',
          messages: [{ role: 'user', content: 'What is the capital of France?' }],
          temperature: 0,
          max_tokens: 12,
        }),
      });
      const { choices } = (await response.json()) as { choices: [{ message: { content: string } }] };
      return choices[0].message.content;
    } finally {
      await neuron.close();
    }
  }

  it('change the answer, by their scale, from a path beside the configuration', async () => {
    const plain = await answer([]);
    assert.match(plain, /Paris/);
    assert.equal(await answer([{ file: 'strong.gguf', scale: 0 }]), plain);
    assert.notEqual(await answer([{ file: 'strong.gguf', scale: 1 }]), plain);
  });

  it('are refused where they are for another architecture, or no adapter, with the file named', async () => {
    assert.match(await answer([{ file: 'other.gguf' }]), /failed: other\.gguf .*an adapter for gpt2/);
    assert.match(await answer([{ file: 'absent.gguf' }]), /failed: absent\.gguf does not exist/);
  });
});
