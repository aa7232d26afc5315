/** POST /v1/messages over real sockets: statuses, envelopes, headers, and what happens when things break. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import type { Log } from 'cortex-core/daemon/log';
import { silentLog } from 'cortex-core/daemon/log';
import { encodeFrame } from 'cortex-core/wire/token-frames';
import { chatStream, createGate, type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import { transcripts } from '../dialects/chat-transcripts.test.kit.ts';
import { AnthropicGrammar } from '../dialects/wire-grammar/anthropic-grammar.ts';
import { type Gateway, startGateway } from '../gateway.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function setup(
  more: object = {},
  rest: object = {},
  log: Log = silentLog,
): Promise<{ gateway: Gateway; neuron: FakeNeuron }> {
  const neuron = await startFakeNeuron({ models: [{ id: 'm', status: 'loaded', context: 4096 }] });
  const listen = { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 };
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...rest,
      gateway: { ...listen, ...more },
      neurons: [{ name: 'n', endpoint: neuron.url }],
    }),
    modelsConfigSchema.parse({}),
    { log },
  );
  cleanups.push(async () => {
    await neuron.close();
    await gateway.close();
  });
  return { gateway, neuron };
}

const ask = (more: object = {}): string =>
  JSON.stringify({ model: 'm', max_tokens: 9, messages: [{ role: 'user', content: 'hi' }], ...more });

interface Refused {
  readonly status: number;
  readonly headers: Headers;
  readonly body: {
    readonly type: string;
    readonly error: { readonly type: string; readonly message: string; readonly code: string };
    readonly request_id: string;
  };
}

async function refused(
  gateway: Gateway,
  body: string | Uint8Array,
  init: RequestInit = {},
  path = '/v1/messages',
) {
  const method = { method: 'POST', body: body as string };
  const answer = await fetch(gateway.url + path, { ...method, ...init });
  const { status, headers } = answer;
  const refusal: Refused = { status, headers, body: (await answer.json()) as Refused['body'] };
  assert.equal(refusal.body.type, 'error');
  assert.equal(refusal.body.request_id, headers.get('request-id'));
  assert.equal(headers.get('x-request-id'), headers.get('request-id'));
  return refusal;
}

describe("errors come in Anthropic's envelope with its types", () => {
  test('of the request: 400, 401, 404, 405, 413', async () => {
    const { gateway } = await setup({ max_body_mb: 1 });
    const typeOf = async (...args: [string | Uint8Array, RequestInit?, string?]) => {
      const { status, body } = await refused(gateway, ...args);
      return [status, body.error.type];
    };
    const deep = `{"model":"m","max_tokens":9,"messages":${'['.repeat(1000)}${']'.repeat(1000)}}`;
    const invalidUtf8 = Buffer.concat([
      Buffer.from(ask().slice(0, -1)),
      Buffer.from(',"x":"'),
      Buffer.of(0xff, 0xc3),
      Buffer.from('"}'),
    ]);
    for (const body of ['', '{', 'null', '[]', 'hello', deep, invalidUtf8, '{"model":"m"}']) {
      assert.deepEqual(await typeOf(body), [400, 'invalid_request_error'], String(body).slice(0, 30));
    }
    assert.deepEqual(await typeOf(ask({ model: 'nope' })), [404, 'not_found_error']);
    assert.deepEqual(await typeOf('x'.repeat(2 ** 21)), [413, 'request_too_large']);
    assert.deepEqual(await typeOf(ask(), {}, '/v1/messages/nowhere'), [404, 'not_found_error']);
    assert.deepEqual(await typeOf(ask(), {}, '/messages/batches/x?beta=true'), [404, 'not_found_error']);
    assert.deepEqual(await typeOf(ask(), { method: 'PUT' }), [405, 'invalid_request_error']);
    const closed = await setup(
      {},
      { entitlements: { require_auth: true, keys: [{ key: 'k', account_id: 'a' }] } },
    );
    const denied = await refused(closed.gateway, ask());
    assert.deepEqual([denied.status, denied.body.error.type], [401, 'authentication_error']);
  });

  test('of the gateway itself: 429 and 503 with Retry-After, streamed or not', async () => {
    const keys = [{ key: 'k', account_id: 'a', hard_cap: 20, window: { kind: 'rolling', seconds: 600 } }];
    const spent = await setup({}, { entitlements: { keys } });
    const headers = { 'x-api-key': 'k' };
    const first = await fetch(`${spent.gateway.url}/v1/messages`, { method: 'POST', body: ask(), headers });
    assert.equal(first.status, 200);
    await first.text();
    const gone = await setup();
    await gone.neuron.close();
    for (let poll = 0; poll < 3; poll++) await gone.gateway.fleet.pollNow('n');
    for (const stream of [false, true]) {
      const limited = await refused(spent.gateway, ask({ stream }), { headers });
      assert.deepEqual([limited.status, limited.body.error.type], [429, 'rate_limit_error']);
      assert.match(limited.headers.get('retry-after') ?? '', /^[1-9]\d{0,2}$/);
      const down = await refused(gone.gateway, ask({ stream }));
      assert.deepEqual([down.status, down.body.error.type], [503, 'overloaded_error']);
      assert.ok(Number(down.headers.get('retry-after')) > 0);
    }
  });

  test('a prompt that is too long says both numbers, as agents read them', async () => {
    const { gateway, neuron } = await setup();
    const long = [{ role: 'user', content: 'x'.repeat(40_000) }];
    const { status, body } = await refused(gateway, ask({ messages: long }));
    assert.equal(status, 400);
    assert.match(body.error.message, /^prompt is too long: \d+ tokens > 4096 maximum$/);
    assert.equal(neuron.counters.chats, 0);
  });

  test('one that only the neuron finds too long says them too, streamed or not', async () => {
    const { gateway, neuron } = await setup();
    const message =
      "This model's maximum context length is 4096 tokens. However, your messages resulted in at least 4100 tokens. " +
      'Please reduce the length of the messages.';
    neuron.onChat = ({ response }) => {
      response.writeHead(400, { 'content-type': 'application/json' });
      const error = { message, code: 'context_length_exceeded', type: 'invalid_request_error', param: null };
      response.end(JSON.stringify({ error }));
    };
    for (const stream of [false, true]) {
      const { status, body } = await refused(gateway, ask({ stream }));
      assert.deepEqual([status, body.error.type], [400, 'invalid_request_error']);
      assert.equal(body.error.message, 'prompt is too long: 4100 tokens > 4096 maximum');
    }
  });

  test('of the neuron: status, code, message and Retry-After survive, and the fault is in the right envelope', async () => {
    const { gateway, neuron } = await setup();
    for (const [status, code, type, expected] of [
      [400, 'invalid_request', 'invalid_request_error', 400],
      [400, 'vision_unsupported', 'invalid_request_error', 400],
      [413, 'prompt_too_long_for_vram', 'request_too_large', 413],
      [422, 'template_render_failed', 'invalid_request_error', 422],
      [429, 'rate_limit_exceeded', 'rate_limit_error', 429],
      [500, 'job_failed', 'api_error', 500],
      [503, 'overloaded', 'overloaded_error', 503],
      [529, 'anything', 'overloaded_error', 503],
      [504, 'upstream_timeout', 'timeout_error', 504],
      [401, 'invalid_api_key', 'api_error', 502],
    ] as const) {
      neuron.onChat = ({ response }) => {
        response.writeHead(status, { 'content-type': 'application/json', 'retry-after': '7' });
        response.end(JSON.stringify({ error: { message: 'so it is', code, type: 'x', param: null } }));
      };
      for (const stream of [false, true]) {
        const refusal = await refused(gateway, ask({ stream }), { headers: { 'x-request-id': 'mine-1' } });
        assert.deepEqual([refusal.status, refusal.body.error.type], [expected, type], `${status} ${code}`);
        if (status !== 529 && status !== 401) assert.equal(refusal.body.error.code, code);
        assert.equal(refusal.body.error.message, 'so it is');
        assert.equal(refusal.headers.get('retry-after'), '7');
        assert.equal(refusal.headers.get('request-id'), 'mine-1');
      }
    }
  });

  test('half a call of an answer that says it is whole: no call, and the node is not left for it', async () => {
    const { gateway, neuron } = await setup();
    const call = { index: 0, id: 'c', function: { name: 'rm', arguments: '{"path":"/home' } };
    const choice = { index: 0, finish_reason: 'tool_calls' };
    const said = (fields: object): string => JSON.stringify({ id: 'x', choices: [{ ...choice, ...fields }] });
    neuron.onChat = ({ body, headers, response }) => {
      const isStream = (JSON.parse(body.toString()) as { stream?: boolean }).stream === true;
      response.writeHead(200, { 'content-type': isStream ? 'text/event-stream' : 'application/json' });
      const event = `data: ${said({ delta: { tool_calls: [call] } })}\n\n`;
      const framed = headers['x-cortex-tokens'] === 'tell' ? encodeFrame(event, [1]) : event;
      response.end(isStream ? framed : said({ message: { content: null, tool_calls: [call] } }));
    };
    const whole = await refused(gateway, ask());
    assert.deepEqual([whole.status, whole.body.error.code], [502, 'upstream_malformed_response']);
    assert.match(whole.body.error.message, /"rm"/);
    const streamed = await fetch(`${gateway.url}/v1/messages`, {
      method: 'POST',
      body: ask({ stream: true }),
    });
    const text = await streamed.text();
    assert.match(text, /event: error\n.*a call of \\"rm/);
    assert.doesNotMatch(text, /content_block_stop|message_stop/);
    assert.equal(neuron.counters.chats, 2);
    assert.equal(gateway.fleet.facts.isHealthy('n'), true);
  });

  test('a fault of the request is no fault of the node', async () => {
    const { gateway, neuron } = await setup();
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AA' } };
    const { status, body } = await refused(gateway, ask({ messages: [{ role: 'user', content: [image] }] }));
    assert.deepEqual([status, body.error.code], [400, 'vision_unsupported']);
    assert.match(body.error.message, /^messages\.0\.content\.0: /);
    assert.equal(neuron.counters.chats, 0);
    assert.equal(gateway.fleet.facts.isHealthy('n'), true);
    assert.equal((await fetch(`${gateway.url}/v1/messages`, { method: 'POST', body: ask() })).status, 200);
  });
});

test('whatever the content-type, the query, the betas and the path, a message is a message', async () => {
  const { gateway } = await setup();
  for (const path of ['/v1/messages', '/messages', '/v1/v1/messages', '/v1/messages?beta=true']) {
    for (const type of ['application/json', 'text/plain', 'application/x-www-form-urlencoded']) {
      const headers = {
        'content-type': type,
        'anthropic-beta': 'a-2099-01-01,b',
        'anthropic-version': '1999-01-01',
      };
      const answer = await fetch(gateway.url + path, { method: 'POST', body: ask(), headers });
      assert.equal(answer.status, 200);
      assert.equal(((await answer.json()) as { type: string }).type, 'message');
    }
  }
});

test('what the neuron gets, and what the route says, when a prompt was normalized', async () => {
  const { gateway, neuron } = await setup();
  const system = [
    { type: 'text', text: 'x-anthropic-billing-header: cch=1;' },
    { type: 'text', text: 'Be brief.' },
  ];
  const answer = await fetch(`${gateway.url}/v1/messages`, { method: 'POST', body: ask({ system }) });
  assert.match(answer.headers.get('x-cortex-route') ?? '', /^node=n; prefix=normalized; ./);
  const [first] = JSON.parse(neuron.chats[0]!.body.toString()).messages;
  assert.deepEqual(first, { role: 'system', content: 'Be brief.' });
  const off = await setup({ prefix_hygiene: false });
  const plain = await fetch(`${off.gateway.url}/v1/messages`, { method: 'POST', body: ask({ system }) });
  assert.doesNotMatch(plain.headers.get('x-cortex-route') ?? '', /prefix=/);
  assert.match(off.neuron.chats[0]!.body.toString(), /billing-header/);
});

describe('streams', () => {
  test('carry the ids of their request in the headers, and in the error that ends one', async () => {
    const { gateway, neuron } = await setup();
    const open = (headers: Record<string, string> = {}) =>
      fetch(`${gateway.url}/v1/messages`, { method: 'POST', body: ask({ stream: true }), headers });
    const fresh = await open();
    assert.match(fresh.headers.get('request-id') ?? '', /^req_/);
    assert.equal(fresh.headers.get('request-id'), fresh.headers.get('x-request-id'));
    await fresh.arrayBuffer();
    neuron.onChat = ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`data: ${JSON.stringify({ id: 'c', choices: [{ delta: { content: 'a' } }] })}\n\n`);
      response.end('data: {"error":{"code":"job_failed","message":"no","type":"server_error"}}\n\n');
    };
    const broken = await open({ 'x-request-id': 'mine-2' });
    assert.equal(broken.headers.get('request-id'), 'mine-2');
    const [, error] = /event: error\ndata: (.*)\n/.exec(await broken.text()) ?? [];
    assert.equal(JSON.parse(error ?? '{}').request_id, 'mine-2');
  });

  test('are pinged through every silence: before the first token, and again in the middle of a block', async () => {
    const { gateway, neuron } = await setup({ keepalive_secs: 0.01, stream_check_every: 1 });
    const words = chatStream('m', ['Hello', ' world']);
    const middle = words.indexOf('\n\n', words.indexOf('Hello')) + 2;
    const gates = [createGate(), createGate()] as const;
    neuron.onChat = async ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      await gates[0].opened;
      response.write(words.slice(0, middle));
      await gates[1].opened;
      response.end(words.slice(middle));
    };
    const answer = await fetch(`${gateway.url}/v1/messages`, { method: 'POST', body: ask({ stream: true }) });
    let text = '';
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      const pings = (text.match(/^event: ping$/gm) ?? []).length;
      const isBegun = text.includes('event: content_block_start');
      if (!isBegun && pings >= 2) gates[0].open();
      // two more, behind what the open block has
      if (/content_block_delta.*event: ping.*event: ping/s.test(text)) gates[1].open();
    }
    const grammar = new AnthropicGrammar();
    grammar.push(Buffer.from(text));
    assert.equal(grammar.end(), null);
    assert.match(text, /event: ping.*event: content_block_start.*event: ping.*event: message_stop/s);
  });

  test('keep their grammar over sockets, whole and where the neuron dies, and the end is never false', async () => {
    const { gateway, neuron } = await setup({ stream_check_every: 1 });
    for (const { name, bytes, wholeFrom } of transcripts) {
      for (const cut of [bytes.length, wholeFrom - 20, 120, 0]) {
        neuron.onChat = ({ response }) => {
          response.writeHead(200, { 'content-type': 'text/event-stream' });
          response.write(': begun\n\n');
          response.write(bytes.subarray(0, cut), () =>
            cut === bytes.length ? response.end() : response.destroy(),
          );
        };
        const answer = await fetch(`${gateway.url}/v1/messages`, {
          method: 'POST',
          body: ask({ stream: true }),
        });
        const text = Buffer.from(await answer.arrayBuffer());
        const grammar = new AnthropicGrammar();
        grammar.push(text);
        assert.equal(grammar.end(), null, `${name}, cut at ${cut}`);
        assert.equal(text.includes('message_stop'), cut === bytes.length, `${name}, cut at ${cut}`);
      }
    }
    const scraped = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.doesNotMatch(scraped, /^cortex_stream_protocol_errors_total\{/m);
  });

  test('that break their grammar are counted and logged by rule, without their content', async () => {
    const lines: string[] = [];
    const note = (message: string, fields: object = {}) =>
      void lines.push(`${message} ${JSON.stringify(fields)}`);
    const log = { ...silentLog, error: note } as Log;
    const { gateway, neuron } = await setup({ stream_check_every: 2 }, {}, log);
    neuron.onChat = ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(
        'data: {"id":"a","object":"chat.completion.chunk","model":"m","secret":"words"}\n\ndata: [DONE]\n\n',
      );
    };
    const body = { model: 'm', messages: [{ role: 'user', content: 'hi' }], stream: true };
    for (let call = 0; call < 8; call++) {
      // what is no stream is not counted as one
      const each = JSON.stringify({ ...body, stream: call % 2 === 0 });
      await (await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: each })).text();
    }
    const scraped = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(scraped, /^cortex_stream_protocol_errors_total\{dialect="chat",rule="no_choices"\} 2$/m);
    const said = lines.filter((line) => line.includes('"rule":"no_choices"'));
    assert.equal(said.length, 2);
    assert.ok(!lines.join('').includes('words'));
  });
});
