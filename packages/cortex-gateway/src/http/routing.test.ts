import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { answerWords, createGate, type FakeNeuronOptions, startFakeNeuron } from 'testkit/fake-neuron';
import type { z } from 'zod';
import { type Gateway, startGateway } from '../gateway.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function setup(
  neurons: readonly FakeNeuronOptions[],
  models: z.input<typeof modelsConfigSchema> = {},
  log = silentLog,
) {
  const fakes = await Promise.all(neurons.map((options) => startFakeNeuron(options)));
  const config = cortexConfigSchema.parse({
    gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
    neurons: fakes.map((fake, i) => ({ name: `n${i}`, endpoint: fake.url })),
  });
  const gateway = await startGateway(config, modelsConfigSchema.parse(models), { log });
  cleanups.push(async () => {
    for (const fake of fakes) await fake.close();
    await gateway.close();
  });
  return { gateway, neurons: fakes };
}

const loaded = (id: string) => ({ id, status: 'loaded' as const });
const twice = [{ models: [loaded('m')] }, { models: [loaded('m')] }];

function post(
  gateway: Gateway,
  body: object,
  headers: Record<string, string> = {},
  path = '/v1/chat/completions',
) {
  return fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), headers });
}

const chat = (text: string, more: object = {}) => ({
  model: 'm',
  messages: [{ role: 'user', content: text }],
  ...more,
});

const routeOf = (answer: Response): string => answer.headers.get('x-cortex-route') ?? '';

async function explained(gateway: Gateway, query: string) {
  const answer = await fetch(`${gateway.url}/admin/explain?${query}`);
  return { status: answer.status, body: (await answer.json()) as Explained };
}

interface Explained {
  readonly node: string | null;
  readonly decision: string;
  readonly error?: { readonly message: string };
  readonly candidates: readonly {
    readonly node: string;
    readonly verdict: string;
    readonly why: string;
    readonly terms: Readonly<Record<string, number>> | null;
  }[];
}

describe('aliases', () => {
  const models = {
    models: [{ id: 'm' }],
    aliases: {
      plain: 'm',
      fast: { model: 'm', options: { temperature: 0.2, chat_template_kwargs: { enable_thinking: false } } },
      lost: { model: 'nobody' },
    },
  };

  test('the options of an alias reach the neuron, and what the request says wins', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }], models);
    const sent = async (body: object, path?: string) => {
      const answer = await post(gateway, body, {}, path);
      assert.equal(answer.status, 200);
      await answer.text();
      return JSON.parse(neurons[0]?.chats.at(-1)?.body.toString() ?? '{}');
    };
    const kwargs = { enable_thinking: false };
    const fast = await sent(chat('hi', { model: 'fast', temperature: null }));
    assert.deepEqual([fast.model, fast.temperature, fast.chat_template_kwargs], ['m', 0.2, kwargs]);
    const own = await sent(chat('hi', { model: 'fast', temperature: 1 }));
    assert.deepEqual([own.model, own.temperature, own.chat_template_kwargs], ['m', 1, kwargs]);
    const plain = await sent(chat('hi', { model: 'plain' }));
    assert.deepEqual([plain.model, 'temperature' in plain], ['m', false]);
    const messages = await sent(chat('hi', { model: 'fast', max_tokens: 9 }), '/v1/messages');
    assert.deepEqual([messages.model, messages.temperature], ['m', 0.2]);
    assert.equal(neurons[0]?.counters.loads, 0, 'aliases share what is loaded');
  });

  test('a pattern answers every name that begins so and has no alias or model of its own', async () => {
    const patterns = {
      models: [{ id: 'm' }, { id: 'claude-local' }],
      aliases: {
        'claude-*': { model: 'm', options: { temperature: 0.2 } },
        'claude-opus-*': { model: 'm', options: { temperature: 0.4 } },
        'claude-haiku-4-5': 'm',
      },
    };
    const { gateway, neurons } = await setup([{ models: [loaded('m'), loaded('claude-local')] }], patterns);
    const ask = async (model: string) => {
      const answer = await post(gateway, chat('hi', { model, max_tokens: 9 }), {}, '/v1/messages');
      assert.equal(answer.status, 200);
      const told = ((await answer.json()) as { model: string }).model;
      const sent = JSON.parse(neurons[0]?.chats.at(-1)?.body.toString() ?? '{}');
      return [told, sent.model, sent.temperature];
    };
    assert.deepEqual(await ask('claude-sonnet-4-6'), ['claude-sonnet-4-6', 'm', 0.2]);
    assert.deepEqual(await ask('claude-opus-4-8'), ['claude-opus-4-8', 'm', 0.4]);
    assert.deepEqual(await ask('claude-haiku-4-5'), ['claude-haiku-4-5', 'm', undefined]);
    assert.deepEqual(await ask('claude-local'), ['claude-local', 'claude-local', undefined]);
    const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    assert.deepEqual(
      list.data.map(({ id }) => id),
      ['claude-haiku-4-5', 'claude-local', 'm'],
    );
    const one = (await (await fetch(`${gateway.url}/v1/models/claude-sonnet-4-6`)).json()) as object;
    assert.equal(Reflect.get(one, 'alias_of'), 'm');
    assert.equal((await post(gateway, chat('hi', { model: 'gpt-x' }))).status, 404);
  });

  test('an alias is listed with its model; one of an unknown model is not, and the log says so', async () => {
    const warnings: unknown[] = [];
    const log = {
      ...silentLog,
      warn: (message: string, fields: object = {}) => warnings.push([message, fields]),
    };
    const { gateway } = await setup([{ models: [loaded('m')] }], models, log as typeof silentLog);
    const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    assert.deepEqual(
      list.data.map(({ id }) => id),
      ['fast', 'm', 'plain'],
    );
    assert.equal(warnings.length, 1);
    assert.match(JSON.stringify(warnings), /names \\"nobody\\", which is not in the catalogue.*"lost"/);
  });
});

describe('affinity', () => {
  const session = (headers: Record<string, string>) => async () => {
    const { gateway, neurons } = await setup(twice);
    // the first answer teaches where the conversation is; another one takes that node meanwhile
    const gate = createGate();
    for (const neuron of neurons) {
      neuron.onChat = ({ response }) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const usage = { prompt_tokens: 4000, completion_tokens: 1 };
        response.end(JSON.stringify({ choices: [{ message: { content: 'x' } }], usage }));
      };
    }
    await (await post(gateway, chat('a', {}), headers)).text();
    const [first] = neurons.map((neuron, i) => (neuron.counters.chats > 0 ? i : -1)).filter((i) => i >= 0);
    assert.equal(first, 0, 'ties go by name');
    for (const neuron of neurons) {
      neuron.onChat = async (call) => {
        await gate.opened;
        answerWords(call, ['x']);
      };
    }
    const other = post(gateway, chat('another', {}), { 'x-session-id': 'other' });
    await neurons[0]?.until(() => neurons[0]?.counters.chats === 2);
    const long = 'and so on '.repeat(2000);
    const again = post(gateway, chat(long), headers);
    await Promise.race([
      neurons[0]?.until(() => neurons[0]?.counters.chats === 3),
      neurons[1]?.until(() => neurons[1]?.counters.chats === 1),
    ]);
    gate.open();
    await (await other).text();
    await (await again).text();
    return routeOf(await again);
  };

  for (const name of ['x-claude-code-session-id', 'session_id', 'x-session-id', 'x-session-affinity']) {
    test(`a session named by ${name} stays where its prompt is cached`, async () => {
      assert.match(await session({ [name]: 'abc' })(), /node=n0; .*\d+ tokens cached/);
    });
  }

  test('without a session another prompt goes to the idle node', async () => {
    assert.match(await session({})(), /node=n1; /);
  });

  test('prompt_cache_key and the session in metadata.user_id name a conversation', async () => {
    const { gateway } = await setup(twice);
    const second = async (body: object, path?: string) => {
      await (await post(gateway, body, {}, path)).text();
      const answer = await post(gateway, body, {}, path);
      await answer.text();
      return routeOf(answer);
    };
    assert.match(await second(chat('x', { prompt_cache_key: 'k' })), /tokens cached/);
    const metadata = { user_id: 'user_1_account_2_session_0123456789' };
    assert.match(await second(chat('y', { metadata, max_tokens: 5 }), '/v1/messages'), /tokens cached/);
  });

  test('an answer that found nothing cached lowers what is believed', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    for (const neuron of neurons) {
      neuron.onChat = ({ response }) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const usage = {
          prompt_tokens: 1000,
          completion_tokens: 1,
          prompt_tokens_details: { cached_tokens: 0 },
        };
        response.end(JSON.stringify({ choices: [{ message: { content: 'x' } }], usage }));
      };
    }
    const believed: number[] = [];
    for (let i = 0; i < 4; i++) {
      const answer = await post(gateway, chat('z'.repeat(4000)), { 'x-session-id': 's' });
      await answer.text();
      believed.push(Number(/(\d+) tokens cached/.exec(routeOf(answer))?.[1] ?? 0));
    }
    assert.deepEqual(believed, [0, 1001, 500, 250]);
  });
});

describe('learning', () => {
  test('measured timings of answers decide where a long prompt goes', async () => {
    const { gateway, neurons } = await setup(twice);
    neurons.forEach((neuron, i) => {
      neuron.onChat = ({ response }) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const usage = { prompt_tokens: 1000, completion_tokens: 20 };
        // the first node, that ties would go to, reads at 100 tokens/s, the other at 5,000
        const timings = { queue_ms: 0, prefill_ms: i === 0 ? 10_000 : 200, decode_ms: 500 };
        response.end(JSON.stringify({ choices: [{ message: { content: 'x' } }], usage, timings }));
      };
    });
    const first = createGate();
    const slow = neurons[0]?.onChat;
    if (neurons[0] !== undefined) {
      neurons[0].onChat = async (call) => {
        await first.opened;
        await slow?.(call);
      };
    }
    // one to each: the second finds the first node busy
    const one = post(gateway, chat('one'));
    await neurons[0]?.until(() => neurons[0]?.counters.chats === 1);
    await (await post(gateway, chat('two'))).text();
    first.open();
    await (await one).text();
    const { body } = await explained(gateway, 'model=m&prompt_tokens=10000');
    assert.equal(body.node, 'n1');
    assert.deepEqual(
      body.candidates.map(({ terms }) => terms?.prefill_secs),
      [2, 100],
    );
    const third = await post(gateway, chat('three '.repeat(5000)));
    await third.text();
    assert.match(routeOf(third), /node=n1; least expected wait/);
  });

  test('rates that neurons report stand in for what was not measured yet', async () => {
    const { gateway, neurons } = await setup(twice);
    neurons[0]?.reportedLoad.set('m', { tok_s_prefill: 100, tok_s_decode: 5, max_in_flight: 2 });
    neurons[1]?.reportedLoad.set('m', { tok_s_prefill: 4000, tok_s_decode: 50, max_in_flight: 2 });
    await Promise.all(['n0', 'n1'].map((name) => gateway.fleet.pollNow(name)));
    const { body } = await explained(gateway, 'model=m&prompt_tokens=4000');
    assert.deepEqual([body.node, body.candidates[0]?.terms?.expected_secs], ['n1', 1]);
  });

  test('the expected and the real time to the first token are compared in a metric', async () => {
    const { gateway } = await setup(twice);
    await (await post(gateway, chat('hi', { stream: true }))).text();
    const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(text, /cortex_first_token_expected_ratio_count\{model="m",node="n0"\} 1/);
  });
});

describe('replicas', () => {
  test('50 first requests over three nodes make one load, and all are answered by it', async () => {
    const three = [{ models: [{ id: 'm' }] }, { models: [{ id: 'm' }] }, {}];
    const { gateway, neurons } = await setup(three, { models: [{ id: 'm', vram_mb: 1000 }] });
    const gate = createGate();
    for (const neuron of neurons) {
      neuron.onLoad = async () => {
        await gate.opened;
        return undefined;
      };
    }
    const calls = Array.from({ length: 50 }, (_, i) => post(gateway, chat(`ask ${i}`)));
    await neurons[0]?.until(() => neurons[0]?.counters.loads === 1);
    gate.open();
    for (const call of calls) {
      const answer = await call;
      await answer.text();
      assert.equal(answer.status, 200);
    }
    assert.deepEqual(
      neurons.map(({ counters }) => counters.loads),
      [1, 0, 0],
    );
  });

  test('a queue that a load would halve brings up one further replica, not more', async () => {
    const nodes = [{ models: [loaded('m')] }, { models: [{ id: 'm' }] }, { models: [{ id: 'm' }] }];
    const { gateway, neurons } = await setup(nodes, { models: [{ id: 'm', vram_mb: 1000 }] });
    neurons[0]?.reportedLoad.set('m', { max_in_flight: 1 });
    await gateway.fleet.pollNow('n0');
    const gate = createGate();
    for (const neuron of neurons) {
      neuron.onChat = async ({ response }) => {
        if (neuron.counters.chats > 1 || neuron !== neurons[0]) await gate.opened;
        response.writeHead(200, { 'content-type': 'application/json' });
        const usage = { prompt_tokens: 100, completion_tokens: 600 };
        const timings = { queue_ms: 0, prefill_ms: 100, decode_ms: 20_000 };
        response.end(JSON.stringify({ choices: [{ message: { content: 'x' } }], usage, timings }));
      };
    }
    // 20 s a request, measured once; a load is expected to take 3 s
    await (await post(gateway, chat('first'))).text();
    const calls = Array.from({ length: 4 }, (_, i) => post(gateway, chat(`ask ${i}`)));
    await neurons[1]?.until(() => (neurons[1]?.counters.chats ?? 0) > 0);
    gate.open();
    for (const call of calls) {
      const answer = await call;
      await answer.text();
      assert.equal(answer.status, 200);
    }
    assert.deepEqual(
      neurons.map(({ counters }) => counters.loads),
      [0, 1, 0],
    );
  });
});

describe('explaining', () => {
  test('GET /admin/explain names the node that the next request goes to, and changes nothing', async () => {
    const { gateway, neurons } = await setup(
      [{ devices: [4000], models: [{ id: 'm' }] }, { devices: [500] }],
      { models: [{ id: 'm', vram_mb: 1000 }] },
    );
    const { body } = await explained(gateway, 'model=m');
    assert.deepEqual([body.decision, body.node], ['load', 'n0']);
    assert.equal(body.candidates[1]?.why, 'needs 1000 MiB, n1 has only 500 MiB on 1 device(s)');
    assert.equal(neurons[0]?.counters.loads, 0);
    const answer = await post(gateway, chat('hi'));
    await answer.text();
    assert.match(routeOf(answer), /^node=n0; only replica, after a load; expect=/);
  });

  test('bad questions get the field at fault', async () => {
    const { gateway } = await setup(twice);
    for (const [query, message] of [
      ['', /^model: name the model/],
      ['model=m&prompt_tokens=-1', /^prompt_tokens: must be a whole number/],
      ['model=m&prompt_tokens=1e9', /^prompt_tokens: must be/],
    ] as const) {
      const { status, body } = await explained(gateway, query);
      assert.equal(status, 400);
      assert.match(body.error?.message ?? '', message);
    }
    assert.equal((await explained(gateway, 'model=nobody')).body.node, null);
  });

  test('every answer says where it went, errors too', async () => {
    const { gateway } = await setup(twice);
    const bodies = [chat('hi'), { model: 'nobody', messages: [] }, { messages: [] }];
    const routes: string[] = [];
    for (const body of bodies) {
      const answer = await post(gateway, body);
      await answer.text();
      routes.push(routeOf(answer));
    }
    assert.match(
      routes[0] ?? '',
      /^node=n0; least expected wait of 2 replicas; expect=[\d.]+s prefill=[\d.]+s$/,
    );
    assert.match(routes[1] ?? '', /^none; model "nobody" not found/);
    assert.equal(routes[2], 'none; not routed');
  });

  test('so does every route that asks a model, whole, streamed and refused', async () => {
    const { gateway } = await setup(twice);
    const messages = [{ role: 'user', content: 'hi' }];
    for (const [path, body] of [
      ['/v1/chat/completions', { messages }],
      ['/v1/completions', { prompt: 'hi' }],
      ['/v1/messages', { messages, max_tokens: 9 }],
      ['/v1/responses', { input: 'hi' }],
      ['/api/chat', { messages }],
      ['/v1/embeddings', { input: 'hi' }],
      ['/v1/rerank', { query: 'hi', documents: ['a'] }],
    ] as const) {
      const kinds = /embed|rerank/.test(path) ? [{}] : [{ stream: true }, { stream: false }];
      for (const kind of kinds) {
        const answer = await post(gateway, { model: 'm', ...body, ...kind }, {}, path);
        await answer.text();
        assert.match(routeOf(answer), /^node=n\d; .*expect=/, path);
        const refused = await post(gateway, { model: 'nobody', ...body, ...kind }, {}, path);
        await refused.text();
        assert.match(routeOf(refused), /^none; model "nobody" not found/, path);
      }
    }
  });
});
