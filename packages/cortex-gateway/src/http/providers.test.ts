/** Providers as neurons of last resort, over real sockets. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Log } from 'cortex-core/daemon/log';
import { createGate } from 'testkit/fake-neuron';
import {
  type FakeBlock,
  type FakeProvider,
  messageOf,
  messageStream,
  sendStream,
} from 'testkit/fake-provider';
import { ask, dialects, key, setUpProviders } from './providers.test.kit.ts';

const chat = (model: string, more: object = {}) => ({ ...dialects.chat.body(model), ...more });
const chatPath = dialects.chat.path;
const sendJson = (body: unknown, status = 200, headers: object = {}): FakeProvider['onCall'] => {
  return ({ response }) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(JSON.stringify(body));
  };
};
interface ErrorBody {
  readonly error: { readonly code: string; readonly message: string; readonly nodes?: unknown };
}
const errorOf = async (answer: Response) => ((await answer.json()) as ErrorBody).error;

describe('every dialect works on both kinds of provider', () => {
  for (const [name, { path, body }] of Object.entries(dialects)) {
    for (const model of ['gpt', 'claude']) {
      test(`${name} on ${model}, whole and streamed, with usage in the metrics`, async () => {
        const { gateway } = await setUpProviders();
        const whole = await ask(gateway, path, { ...body(model), stream: false });
        const text = await whole.text();
        assert.equal(whole.status, 200, text);
        assert.match(text, /from afar/);
        assert.match(whole.headers.get('x-cortex-route') ?? '', /^node=far-\w+; last resort: /);
        const streamed = await ask(gateway, path, { ...body(model), stream: true });
        assert.equal(streamed.status, 200);
        const stream = await streamed.text();
        assert.match(stream, /fro[\s\S]*ar/);
        assert.match(stream, /\[DONE\]|message_stop|response\.completed|"done":true/);
        const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
        const node = model === 'gpt' ? 'far-openai' : 'far-anthropic';
        assert.match(metrics, new RegExp(`node="${node}"`));
        assert.doesNotMatch(metrics, /protocol_errors_total\{/);
      });
    }
  }

  test('completions and embeddings reach an OpenAI provider, and are refused for the other', async () => {
    const { gateway, openai } = await setUpProviders();
    const embedded = await ask(gateway, '/v1/embeddings', { model: 'gpt', input: 'a' });
    assert.equal(embedded.status, 200);
    assert.deepEqual(
      [openai.calls[0]?.path, openai.calls[0]?.body.model],
      ['/v1/embeddings', 'vendor/gpt-1'],
    );
    const refused = await ask(gateway, '/v1/embeddings', { model: 'claude', input: 'a' });
    assert.deepEqual([refused.status, (await errorOf(refused)).code], [400, 'wrong_modality']);
  });
});

describe('what a provider gets', () => {
  test("an OpenAI client's bytes but for the model; fields of neurons are left out", async () => {
    const { gateway, openai } = await setUpProviders();
    const raw = '{ "messages": [ {"role":"user", "content":"h\\u0069"} ],  "model" : "gpt", "seed": 1.0 }';
    await (await fetch(gateway.url + chatPath, { method: 'POST', body: raw })).text();
    assert.equal(openai.calls[0]?.raw.toString(), raw.replace('"gpt"', '"vendor/gpt-1"'));
    await ask(gateway, chatPath, chat('gpt', { chat_template_kwargs: { a: 1 }, cortex_x: 1, top_k: 3 }));
    assert.deepEqual(Object.keys(openai.calls[1]?.body ?? {}).sort(), ['messages', 'model', 'top_k']);
    await (await ask(gateway, '/v1/messages', { ...dialects.messages.body('gpt'), stream: true })).text();
    assert.deepEqual(openai.calls[2]?.body.stream_options, { include_usage: true });
  });

  test('a vendor that refuses more fields gets them not, and its own name of the limit', async () => {
    const { gateway, openai } = await setUpProviders({
      openai: { drop_fields: ['top_k'], max_tokens_field: 'max_completion_tokens' },
    });
    await ask(gateway, '/v1/messages', { ...dialects.messages.body('gpt'), top_k: 4 });
    const { top_k, max_tokens, max_completion_tokens } = openai.calls[0]?.body ?? {};
    assert.deepEqual([top_k, max_tokens, max_completion_tokens], [undefined, undefined, 50]);
  });

  test('tools and their results as Anthropic wants them, and its calls as OpenAI does', async () => {
    const { gateway, anthropic } = await setUpProviders();
    const blocks: FakeBlock[] = [
      { type: 'thinking', thinking: 'hm, look', signature: 'sig' },
      { type: 'text', text: 'I look' },
      { type: 'tool_use', id: 'toolu_1', name: 'look', input: { at: 'é' } },
      { type: 'tool_use', id: 'toolu_2', name: 'list', input: {} },
    ];
    anthropic.onCall = ({ body, response }) => {
      if (body.stream === true) sendStream(response, messageStream(blocks, 'tool_use'));
      else sendJson(messageOf(blocks, 'tool_use'))({ body, response } as never);
    };
    const call = { id: 'a.b', type: 'function', function: { name: 'look', arguments: '{"at":1}' } };
    const request = {
      model: 'claude',
      messages: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'go' },
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', tool_call_id: 'a.b', content: 'seen' },
        { role: 'user', content: 'and now?' },
      ],
      tools: [
        { type: 'function', function: { name: 'look', description: 'd', parameters: { type: 'object' } } },
      ],
      tool_choice: 'required',
      parallel_tool_calls: false,
      stop: ['END'],
      max_completion_tokens: 99,
    };
    const whole = (await (await ask(gateway, chatPath, request)).json()) as {
      choices: { message: Record<string, unknown>; finish_reason: string }[];
      usage: Record<string, unknown>;
    };
    assert.deepEqual(anthropic.calls[0]?.body, {
      model: 'claude-far',
      max_tokens: 99,
      system: 'be brief',
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'go' }] },
        { role: 'assistant', content: [{ type: 'tool_use', id: 'a_b', name: 'look', input: { at: 1 } }] },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'a_b', content: [{ type: 'text', text: 'seen' }] },
            { type: 'text', text: 'and now?' },
          ],
        },
      ],
      stop_sequences: ['END'],
      tools: [{ name: 'look', description: 'd', input_schema: { type: 'object' } }],
      tool_choice: { type: 'any', disable_parallel_tool_use: true },
    });
    const [choice] = whole.choices;
    assert.equal(choice?.finish_reason, 'tool_calls');
    assert.equal(choice?.message.reasoning_content, 'hm, look');
    assert.deepEqual(choice?.message.tool_calls, [
      { id: 'toolu_1', type: 'function', function: { name: 'look', arguments: '{"at":"é"}' } },
      { id: 'toolu_2', type: 'function', function: { name: 'list', arguments: '{}' } },
    ]);
    assert.deepEqual([whole.usage.prompt_tokens, whole.usage.completion_tokens], [10, 5]);
    const stream = await (await ask(gateway, chatPath, { ...request, stream: true })).text();
    assert.match(stream, /"finish_reason":"tool_calls"/);
    assert.match(stream, /"prompt_tokens":10/);
    const responses = await (
      await ask(gateway, '/v1/responses', { model: 'claude', input: 'go', stream: true })
    ).text();
    assert.match(responses, /"type":"function_call".*"name":"look"/);
    assert.match(responses, /response\.completed/);
  });

  test('thinking is asked for where a chat client asks for effort, and left out where it cannot be', async () => {
    const { gateway, anthropic } = await setUpProviders();
    const bodyOf = async (more: object) => {
      await (
        await ask(gateway, chatPath, chat('claude', { max_tokens: 5000, temperature: 1.5, ...more }))
      ).text();
      const { thinking, temperature } = anthropic.calls.at(-1)?.body ?? {};
      return [thinking, temperature];
    };
    assert.deepEqual(await bodyOf({}), [undefined, 1]);
    assert.deepEqual(await bodyOf({ reasoning_effort: 'low' }), [
      { type: 'enabled', budget_tokens: 2048 },
      undefined,
    ]);
    assert.deepEqual(await bodyOf({ reasoning_effort: 'high' }), [
      { type: 'enabled', budget_tokens: 4999 },
      undefined,
    ]);
    assert.deepEqual(await bodyOf({ reasoning_effort: 'low', max_tokens: 500 }), [undefined, 1]);
    assert.deepEqual(await bodyOf({ reasoning_effort: 'none' }), [undefined, 1]);
  });

  test("an Anthropic client's bytes, signatures and betas at an Anthropic provider, and its answer back", async () => {
    const { gateway, anthropic } = await setUpProviders();
    const blocks: FakeBlock[] = [
      { type: 'thinking', thinking: 'hm', signature: 'far-signature' },
      { type: 'text', text: 'so' },
    ];
    const stream = messageStream(blocks);
    anthropic.onCall = ({ body, response }) => {
      if (body.stream === true) sendStream(response, stream);
      else sendJson(messageOf(blocks))({ body, response } as never);
    };
    const thinking = { type: 'thinking', thinking: 'old', signature: 'old-signature' };
    const messages = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: [thinking, { type: 'text', text: 'b' }] },
      { role: 'user', content: 'c' },
    ];
    const raw = JSON.stringify({ model: 'claude', max_tokens: 50, stream: true, messages }, null, 1);
    const headers = {
      'anthropic-version': '2023-06-01',
      'anthropic-beta': 'x-1,y-2',
      'x-api-key': 'client-key',
    };
    const answer = await fetch(`${gateway.url}/v1/messages?beta=true`, {
      method: 'POST',
      body: raw,
      headers,
    });
    assert.equal(await answer.text(), stream);
    const [call] = anthropic.calls;
    assert.equal(call?.raw.toString(), raw.replace('"claude"', '"claude-far"'));
    assert.deepEqual([call?.headers['anthropic-beta'], call?.headers['x-api-key']], ['x-1,y-2', key]);
    const whole = await ask(gateway, '/v1/messages', { model: 'claude', max_tokens: 50, messages }, headers);
    assert.deepEqual(await whole.json(), messageOf(blocks));
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(metrics, /far-anthropic.* 20$/m);
  });
});

describe('credentials never cross', () => {
  const secrets = {
    authorization: 'Bearer client-secret',
    'x-api-key': 'client-secret',
    'api-key': 'client-secret',
    cookie: 'a=client-secret',
    'x-custom': 'client-secret',
    'openai-organization': 'client-secret',
    'proxy-authorization': 'client-secret',
  };

  for (const [name, { path, body }] of Object.entries(dialects)) {
    for (const model of ['gpt', 'claude']) {
      test(`${name} on ${model}: the client's not to the provider, the provider's not to the client`, async () => {
        const lines: unknown[] = [];
        const note = (...args: unknown[]): void => void lines.push(args);
        const log = { debug: note, info: note, warn: note, error: note, child: () => log } as unknown as Log;
        const { gateway, openai, anthropic } = await setUpProviders({ log });
        const provider = model === 'gpt' ? openai : anthropic;
        const usual = provider.onCall;
        const leaky = {
          'set-cookie': `k=${key}`,
          'x-api-key': key,
          authorization: key,
          'x-request-id': 'far',
        };
        const answers: Response[] = [];
        provider.onCall = (call) => {
          for (const [header, value] of Object.entries(leaky)) call.response.setHeader(header, value);
          return usual(call);
        };
        for (const stream of [false, true]) {
          answers.push(await ask(gateway, path, { ...body(model), stream }, secrets));
        }
        for (const status of [400, 401, 403, 429, 500]) {
          provider.onCall = sendJson(
            { type: 'error', error: { type: 'x', message: `no: ${key}` } },
            status,
            leaky,
          );
          answers.push(await ask(gateway, path, { ...body(model), stream: false }, secrets));
        }
        for (const answer of answers) {
          const told = JSON.stringify([...answer.headers]) + (await answer.text());
          assert.doesNotMatch(told, new RegExp(key));
          assert.notEqual(answer.status, 401);
          assert.notEqual(answer.status, 403);
        }
        assert.ok(provider.calls.length >= 4);
        for (const call of provider.calls) {
          assert.doesNotMatch(JSON.stringify(call.headers), /client-secret|x-cortex|x-forwarded|x-custom/);
          const sent = model === 'gpt' ? call.headers.authorization : call.headers['x-api-key'];
          assert.equal(sent, model === 'gpt' ? `Bearer ${key}` : key);
        }
        const seen = await Promise.all(
          ['/health', '/v1/models', '/admin/fleet', `/admin/explain?model=${model}`].map(async (at) =>
            (await fetch(gateway.url + at)).text(),
          ),
        );
        const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
        assert.doesNotMatch([...seen, metrics, JSON.stringify(lines)].join(), new RegExp(key));
      });
    }
  }

  test("a neuron never gets a provider's key, and a redirect is not followed", async () => {
    const { gateway, openai, anthropic, neurons } = await setUpProviders({
      neurons: [{ models: [{ id: 'm', status: 'loaded' }] }],
    });
    await ask(gateway, chatPath, chat('m'));
    assert.doesNotMatch(JSON.stringify(neurons[0]?.chats[0]?.headers), new RegExp(key));
    openai.onCall = ({ response }) => {
      response.writeHead(307, { location: `${anthropic.url}/v1/messages` });
      response.end();
    };
    const answer = await ask(gateway, chatPath, chat('gpt'));
    assert.equal(answer.status, 502);
    assert.match((await errorOf(answer)).message, /redirects/);
    assert.equal(anthropic.calls.length, 0);
  });
});

describe('last resort', () => {
  const shared = { models: [{ id: 'm', upstream: 'far-m' }] };
  const loaded = { models: [{ id: 'm', status: 'loaded' as const }] };

  test('a node that serves the model is asked, and the provider is not', async () => {
    const { gateway, openai } = await setUpProviders({ neurons: [loaded], openai: shared });
    assert.match(await (await ask(gateway, chatPath, chat('m'))).text(), /Hello world/);
    assert.equal(openai.calls.length, 0);
    const explained = (await (await fetch(`${gateway.url}/admin/explain?model=m`)).json()) as {
      node: string;
      candidates: { node: string; verdict: string; state: string }[];
    };
    assert.equal(explained.node, 'n0');
    assert.deepEqual(
      explained.candidates.map(({ node, verdict, state }) => [node, verdict, state]),
      [
        ['n0', 'chosen', 'ready'],
        ['far-openai', 'lost', 'hosted'],
      ],
    );
  });

  test('a node that fails before its first byte, or breaks off, hands over to the provider', async () => {
    const { gateway, neurons } = await setUpProviders({ neurons: [loaded], openai: shared });
    const [neuron] = neurons;
    assert.ok(neuron);
    neuron.onChat = ({ response }) => void response.destroy();
    for (const stream of [false, true]) {
      const answer = await ask(gateway, chatPath, chat('m', { stream }));
      assert.match(await answer.text(), /from[\s\S]*afar/);
      assert.match(answer.headers.get('x-cortex-route') ?? '', /far-openai; last resort/);
    }
    neuron.onChat = sendJson({ error: { code: 'overloaded', message: 'full' } }, 503) as never;
    assert.match(await (await ask(gateway, chatPath, chat('m'))).text(), /from afar/);
  });

  test('a model that fits nowhere, or that no node can load, is asked of the provider', async () => {
    const { gateway, neurons } = await setUpProviders({
      neurons: [{ devices: [1000], models: [{ id: 'cold', vramMb: 500 }] }],
      models: { models: [{ id: 'big', vram_mb: 90_000 }] },
      openai: { models: ['big', 'cold'] },
    });
    assert.match(await (await ask(gateway, chatPath, chat('big'))).text(), /from afar/);
    const [neuron] = neurons;
    assert.ok(neuron);
    neuron.onLoad = () => ({ status: 422, code: 'invalid_model_file', message: 'broken' }) as never;
    assert.match(await (await ask(gateway, chatPath, chat('cold'))).text(), /from afar/);
    assert.equal(neuron.counters.loads, 1);
  });

  test('a request waits for the load by default, and goes to the provider after after_wait_secs', async () => {
    for (const after of [undefined, 0.05]) {
      const { gateway, neurons } = await setUpProviders({
        neurons: [{ models: [{ id: 'm' }] }],
        openai: { ...shared, ...(after === undefined ? {} : { after_wait_secs: after }) },
      });
      const [neuron] = neurons;
      assert.ok(neuron);
      const gate = createGate();
      neuron.onLoad = async () => {
        await gate.opened;
        return undefined;
      };
      const asked = ask(gateway, chatPath, chat('m')).then((answer) => answer.text());
      await neuron.until(() => neuron.counters.loads === 1);
      if (after === undefined) gate.open();
      assert.match(await asked, after === undefined ? /Hello world/ : /from afar/);
      assert.equal(gateway.fleet.waitingCount, 0);
      // the load that was begun goes on, and the node serves from then on
      gate.open();
      await neuron.until(() => neuron.models.get('m')?.status === 'loaded');
      assert.match(await (await ask(gateway, chatPath, chat('m'))).text(), /Hello world|from afar/);
      assert.equal(neuron.counters.loads, 1);
    }
  });

  test('a wait ends at a provider that says so, and not at one that does not', async () => {
    const { gateway, neurons, openai, anthropic } = await setUpProviders({
      neurons: [{ models: [{ id: 'm' }] }],
      openai: shared,
      anthropic: { models: ['m'], after_wait_secs: 0 },
    });
    const [neuron] = neurons;
    assert.ok(neuron);
    const gate = createGate();
    neuron.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    assert.match(await (await ask(gateway, chatPath, chat('m'))).text(), /from afar/);
    assert.deepEqual([openai.calls.length, anthropic.calls.length], [0, 1]);
    gate.open();
    await neuron.until(() => neuron.models.get('m')?.status === 'loaded');
  });

  test('an answer that broke off in the middle is never gone on with by a provider', async () => {
    const { gateway, neurons, openai } = await setUpProviders({ neurons: [loaded], openai: shared });
    const [neuron] = neurons;
    assert.ok(neuron);
    neuron.onChat = (call) => {
      call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      const piece = { id: 'c', choices: [{ index: 0, delta: { content: 'half' }, finish_reason: null }] };
      call.response.write(`data: ${JSON.stringify(piece)}\n\n`, () => call.response.destroy());
    };
    const text = await (await ask(gateway, chatPath, chat('m', { stream: true }))).text();
    assert.match(text, /half/);
    assert.match(text, /"error"/);
    assert.equal(openai.calls.length, 0);
  });

  test('the second provider of a model answers while the first rests', async () => {
    const { gateway, openai, anthropic } = await setUpProviders({
      openai: shared,
      anthropic: { models: [{ id: 'm', upstream: 'claude-far' }] },
    });
    openai.onCall = sendJson({ error: { message: 'slow down' } }, 429, { 'retry-after': '60' });
    assert.match(await (await ask(gateway, chatPath, chat('m'))).text(), /from afar/);
    assert.match(await (await ask(gateway, chatPath, chat('m'))).text(), /from afar/);
    assert.deepEqual([openai.calls.length, anthropic.calls.length], [1, 2]);
  });

  test('an alias of a hosted model works, with its options', async () => {
    const { gateway, openai } = await setUpProviders({
      models: { aliases: { fast: { model: 'gpt', options: { temperature: 0.25 } } } },
    });
    assert.equal((await ask(gateway, chatPath, chat('fast'))).status, 200);
    assert.deepEqual(
      [openai.calls[0]?.body.model, openai.calls[0]?.body.temperature],
      ['vendor/gpt-1', 0.25],
    );
  });
});

describe('what a client hears when a provider fails', () => {
  test('status, code and Retry-After, in words that name the provider', async () => {
    for (const [status, body, headers, wanted] of [
      [
        400,
        { error: { message: 'bad temperature', param: 'temperature' } },
        {},
        [400, 'invalid_request', /bad temp/],
      ],
      [
        400,
        { error: { message: 'x', code: 'context_length_exceeded' } },
        {},
        [400, 'context_length_exceeded', /x/],
      ],
      [401, { error: { message: 'who?' } }, {}, [502, 'upstream_connection_error', /far-openai.*FAR_KEY/]],
      [403, {}, {}, [502, 'upstream_connection_error', /FAR_KEY/]],
      [402, {}, {}, [502, 'upstream_connection_error', /no credit/]],
      [404, {}, {}, [502, 'upstream_connection_error', /vendor\/gpt-1/]],
      [422, { error: { message: 'shape' } }, {}, [400, 'invalid_request', /shape/]],
      [429, { error: { message: 'slow' } }, { 'retry-after': '7' }, [429, 'rate_limit_exceeded', /slow/]],
      [500, '<html>', {}, [502, 'upstream_connection_error', /answered 500/]],
      [503, {}, { 'retry-after': '9' }, [503, 'overloaded', /far-openai/]],
      [529, { error: { message: 'busy' } }, {}, [503, 'overloaded', /busy/]],
      [504, {}, {}, [504, 'upstream_timeout', /far-openai/]],
    ] as const) {
      const { gateway, openai } = await setUpProviders();
      openai.onCall = sendJson(body, status, headers);
      const answer = await ask(gateway, chatPath, chat('gpt'));
      const { code, message } = await errorOf(answer);
      assert.deepEqual([answer.status, code], [wanted[0], wanted[1]], `${status}: ${message}`);
      assert.match(message, wanted[2]);
      const after = 'retry-after' in headers ? headers['retry-after'] : null;
      if (after !== null) assert.equal(answer.headers.get('retry-after'), after);
    }
  });

  test('while it asks to be left alone it is not asked, and the client is told for how long', async () => {
    const { gateway, openai } = await setUpProviders();
    openai.onCall = sendJson({ error: { message: 'slow' } }, 429, { 'retry-after': '60' });
    await ask(gateway, chatPath, chat('gpt'));
    const second = await ask(gateway, chatPath, chat('gpt'));
    assert.deepEqual([second.status, openai.calls.length], [429, 1]);
    assert.match(second.headers.get('retry-after') ?? '', /^(59|60)$/);
    assert.match((await errorOf(second)).message, /far-openai asks to be left alone: slow/);
  });

  test('a missing key puts it out of service, in health, listing, status and the answer', async () => {
    const lines: string[] = [];
    const note = (text: string): void => void lines.push(text);
    const log = { debug: note, info: note, warn: note, error: note, child: () => log } as unknown as Log;
    const { gateway, openai } = await setUpProviders({ env: {}, log });
    const answer = await ask(gateway, chatPath, chat('gpt'));
    assert.equal(answer.status, 503);
    assert.match((await errorOf(answer)).message, /far-openai has no key: .*FAR_KEY is not set/);
    assert.equal(openai.calls.length, 0);
    assert.ok(lines.some((line) => /far-openai has no key/.test(line)));
    for (const path of ['/health', '/v1/models/gpt', '/admin/fleet', '/admin/explain?model=gpt']) {
      assert.match(await (await fetch(gateway.url + path)).text(), /FAR_KEY is not set/, path);
    }
  });

  test('what is no answer becomes an error, streamed or whole, and never an answer', async () => {
    for (const model of ['gpt', 'claude']) {
      const { gateway, openai, anthropic } = await setUpProviders({
        openai: { rest_after_failures: 0 },
        anthropic: { rest_after_failures: 0 },
      });
      const provider = model === 'gpt' ? openai : anthropic;
      for (const text of [
        '',
        '<html>',
        '[]',
        '{}',
        'null',
        '{"error":{"message":"no"}}',
        '{"choices":1,"content":1}',
      ]) {
        provider.onCall = ({ response }) =>
          void response.writeHead(200, { 'content-type': 'application/json' }).end(text);
        for (const { path, body } of Object.values(dialects)) {
          const answer = await ask(gateway, path, { ...body(model), stream: false });
          assert.equal(answer.status, 502, `${model} ${path} ${text}`);
          await answer.text();
        }
        const streamed = await ask(gateway, chatPath, chat(model, { stream: true }));
        assert.equal(streamed.status, 502);
        await streamed.text();
        provider.onCall = ({ response }) => sendStream(response, text === '' ? '' : `data: ${text}\n\n`);
        for (const { path, body } of Object.values(dialects)) {
          const answer = await ask(gateway, path, { ...body(model), stream: true });
          const said = await answer.text();
          assert.match(said, /error|failed/, `${model} ${path} ${text}`);
          assert.doesNotMatch(said, /\[DONE\]|message_stop|response\.completed|"done":true/);
        }
      }
    }
  });

  test('a stream that is cut or fails in the middle ends in an error in every dialect', async () => {
    for (const model of ['gpt', 'claude']) {
      const { gateway, openai, anthropic } = await setUpProviders({
        openai: { rest_after_failures: 0 },
        anthropic: { rest_after_failures: 0 },
      });
      const provider = model === 'gpt' ? openai : anthropic;
      const piece = { id: 'c', choices: [{ index: 0, delta: { content: 'half' }, finish_reason: null }] };
      const begun =
        model === 'gpt'
          ? `data: ${JSON.stringify(piece)}\n\n`
          : messageStream([{ type: 'text', text: 'half' }]).replace(/event: message_delta[\s\S]*/, '');
      const failing =
        'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n';
      for (const [name, end] of [
        ['ended', ({ response }) => void response.end()],
        ['reset', ({ response }) => void response.destroy()],
        ['failed', ({ response }) => void response.end(failing)],
        ['failed, and holds on', ({ response }) => void response.write(failing)],
      ] as [string, FakeProvider['onCall']][]) {
        provider.onCall = async (call) => {
          call.response.writeHead(200, { 'content-type': 'text/event-stream' });
          if (name.includes('holds on')) call.response.write(begun);
          else await new Promise<void>((resolve) => call.response.write(begun, () => resolve()));
          await end(call);
        };
        for (const { path, body } of Object.values(dialects)) {
          const answer = await ask(gateway, path, { ...body(model), stream: true });
          const said = await answer.text().catch(() => '"error" cut');
          assert.match(said, /error|failed/, `${model} ${path} ${name}`);
          if (name !== 'reset') assert.match(said, /hal/, `${model} ${path} ${name}`);
          assert.doesNotMatch(
            said,
            /\[DONE\]|message_stop|response\.completed|"done":true/,
            `${model} ${path} ${name}`,
          );
        }
      }
    }
  });

  test('one that falls silent fails in time, and one that fails again and again rests', async () => {
    const { gateway, openai } = await setUpProviders({
      openai: { idle_timeout_secs: 0.05, rest_after_failures: 2 },
    });
    openai.onCall = () => {};
    for (const status of [504, 504, 503]) {
      const answer = await ask(gateway, chatPath, chat('gpt'));
      assert.equal(answer.status, status);
      await answer.text();
    }
    assert.equal(openai.calls.length, 2);
  });

  test('no more run there at once than may', async () => {
    const { gateway, openai } = await setUpProviders({ openai: { max_concurrent: 1 } });
    const gate = createGate();
    const usual = openai.onCall;
    const arrived = createGate();
    openai.onCall = async (call) => {
      arrived.open();
      await gate.opened;
      await usual(call);
    };
    const first = ask(gateway, chatPath, chat('gpt'));
    await arrived.opened;
    const second = await ask(gateway, chatPath, chat('gpt'));
    assert.deepEqual([second.status, (await errorOf(second)).code], [503, 'overloaded']);
    gate.open();
    assert.equal((await first).status, 200);
    assert.equal((await ask(gateway, chatPath, chat('gpt'))).status, 200);
  });

  test('a client that leaves ends the request there', async () => {
    const { gateway, openai } = await setUpProviders();
    const [arrived, left] = [createGate(), createGate()];
    openai.onCall = ({ response }) => {
      response.once('close', () => left.open());
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': hold\n\n');
      arrived.open();
    };
    const leaving = new AbortController();
    const body = JSON.stringify(chat('gpt', { stream: true }));
    const asked = fetch(gateway.url + chatPath, { method: 'POST', body, signal: leaving.signal });
    asked.then((answer) => answer.text()).catch(() => {});
    await arrived.opened;
    leaving.abort();
    await left.opened;
  });

  test('what a provider of the other kind cannot do is refused by name', async () => {
    const { gateway, anthropic } = await setUpProviders();
    for (const [more, param] of [
      [{ n: 2 }, 'n'],
      [{ logprobs: true }, 'logprobs'],
      [
        { messages: [{ role: 'user', content: [{ type: 'input_audio', input_audio: {} }] }] },
        'messages.0.content.0',
      ],
      [{ messages: [{ role: 'king', content: 'x' }] }, 'messages.0.role'],
      [{ messages: [] }, 'messages'],
    ] as const) {
      const answer = await ask(gateway, chatPath, chat('claude', more));
      const error = (await errorOf(answer)) as unknown as { param: string };
      assert.deepEqual([answer.status, error.param], [400, param]);
    }
    assert.equal(anthropic.calls.length, 0);
  });
});

describe('listing and reload', () => {
  test("a hosted model is listed as its provider's, a shared one as ours, and both are named", async () => {
    const { gateway } = await setUpProviders({
      neurons: [{ models: [{ id: 'm', status: 'loaded' }] }],
      openai: {
        models: ['m', { id: 'gpt', limit: { context: 9000, output: 500 }, capabilities: ['tools'] }],
      },
    });
    const { data } = (await (await fetch(`${gateway.url}/v1/models`)).json()) as {
      data: {
        id: string;
        owned_by: string;
        loaded: boolean;
        locations: { node: string }[];
        max_model_len?: number;
      }[];
    };
    assert.deepEqual(
      data.map(({ id, owned_by, loaded, locations }) => [
        id,
        owned_by,
        loaded,
        locations.map(({ node }) => node),
      ]),
      [
        ['claude', 'far-anthropic', true, ['far-anthropic']],
        ['gpt', 'far-openai', true, ['far-openai']],
        ['m', 'cortex', true, ['n0', 'far-openai']],
      ],
    );
    assert.equal(data[1]?.max_model_len, 9000);
    const health = (await (await fetch(`${gateway.url}/health`)).json()) as Record<string, unknown>;
    assert.deepEqual([health.status, health.providers], ['ok', { serving: 2, total: 2 }]);
    const long = await ask(
      gateway,
      chatPath,
      chat('gpt', { messages: [{ role: 'user', content: 'x'.repeat(80_000) }] }),
    );
    assert.equal((await errorOf(long)).code, 'context_length_exceeded');
  });

  test('a provider comes and goes with a reload; what runs there ends', async () => {
    const { gateway, openai, config } = await setUpProviders();
    const [gate, arrived] = [createGate(), createGate()];
    const usual = openai.onCall;
    openai.onCall = async (call) => {
      arrived.open();
      await gate.opened;
      await usual(call);
    };
    const running = ask(gateway, chatPath, chat('gpt'));
    await arrived.opened;
    const report = await gateway.reload(config([]), { models: [], aliases: {} } as never);
    assert.deepEqual(report.changed, ['providers.far-openai: removed', 'providers.far-anthropic: removed']);
    assert.equal((await ask(gateway, chatPath, chat('gpt'))).status, 503);
    gate.open();
    assert.equal((await running).status, 200);
    const fresh = { name: 'fresh', kind: 'openai', url: openai.url, models: ['gpt'] };
    await gateway.reload(config([fresh]), { models: [], aliases: {} } as never);
    assert.match(
      (await ask(gateway, chatPath, chat('gpt'))).headers.get('x-cortex-route') ?? '',
      /node=fresh/,
    );
    assert.equal(openai.calls.at(-1)?.headers.authorization, undefined);
  });

  test('a budget counts what a provider used', async () => {
    const keys = [{ key: 'k', account_id: 'a', hard_cap: 4990 }];
    const { gateway } = await setUpProviders({ config: { entitlements: { require_auth: true, keys } } });
    const headers = { authorization: 'Bearer k' };
    const more = { max_tokens: 4980 };
    assert.equal((await ask(gateway, chatPath, chat('claude', more), headers)).status, 200);
    const second = await ask(gateway, chatPath, chat('claude', more), headers);
    assert.equal((await errorOf(second)).code, 'insufficient_quota');
  });
});
