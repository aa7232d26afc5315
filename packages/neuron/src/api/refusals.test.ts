/** Text and tokens through a real owner of either kind, and what the neuron says of itself. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

for (const worker of ['thread', 'process'] as const) {
  describe(`a request to a neuron whose owner is a ${worker}`, () => {
    let neuron: Neuron;
    let head: string | null;

    before(async () => {
      head = headCommit();
      const config = neuronConfigSchema.parse({
        listen: '127.0.0.1',
        port: 0,
        device_worker: worker,
        engine: { threads: 1 },
        cpu: { memory_mb: 2000 },
        models: { hf_cache: join(tmpdir(), 'no-such-hub') },
        default_models: [{ model_id: tiny }],
      });
      neuron = await startNeuron(config, { log: silentLog });
      await neuron.activated;
    });
    after(() => neuron.close());

    const post = (path: string, body: unknown): Promise<Response> =>
      fetch(`${neuron.url}${path}`, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
      });

    it('refuses NaN itself, which is no JSON', async () => {
      const response = await post('/v1/chat/completions', '{"model":"cortex-tiny","temperature":NaN}');
      assert.equal(response.status, 400);
      assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'malformed_json');
    });

    it('makes tokens of a text and the text of the tokens', async () => {
      for (const content of ['What is the capital of France?', 'naïve 日本 🦊\n\n  end', '']) {
        const made = await post('/tokenize', { model: 'cortex-tiny', content });
        const { tokens, count } = (await made.json()) as { tokens: number[]; count: number };
        assert.equal(tokens.length, count);
        const back = await post('/detokenize', { model: 'cortex-tiny', tokens });
        assert.deepEqual(await back.json(), { content });
      }
    });

    it('is answered with the library that is loaded and the commit of this checkout', async () => {
      const version = (await (await fetch(`${neuron.url}/version`)).json()) as Record<string, unknown>;
      assert.match(String(version.libllama_version), /^\d+\.\d+\.\d+/);
      if (head === null) assert.match(String(version.git_sha), /^([0-9a-f]{40}|unknown)$/);
      else assert.equal(version.git_sha, head);
    });
  });
}

/** What git says; null without git or in a tree without its history. */
function headCommit(): string | null {
  const cwd = fileURLToPath(new URL('.', import.meta.url));
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], { cwd, encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return null;
  }
}
