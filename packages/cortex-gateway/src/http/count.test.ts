import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type FakeNeuron, type FakeNeuronOptions, startFakeNeuron } from 'testkit/fake-neuron';
import type { z } from 'zod';
import { type Gateway, startGateway } from '../gateway.ts';
import { ask, key, setUpProviders } from './providers.test.kit.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

interface Setup {
  readonly gateway: Gateway;
  readonly neurons: readonly FakeNeuron[];
}

async function setup(
  neurons: readonly FakeNeuronOptions[],
  models: z.input<typeof modelsConfigSchema> = {},
  config: z.input<typeof cortexConfigSchema> = {},
): Promise<Setup> {
  const fakes = await Promise.all(neurons.map((options) => startFakeNeuron(options)));
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...config,
      gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
      neurons: fakes.map((fake, i) => ({ name: `n${i}`, endpoint: fake.url })),
    }),
    modelsConfigSchema.parse(models),
    { log: silentLog },
  );
  cleanups.push(async () => {
    for (const fake of fakes) await fake.close();
    await gateway.close();
  });
  return { gateway, neurons: fakes };
}

const body = (model: string, more: object = {}) => ({
  model,
  messages: [{ role: 'user', content: 'hi' }],
  ...more,
});

async function count(
  { gateway }: Setup,
  model: string,
  more: object = {},
  headers: Record<string, string> = {},
): Promise<{ readonly status: number; readonly body: Answer; readonly route: string }> {
  const response = await fetch(`${gateway.url}/v1/messages/count_tokens?beta=true`, {
    method: 'POST',
    body: JSON.stringify(body(model, more)),
    headers,
  });
  const route = response.headers.get('x-cortex-route') ?? '';
  return { status: response.status, body: (await response.json()) as Answer, route };
}

interface Answer {
  readonly input_tokens?: number;
  readonly type?: string;
  readonly error?: { readonly type: string; readonly message: string };
}

test('the node that has the model loaded counts, whatever the order of names', async () => {
  const it = await setup([{ models: [{ id: 'm' }] }, { models: [{ id: 'm', status: 'loaded' }] }]);
  const { status, body: answer, route } = await count(it, 'm');
  assert.deepEqual([status, answer], [200, { input_tokens: 7 }]);
  assert.match(route, /^node=n1; has it loaded/);
});

test('a model that nobody has loaded is counted from its file, and stays there', async () => {
  const it = await setup([{ models: [{ id: 'm' }] }]);
  const answers = await Promise.all(Array.from({ length: 24 }, () => count(it, 'm')));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.deepEqual(new Set(it.neurons[0]?.events), new Set(['count m']));
  const [model] = [...(it.gateway.fleet.view().nodes[0]?.models.values() ?? [])];
  assert.deepEqual([model?.leases, model?.lastUsedMs], [0, null]);
});

test('tools and system go along, as in the request itself', async () => {
  const it = await setup([{ models: [{ id: 'm', status: 'loaded' }] }]);
  let seen: { messages?: readonly unknown[]; model?: string } = {};
  const [neuron] = it.neurons;
  assert.ok(neuron);
  neuron.onCount = (request) => {
    seen = request;
    return 3;
  };
  assert.equal((await count(it, 'm', { system: 'Be brief.' })).body.input_tokens, 3);
  assert.deepEqual(seen.messages, [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'hi' },
  ]);
});

test('a node that fails is passed over', async () => {
  const it = await setup([
    { models: [{ id: 'm', status: 'loaded' }] },
    { models: [{ id: 'm', status: 'loaded' }] },
    { models: [{ id: 'm' }] },
  ]);
  const [first, second] = it.neurons;
  assert.ok(first && second);
  first.onCount = () => ({ status: 503, body: { error: { message: 'busy', code: 'overloaded' } } });
  second.onCount = () => ({
    status: 404,
    body: { error: { message: 'not here', code: 'model_not_found' } },
  });
  const { status, route } = await count(it, 'm');
  assert.equal(status, 200);
  assert.match(route, /^node=n2; has its file/);
});

test("a neuron's refusal of the request is the answer, and no other node is asked", async () => {
  const it = await setup([
    { models: [{ id: 'm', status: 'loaded' }] },
    { models: [{ id: 'm', status: 'loaded' }] },
  ]);
  for (const neuron of it.neurons) {
    neuron.onCount = () => ({
      status: 400,
      body: { error: { message: 'cannot see', code: 'vision_unsupported', param: 'messages.0' } },
    });
  }
  const { status, body: answer } = await count(it, 'm');
  assert.equal(status, 400);
  assert.deepEqual([answer.type, answer.error?.type], ['error', 'invalid_request_error']);
  assert.equal(it.neurons.flatMap(({ events }) => events).length, 1);
});

test('an unknown model is 404, one of the catalogue that nobody has says what to do', async () => {
  const it = await setup([{}], { models: [{ id: 'org/far' }] });
  const unknown = await count(it, 'nobody');
  assert.deepEqual([unknown.status, unknown.body.error?.type], [404, 'not_found_error']);
  const far = await count(it, 'org/far');
  assert.equal(far.status, 404);
  assert.match(far.body.error?.message ?? '', /load it once/);
});

test('a node that is gone is 503, not 404', async () => {
  const it = await setup([{ models: [{ id: 'm' }] }, {}]);
  await it.neurons[0]?.close();
  for (let poll = 0; poll < 3; poll++) await it.gateway.fleet.pollNow('n0');
  const { status, body: answer } = await count(it, 'm');
  assert.equal(status, 503);
  assert.match(answer.error?.message ?? '', /n0/);
});

test('a key is needed where keys are, and a used-up quota does not matter', async () => {
  const keys = [
    { key: 'k', account_id: 'a', key_id: 'k', hard_cap: 1, window: { kind: 'balance' as const } },
  ];
  const it = await setup(
    [{ models: [{ id: 'm', status: 'loaded' }] }],
    {},
    { entitlements: { require_auth: true, keys } },
  );
  const refused = await count(it, 'm');
  assert.deepEqual([refused.status, refused.body.error?.type], [401, 'authentication_error']);
  const long = { messages: [{ role: 'user', content: 'word '.repeat(1000) }] };
  assert.equal((await count(it, 'm', long, { 'x-api-key': 'k' })).status, 200);
});

test('a body that is none says which field', async () => {
  const it = await setup([{ models: [{ id: 'm', status: 'loaded' }] }]);
  const { status, body: answer } = await count(it, 'm', { messages: 'hi' });
  assert.equal(status, 400);
  assert.match(answer.error?.message ?? '', /^messages/);
});

test("the chat form of the count has a neuron's own shape", async () => {
  const { gateway } = await setup([{ models: [{ id: 'm' }] }]);
  const response = await fetch(`${gateway.url}/v1/chat/completions/input_tokens`, {
    method: 'POST',
    body: JSON.stringify(body('m')),
  });
  assert.deepEqual(await response.json(), { object: 'chat.completion.input_tokens', input_tokens: 7 });
});

describe('a model that only a provider has', () => {
  const question = (model: string) => ({
    ...{ model, max_tokens: 9, stream: true, temperature: 0.5 },
    ...{ system: 'be brief', messages: [{ role: 'user', content: 'hi' }] },
    tools: [{ name: 'look', input_schema: { type: 'object' } }],
  });
  const counting = async () => {
    const it = await setUpProviders();
    it.anthropic.onCall = ({ response }) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end('{"input_tokens":42}');
    };
    return it;
  };

  test("is counted at an Anthropic provider: a Messages count as it came, in the provider's name", async () => {
    const { gateway, anthropic } = await counting();
    const headers = { 'anthropic-version': '2023-01-01', 'x-api-key': 'of-the-client' };
    const response = await ask(gateway, '/v1/messages/count_tokens', question('claude'), headers);
    assert.deepEqual([response.status, await response.json()], [200, { input_tokens: 42 }]);
    assert.match(response.headers.get('x-cortex-route') ?? '', /^node=far-anthropic; last resort: /);
    const [call] = anthropic.calls;
    assert.equal(call?.path, '/v1/messages/count_tokens');
    assert.equal(call?.headers['x-api-key'], key);
    assert.equal(call?.headers['anthropic-version'], '2023-01-01');
    // the API refuses what no prompt is made of
    const { max_tokens: _, stream: __, temperature: ___, ...counted } = question('claude-far');
    assert.deepEqual(call?.body, counted);
  });

  for (const [path, body, shape] of [
    ['/v1/responses/input_tokens', { input: 'hi', instructions: 'be brief' }, 'response.input_tokens'],
    [
      '/v1/chat/completions/input_tokens',
      {
        messages: [
          { role: 'system', content: 'be brief' },
          { role: 'user', content: 'hi' },
        ],
      },
      'chat.completion.input_tokens',
    ],
  ] as const) {
    test(`is counted by ${path} too, translated`, async () => {
      const { gateway, anthropic } = await counting();
      const response = await ask(gateway, path, { model: 'claude', ...body });
      assert.deepEqual([response.status, await response.json()], [200, { object: shape, input_tokens: 42 }]);
      assert.equal(anthropic.calls[0]?.path, '/v1/messages/count_tokens');
      assert.deepEqual(anthropic.calls[0]?.body, {
        model: 'claude-far',
        system: 'be brief',
        messages: [{ role: 'user', content: [{ type: 'text', text: 'hi' }] }],
      });
    });
  }

  test('cannot be counted at an OpenAI provider, which is said', async () => {
    const { gateway, openai } = await setUpProviders();
    const response = await ask(gateway, '/v1/messages/count_tokens', question('gpt'));
    const { error } = (await response.json()) as Answer;
    assert.equal(response.status, 400);
    assert.match(error?.message ?? '', /far-openai serves it, has no count of tokens/);
    assert.equal(openai.calls.length, 0);
  });

  test('a provider without its key, one that refuses, and one that answers something else say so', async () => {
    const path = '/v1/messages/count_tokens';
    const { gateway } = await setUpProviders({ env: {} });
    const keyless = await ask(gateway, path, question('claude'));
    assert.equal(keyless.status, 503);
    assert.match(((await keyless.json()) as Answer).error?.message ?? '', /FAR_KEY is not set/);
    const it = await counting();
    for (const [status, body, wanted] of [
      [400, { type: 'error', error: { type: 'invalid_request_error', message: 'tools.0: no' } }, 400],
      [500, {}, 502],
      [200, { total: 3 }, 502],
    ] as const) {
      it.anthropic.onCall = ({ response }) => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(body));
      };
      assert.equal((await ask(it.gateway, path, question('claude'))).status, wanted);
    }
  });
});
