/** What knocks on the gateway before and around requests: probes, browsers, compressed bodies, wrong turns. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { brotliCompressSync, deflateRawSync, gzipSync } from 'node:zlib';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import { type Gateway, startGateway } from '../gateway.ts';

const version = { 'anthropic-version': '2023-06-01' };

describe('the edge', () => {
  let gateway: Gateway;
  let neuron: FakeNeuron;

  before(async () => {
    neuron = await startFakeNeuron({ models: [{ id: 'm', status: 'loaded' }] });
    gateway = await startGateway(
      cortexConfigSchema.parse({
        gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
        neurons: [{ name: 'n0', endpoint: neuron.url }],
        entitlements: { require_auth: true, keys: [{ key: 'k', account_id: 'a' }] },
      }),
      modelsConfigSchema.parse({}),
      { log: silentLog },
    );
  });
  after(async () => {
    await neuron.close();
    await gateway.close();
  });

  const call = (method: string, path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(gateway.url + path, { method, ...init });
  const key = { authorization: 'Bearer k' };

  test('probes are answered without a key: HEAD / and HEAD /api/hello, and every GET takes HEAD', async () => {
    for (const path of ['/', '/api/hello', '/api/hello/', '/health', '/api/version']) {
      const head = await call('HEAD', path);
      assert.deepEqual([head.status, await head.text()], [200, ''], path);
      assert.equal((await call('GET', path)).status, 200, path);
    }
    for (const path of ['/v1/models', '/v1/models/m', '/api/tags']) {
      assert.equal((await call('HEAD', path, { headers: key })).status, 200, path);
      assert.equal((await call('HEAD', path)).status, 401, path);
    }
  });

  test('a preflight needs no key, allows what it asks for and private networks', async () => {
    const headers = {
      origin: 'https://app.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'Authorization, X-My-Own, bad header',
      'access-control-request-private-network': 'true',
    };
    for (const path of ['/v1/chat/completions', '/v1/messages', '/v1/models/org/m', '/api/chat']) {
      const answer = await call('OPTIONS', path, { headers });
      const allowed = answer.headers.get('access-control-allow-headers') ?? '';
      assert.equal(answer.status, 204);
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
      assert.equal(answer.headers.get('access-control-allow-private-network'), 'true');
      assert.match(allowed, /\bauthorization\b.*\bx-stainless-retry-count\b.*\bx-my-own\b/);
      assert.doesNotMatch(allowed, /bad header/);
    }
  });

  test('a browser can read refusals too', async () => {
    for (const [method, path] of [
      ['GET', '/nowhere'],
      ['GET', '/v1/messages'],
      ['GET', '/v1/models'],
    ] as const) {
      const answer = await call(method, path);
      assert.ok(answer.status >= 400);
      assert.equal(answer.headers.get('access-control-allow-origin'), '*', path);
      const readable = (answer.headers.get('access-control-expose-headers') ?? '').split(', ');
      for (const name of ['request-id', 'x-request-id', 'retry-after'])
        assert.ok(readable.includes(name), name);
    }
  });

  test('compressed bodies are read, whatever the content-type', async () => {
    const body = Buffer.from(JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }] }));
    for (const [encoding, bytes] of [
      ['gzip', gzipSync(body)],
      ['br', brotliCompressSync(body)],
      ['deflate', deflateRawSync(body)],
      ['gzip, br', brotliCompressSync(gzipSync(body))],
    ] as const) {
      const headers = { ...key, 'content-encoding': encoding, 'content-type': 'text/plain' };
      const answer = await call('POST', '/v1/chat/completions', { headers, body: bytes });
      assert.equal(answer.status, 200, encoding);
      assert.equal(neuron.chats.at(-1)?.headers['content-encoding'], undefined);
      assert.deepEqual(JSON.parse(String(neuron.chats.at(-1)?.body)), JSON.parse(String(body)));
    }
  });

  test('a body of 20 MB goes through', async () => {
    const body = JSON.stringify({
      model: 'm',
      messages: [{ role: 'user', content: 'hi' }],
      x: 'y'.repeat(20_000_000),
    });
    assert.equal((await call('POST', '/v1/chat/completions', { headers: key, body })).status, 200);
    assert.equal(neuron.chats.at(-1)?.body.length, body.length);
  });

  const families: readonly (readonly [string, string, string, string, Record<string, string>])[] = [
    ['openai', 'POST', '/v1/chat/completions', '/v1/chat/nowhere', {}],
    ['anthropic', 'POST', '/v1/messages', '/v1/messages/nowhere', {}],
    ['anthropic', 'POST', '/v1/messages/count_tokens', '/messages/count_tokens/nowhere', {}],
    ['openai', 'GET', '/v1/models', '/v1/nowhere', {}],
    ['anthropic', 'GET', '/v1/models', '/v1/messages/batches/1', version],
    ['flat', 'GET', '/api/tags', '/api/nowhere', {}],
  ];
  for (const [family, method, path, missing, headers] of families) {
    test(`${path} refuses in the envelope of ${family}: no key, wrong method, no such route`, async () => {
      const body = method === 'POST' ? '{}' : null;
      const answers = [
        [401, await call(method, path, { headers, body })],
        [405, await call('PATCH', path, { headers })],
        [404, await call('POST', missing, { headers })],
      ] as const;
      for (const [status, answer] of answers) {
        const refusal = (await answer.json()) as { type?: string; error: unknown };
        assert.equal(answer.status, status);
        assert.equal(typeof refusal.error, family === 'flat' ? 'string' : 'object');
        assert.equal(refusal.type, family === 'anthropic' ? 'error' : undefined);
        if (status === 405) assert.match(answer.headers.get('allow') ?? '', new RegExp(method));
      }
    });
  }

  test('bytes that are no UTF-8 are 400 with a sentence, and never reach a neuron', async () => {
    const before = neuron.counters.chats;
    const body = Buffer.concat([
      Buffer.from('{"model":"m","messages":[{"role":"user","content":"'),
      Buffer.from([0xff]),
      Buffer.from('"}]}'),
    ]);
    const answer = await call('POST', '/v1/chat/completions', { headers: key, body });
    assert.equal(answer.status, 400);
    assert.match(await answer.text(), /UTF-8/);
    assert.equal(neuron.counters.chats, before);
  });
});
