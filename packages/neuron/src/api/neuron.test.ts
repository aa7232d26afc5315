import assert from 'node:assert/strict';
import { copyFile, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import type { NeuronHealth, UseMark } from 'cortex-core/wire/neuron';
import { SseParser } from 'cortex-core/wire/sse';
import { childPids } from 'testkit/child-pids';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const question = {
  model: 'cortex-tiny',
  messages: [{ role: 'user', content: 'What is the capital of France?' }],
  temperature: 0,
};

interface Chunk {
  readonly choices?: readonly { delta: { content?: string }; finish_reason: string | null }[];
  readonly usage?: Record<string, unknown>;
  readonly error?: { readonly message: string; readonly type: string; readonly code: string };
}

async function start(worker: 'thread' | 'process', dirs: readonly string[]): Promise<Neuron> {
  const config = neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    device_worker: worker,
    engine: { threads: 1 },
    cpu: { memory_mb: 2000 },
    models: { dirs, hf_cache: join(tmpdir(), 'no-such-hub') },
    default_models: [{ model_id: tiny }],
  });
  const neuron = await startNeuron(config, { log: silentLog });
  await neuron.activated;
  assert.deepEqual(neuron.activation.state.failed, []);
  return neuron;
}

/** Without a content-type header, as curl users send. */
function post(neuron: Neuron, path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const bytes = typeof body === 'string' ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
  return fetch(`${neuron.url}${path}`, { method: 'POST', body: bytes, ...(signal ? { signal } : {}) });
}

async function* events(response: Response): AsyncGenerator<string> {
  const parser = new SseParser();
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    for (const event of parser.push(bytes)) yield event.data;
  }
}

function textOf(data: readonly string[]): string {
  const chunks = data.filter((each) => each !== '[DONE]').map((each) => JSON.parse(each) as Chunk);
  return chunks.map((chunk) => chunk.choices?.[0]?.delta.content ?? '').join('');
}

async function untilIdle(neuron: Neuron): Promise<void> {
  while (neuron.registry.loads().some((load) => load.in_flight > 0)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

for (const worker of ['thread', 'process'] as const) {
  describe(`a neuron whose owner is a ${worker}`, () => {
    let neuron: Neuron;
    let dir: string;

    before(async () => {
      dir = await mkdtemp(join(tmpdir(), 'neuron-'));
      await writeFile(join(dir, 'empty.gguf'), '');
      await writeFile(join(dir, 'text.gguf'), 'this is no model\n'.repeat(100));
      await copyFile(tiny, join(dir, 'half.gguf'));
      await copyFile(tiny, join(dir, 'second.gguf'));
      const half = await open(join(dir, 'half.gguf'), 'r+');
      await half.truncate(Math.floor((await half.stat()).size / 2));
      await half.close();
      neuron = await start(worker, [dir]);
    });

    after(async () => {
      await neuron.close();
      await rm(dir, { recursive: true });
    });

    it('answers streamed and whole with the same text, twice', async () => {
      const answers: string[] = [];
      for (let run = 0; run < 2; run++) {
        const whole = await post(neuron, '/v1/chat/completions', question);
        assert.equal(whole.status, 200);
        const body = (await whole.json()) as { choices: [{ message: { content: string } }] };
        answers.push(body.choices[0].message.content);
        const streamed = await post(neuron, '/v1/chat/completions', {
          ...question,
          stream: true,
          stream_options: { include_usage: true },
        });
        assert.match(streamed.headers.get('content-type') ?? '', /text\/event-stream/);
        const data: string[] = [];
        for await (const each of events(streamed)) data.push(each);
        assert.equal(data.at(-1), '[DONE]');
        assert.ok((JSON.parse(data.at(-2) ?? '') as Chunk).usage);
        assert.equal((JSON.parse(data.at(-3) ?? '') as Chunk).choices?.[0]?.finish_reason, 'stop');
        answers.push(textOf(data));
      }
      assert.equal(new Set(answers).size, 1, JSON.stringify(answers));
      assert.match(answers[0] ?? '', /Paris/);
    });

    it('refuses with the field, the code and the status', async () => {
      const cases: [unknown, number, string][] = [
        ['{', 400, 'malformed_json'],
        [{ ...question, model: 'nope' }, 404, 'model_not_found'],
        [{ ...question, messages: 'hi' }, 422, 'invalid_request_body'],
        [{ ...question, n: 129 }, 400, 'invalid_request'],
        [{ ...question, temperature: -1 }, 400, 'invalid_request'],
        [{ ...question, modalities: ['audio'] }, 400, 'unsupported_parameter'],
        [
          { ...question, messages: [{ role: 'user', content: 'x '.repeat(9000) }] },
          400,
          'context_length_exceeded',
        ],
        [
          { ...question, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
          400,
          'vision_unsupported',
        ],
      ];
      for (const [body, status, code] of cases) {
        const response = await post(neuron, '/v1/chat/completions', body);
        const { error } = (await response.json()) as { error: { code: string } };
        assert.deepEqual([response.status, error.code], [status, code]);
      }
    });

    it('refuses broken files and unknown names, and lives on', async () => {
      const cases: [string, number][] = [
        ['empty', 422],
        ['text', 422],
        ['half', 422],
        ['unknown', 404],
        [tiny, 400],
        ['../second', 400],
      ];
      for (const [model_id, status] of cases) {
        const response = await post(neuron, '/models/load', { model_id });
        const { error } = (await response.json()) as { error: string };
        assert.equal(response.status, status, `${model_id}: ${error}`);
        assert.equal(typeof error, 'string');
      }
      assert.equal((await post(neuron, '/v1/chat/completions', question)).status, 200);
    });

    it('loads once for many callers, lists, and unloads', async () => {
      const loads = await Promise.all(
        [1, 2, 3].map(() => post(neuron, '/models/load', { model_id: 'second' })),
      );
      assert.deepEqual(
        loads.map((each) => each.status),
        [200, 200, 200],
      );
      const again = await post(neuron, '/models/load', { model_id: 'second' });
      assert.equal(again.status, 400);
      assert.match(((await again.json()) as { error: string }).error, /model 'second' already loaded/);
      const listed = (await (await fetch(`${neuron.url}/models`)).json()) as { id: string; status: string }[];
      assert.equal(listed.find((model) => model.id === 'second')?.status, 'loaded');
      const use = async (): Promise<UseMark> => {
        const health = (await (await fetch(`${neuron.url}/health`)).json()) as NeuronHealth;
        const { load_id = '', requests = -1 } = health.models.find(({ id }) => id === 'second')?.use ?? {};
        return { load_id, requests };
      };
      const before = await use();
      assert.equal(before.requests, 0);
      assert.equal(
        (await post(neuron, '/v1/chat/completions', { ...question, model: 'second' })).status,
        200,
      );
      await untilIdle(neuron);
      const refused = await post(neuron, '/models/unload', { model_id: 'second', unused_since: before });
      assert.equal(refused.status, 409);
      assert.equal(((await refused.json()) as { code: string }).code, 'model_in_use');
      assert.equal((await use()).requests, 1);
      const unloaded = await post(neuron, '/models/unload', {
        model_id: 'second',
        unused_since: await use(),
      });
      assert.equal(unloaded.status, 200);
      assert.equal((await post(neuron, '/models/unload', { model_id: 'second' })).status, 404);
      assert.equal((await fetch(`${neuron.url}/models/second/endpoint`)).status, 404);
    });

    it('says what does not fit, with the numbers', async () => {
      const response = await post(neuron, '/models/load', { model_id: 'second', context: 32768, slots: 64 });
      const { error } = (await response.json()) as { error: string };
      assert.equal(response.status, 422);
      assert.match(error, /needs \d+ MiB on cpu, \d+ MiB free of 2000 MiB/);
    });

    it('stops generating when the client leaves', async () => {
      const gone = new AbortController();
      const body = { ...question, stream: true, ignore_eos: true, max_tokens: 3000 };
      const response = await post(neuron, '/v1/chat/completions', body, gone.signal);
      for await (const _ of events(response)) break;
      gone.abort();
      await untilIdle(neuron);
      assert.equal((await post(neuron, '/v1/chat/completions', question)).status, 200);
    });

    if (worker === 'process') {
      it('survives kill -9 of the owner in the middle of a stream', async () => {
        const body = { ...question, stream: true, ignore_eos: true, max_tokens: 3000 };
        const response = await post(neuron, '/v1/chat/completions', body);
        const data: string[] = [];
        for await (const each of events(response)) {
          data.push(each);
          if (data.length !== 3) continue;
          for (const pid of childPids('owner/process-main')) process.kill(pid, 'SIGKILL');
        }
        const last = JSON.parse(data.at(-1) ?? '') as Chunk;
        assert.equal(last.error?.type, 'server_error', JSON.stringify(last));
        const next = await post(neuron, '/v1/chat/completions', question);
        assert.equal(next.status, 200, await next.clone().text());
      });
    }
  });
}
