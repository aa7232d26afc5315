import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { answerWords, chatStream, type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import { type Gateway, startGateway } from '../gateway.ts';

type Json = Record<string, unknown>;

describe("Ollama's doors", () => {
  let gateway: Gateway;
  let neuron: FakeNeuron;

  before(async () => {
    neuron = await startFakeNeuron({
      models: [{ id: 'm', status: 'loaded', context: 4096 }, { id: 'cold' }],
    });
    gateway = await startGateway(
      cortexConfigSchema.parse({
        gateway: {
          listen: '127.0.0.1:0',
          metrics_listen: '127.0.0.1:0',
          poll_interval_secs: 3600,
          admin_keys: ['admin-key-0123456789'],
        },
        neurons: [{ name: 'n0', endpoint: neuron.url }],
      }),
      modelsConfigSchema.parse({ aliases: { nick: 'm' } }),
      { log: silentLog },
    );
  });
  after(async () => {
    await neuron.close();
    await gateway.close();
  });

  const get = async (path: string): Promise<Json> => (await (await fetch(gateway.url + path)).json()) as Json;
  const post = (path: string, body: unknown, init: RequestInit = {}): Promise<Response> =>
    fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), ...init });
  const lines = async (response: Response): Promise<Json[]> =>
    (await response.text())
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Json);
  const chat = (model: string, more: Json = {}): Json => ({
    model,
    messages: [{ role: 'user', content: 'hi' }],
    ...more,
  });

  test('what is there, what runs, and what a model can do', async () => {
    const { models } = (await get('/api/tags')) as { models: { name: string; digest: string }[] };
    assert.deepEqual(
      models.map(({ name }) => name),
      ['cold:latest', 'm:latest', 'nick:latest'],
    );
    assert.ok(models.every(({ digest }) => /^[0-9a-f]{64}$/.test(digest)));
    const running = (await get('/api/ps')) as { models: { name: string; context_length: number }[] };
    assert.deepEqual(
      running.models.map(({ name, context_length }) => [name, context_length]),
      [
        ['m:latest', 4096],
        ['nick:latest', 4096],
      ],
    );
    for (const body of [{ model: 'm:latest' }, { name: 'm' }]) {
      const shown = (await (await post('/api/show', body)).json()) as { capabilities: string[] };
      assert.deepEqual(shown.capabilities, ['completion']);
    }
    assert.match(String((await get('/api/version')).version), /^\d+\.\d+\.\d+$/);
    assert.deepEqual(neuron.events, []);
  });

  test('a chat is lines unless asked otherwise, under the name that was asked for', async () => {
    const streamed = await post('/api/chat', chat('m:latest'));
    assert.match(streamed.headers.get('content-type') ?? '', /application\/x-ndjson/);
    const all = await lines(streamed);
    assert.deepEqual(
      all.map(({ message }) => (message as { content: string }).content),
      ['Hello', ' world', ''],
    );
    assert.deepEqual([all.at(-1)?.done, all.at(-1)?.model], [true, 'm:latest']);
    const whole = (await (await post('/api/chat', chat('nick', { stream: false }))).json()) as Json;
    assert.deepEqual([whole.message, whole.done], [{ role: 'assistant', content: 'Hello world' }, true]);
    const generated = await lines(await post('/api/generate', { model: 'm', prompt: 'hi' }));
    assert.equal(generated.map(({ response }) => response).join(''), 'Hello world');
  });

  test('an answer that breaks off ends in an error line and is not done', async () => {
    neuron.onChat = (call) => {
      const whole = chatStream('m', ['one', 'two']);
      call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      call.response.write(whole.slice(0, whole.indexOf('two')), () => call.response.destroy());
    };
    const all = await lines(await post('/api/chat', chat('m')));
    neuron.onChat = (call) => answerWords(call, ['Hello', ' world']);
    assert.deepEqual(Object.keys(all.at(-1) ?? {}), ['error']);
    assert.ok(all.every(({ done }) => done !== true));
  });

  test('a request without a prompt loads and generates nothing', async () => {
    const before = neuron.counters.chats;
    const [line] = await lines(await post('/api/generate', { model: 'cold', keep_alive: '10m' }));
    assert.deepEqual([line?.response, line?.done, line?.done_reason], ['', true, 'load']);
    assert.deepEqual([neuron.models.get('cold')?.status, neuron.counters.chats], ['loaded', before]);
    const again = await post('/api/chat', { model: 'cold', messages: [], stream: false });
    assert.equal(((await again.json()) as Json).done_reason, 'load');
    for (const [path, body, answer] of [
      ['/api/embed', { model: 'cold', input: [] }, { model: 'cold', embeddings: [] }],
      ['/api/embeddings', { model: 'cold' }, { embedding: [] }],
    ] as const) {
      assert.deepEqual(await (await post(path, body)).json(), answer);
    }
    assert.deepEqual([neuron.counters.loads, neuron.counters.chats], [1, before]);
  });

  test('keep_alive 0 without a prompt unloads, for an admin', async () => {
    const body = { model: 'cold', prompt: '', keep_alive: 0, stream: false };
    const refused = await post('/api/generate', body);
    assert.equal(refused.status, 401);
    assert.equal(neuron.models.get('cold')?.status, 'loaded');
    const headers = { authorization: 'Bearer admin-key-0123456789' };
    const done = await post('/api/generate', body, { headers });
    assert.equal(((await done.json()) as Json).done_reason, 'unload');
    assert.equal(neuron.models.get('cold')?.status, 'available');
  });

  test('keep_alive 0 behind a prompt leaves the model where it is', async () => {
    assert.equal((await post('/api/chat', chat('m', { keep_alive: 0, stream: false }))).status, 200);
    assert.equal(neuron.models.get('m')?.status, 'loaded');
  });

  const refusals: readonly (readonly [string, string, unknown, number])[] = [
    ['POST', '/api/chat', chat('nobody'), 404],
    ['POST', '/api/chat', '{', 400],
    ['POST', '/api/chat', { messages: [] }, 400],
    ['POST', '/api/show', { model: 'nobody' }, 404],
    ['POST', '/api/pull', { model: 'm' }, 404],
    ['POST', '/api/create', { model: 'm' }, 404],
    ['DELETE', '/api/delete', { model: 'm' }, 404],
    ['GET', '/api/chat', null, 405],
    ['GET', '/api/nothing', null, 404],
  ];
  for (const [method, path, body, status] of refusals) {
    test(`${method} ${path} ${JSON.stringify(body)} is ${status} with a text in "error"`, async () => {
      const response = await fetch(gateway.url + path, {
        method,
        body: body === null ? null : typeof body === 'string' ? body : JSON.stringify(body),
      });
      const { error } = (await response.json()) as { error: unknown };
      assert.equal(response.status, status);
      assert.ok(typeof error === 'string' && error.length > 10, String(error));
    });
  }
});
