import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import {
  answerWords,
  type ChatCall,
  createGate,
  type FakeNeuron,
  startFakeNeuron,
} from 'testkit/fake-neuron';
import type { z } from 'zod';
import { faultOfResponse } from '../dialects/wire-grammar/responses-grammar.ts';
import { checkResponsesStream } from '../dialects/wire-grammar/responses-stream.test.kit.ts';
import { type Gateway, startGateway } from '../gateway.ts';

/** Of a response, an error or a list: whatever a test looks at. */
interface Json {
  readonly id: string;
  readonly store: boolean;
  readonly usage: unknown;
  readonly previous_response_id: string | null;
  readonly output: readonly { readonly content: readonly { readonly text: string }[] }[];
  readonly data: readonly { readonly content: readonly { readonly text: string }[] }[];
  readonly error: { readonly code: string; readonly message: string; readonly param: string };
}

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function setup(
  config: z.input<typeof cortexConfigSchema> = {},
  status: 'loaded' | 'available' = 'loaded',
): Promise<{ gateway: Gateway; neuron: FakeNeuron }> {
  const neuron = await startFakeNeuron({ models: [{ id: 'm', status, context: 4096 }] });
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...config,
      gateway: {
        listen: '127.0.0.1:0',
        metrics_listen: '127.0.0.1:0',
        poll_interval_secs: 3600,
        ...config.gateway,
      },
      neurons: [{ name: 'n', endpoint: neuron.url }],
    }),
    modelsConfigSchema.parse({}),
    { log: silentLog },
  );
  cleanups.push(async () => {
    await neuron.close();
    await gateway.close();
  });
  return { gateway, neuron };
}

const as = (key: string): RequestInit => ({ headers: { authorization: `Bearer ${key}` } });
const post = (gateway: Gateway, path: string, body: unknown, init: RequestInit = {}): Promise<Response> =>
  fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), ...init });
const answer = async (response: Promise<Response>): Promise<Json> => (await response).json() as Promise<Json>;
const ask = (more: object = {}) => ({ model: 'm', input: 'hi', ...more });
const streamed = async (response: Promise<Response>) =>
  checkResponsesStream(Buffer.from(await (await response).arrayBuffer()));

describe('POST /v1/responses', () => {
  test('answers whole and streamed, with and without /v1, and counts the tokens', async () => {
    const { gateway } = await setup();
    for (const path of ['/v1/responses', '/responses', '/v1/v1/responses']) {
      const response = await answer(post(gateway, path, ask()));
      assert.equal(faultOfResponse({ ...response }), null);
      assert.equal(response.output[0]?.content[0]?.text, 'Hello world');
      const { response: final } = await streamed(post(gateway, path, ask({ stream: true })));
      assert.deepEqual(final.usage, response.usage);
    }
    const scrape = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(scrape, /cortex_prompt_tokens_total\{model="m",node="n"\} 60/);
    assert.match(scrape, /cortex_completion_tokens_total\{model="m",node="n"\} 12/);
    assert.match(scrape, /cortex_cached_prompt_tokens_total\{model="m",node="n"\} 24/);
  });

  test('moves every metric as the same answer to a chat request does, whole and streamed', async () => {
    const counts = async (path: string, bodies: readonly object[]): Promise<readonly string[]> => {
      const keys = [{ key: 'sk-a', account_id: 'a', key_id: 'k' }];
      const { gateway } = await setup({ entitlements: { keys } });
      for (const body of bodies) {
        const told = await post(gateway, path, body, as('sk-a'));
        assert.equal(told.status, 200);
        await told.arrayBuffer();
      }
      const scrape = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
      // how often and how many, not how long
      return scrape.match(/^cortex_\w+_(?:total|count)\{.*$/gm) ?? [];
    };
    const streams = [{}, { stream: true }];
    const messages = [{ role: 'user', content: 'hi' }];
    const chat = await counts(
      '/v1/chat/completions',
      streams.map((more) => ({ model: 'm', messages, stream_options: { include_usage: true }, ...more })),
    );
    assert.ok(chat.includes('cortex_spend_tokens_total{account="a",key="k"} 24'), chat.join('\n'));
    for (const name of ['time_to_first_token_seconds', 'tokens_per_second', 'request_duration_seconds']) {
      assert.ok(
        chat.some((line) => line.startsWith(`cortex_${name}_count`)),
        name,
      );
    }
    const responses = streams.map((more) => ask(more));
    assert.deepEqual(await counts('/v1/responses', responses), chat);
    const asked = streams.map((more) => ({ model: 'm', max_tokens: 9, messages, ...more }));
    assert.deepEqual(await counts('/v1/messages', asked), chat);
  });

  test('spends the budget of its key, and is refused when that is gone', async () => {
    const keys = [{ key: 'sk-a', account_id: 'a', hard_cap: 130 }];
    const { gateway } = await setup({ entitlements: { require_auth: true, keys } });
    const request = ask({ max_output_tokens: 100, stream: true });
    for (let i = 0; i < 2; i++) await streamed(post(gateway, '/v1/responses', request, as('sk-a')));
    const spent = await post(gateway, '/v1/responses', ask({ max_output_tokens: 110 }), as('sk-a'));
    assert.equal(spent.status, 429);
    assert.equal(((await spent.json()) as Json).error.code, 'insufficient_quota');
    assert.equal((await post(gateway, '/v1/responses', ask(), as('sk-no'))).status, 401);
  });

  test('a neuron that dies in the middle is told as failed, and what came is kept', async () => {
    const { gateway, neuron } = await setup();
    neuron.onChat = ({ response }: ChatCall) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const chunk = { id: 'c', choices: [{ index: 0, delta: { content: 'half' }, finish_reason: null }] };
      response.write(`data: ${JSON.stringify(chunk)}\n\n`, () => response.destroy());
    };
    const { response } = await streamed(post(gateway, '/v1/responses', ask({ stream: true })));
    assert.equal(response.status, 'failed');
    const kept = await answer(fetch(`${gateway.url}/v1/responses/${String(response.id)}`));
    assert.equal(kept.output[0]?.content[0]?.text, 'half');
    assert.deepEqual({ ...kept }, response);
  });

  test("a neuron's refusal comes in OpenAI's envelope, before a stream and inside one", async () => {
    const { gateway, neuron } = await setup();
    neuron.onChat = ({ response }: ChatCall) => {
      response.writeHead(400, { 'content-type': 'application/json' });
      const error = { message: 'too long', type: 'invalid_request_error', code: 'context_length_exceeded' };
      response.end(JSON.stringify({ error }));
    };
    for (const stream of [true, false]) {
      const refused = await post(gateway, '/v1/responses', ask({ stream }));
      assert.equal(refused.status, 400);
      assert.equal(((await refused.json()) as Json).error.code, 'context_length_exceeded');
    }
    const long = await answer(post(gateway, '/v1/responses', ask({ input: 'x'.repeat(40_000) })));
    assert.deepEqual([long.error.code, long.error.param], ['context_length_exceeded', 'input']);
  });

  test('a field that the neuron refuses has the name that the client gave it', async () => {
    const { gateway, neuron } = await setup();
    for (const [theirs, ours] of [
      ['messages.0.content', 'input'],
      ['max_tokens', 'max_output_tokens'],
      ['response_format.json_schema.schema', 'text.format.schema'],
      ['tools.3.function.parameters', 'tools'],
      ['reasoning_effort', 'reasoning.effort'],
      ['top_k', 'top_k'],
    ]) {
      neuron.onChat = ({ response }: ChatCall) => {
        response.writeHead(400, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ error: { message: 'no', code: 'invalid_request', param: theirs } }));
      };
      const { error } = await answer(post(gateway, '/v1/responses', ask()));
      assert.equal(error.param, ours);
    }
  });

  test('truncation auto sends less until the model can take it, and no more often than four times', async () => {
    const { gateway, neuron } = await setup();
    const input = Array.from({ length: 40 }, (_, at) => ({ role: 'user', content: `${at} `.repeat(30) }));
    const sizes: number[] = [];
    const refuseBeyond = (most: number) => {
      neuron.onChat = (call: ChatCall) => {
        const { messages } = JSON.parse(call.body.toString()) as { messages: { content: string }[] };
        const size = messages.map(({ content }) => content).join('').length;
        sizes.push(size);
        if (size <= most) return answerWords(call, ['ok']);
        const message = `This model's maximum context length is 4096 tokens. However, your messages resulted in ${size * 9} tokens.`;
        call.response.writeHead(400, { 'content-type': 'application/json' });
        call.response.end(JSON.stringify({ error: { message, code: 'context_length_exceeded' } }));
      };
    };
    refuseBeyond(1000);
    const response = await answer(post(gateway, '/v1/responses', ask({ input, truncation: 'auto' })));
    assert.equal(response.output[0]?.content[0]?.text, 'ok');
    assert.ok(sizes.length === 2 && (sizes[1] as number) > 200, String(sizes));
    refuseBeyond(0);
    sizes.length = 0;
    const refused = await post(gateway, '/v1/responses', ask({ input, truncation: 'auto' }));
    assert.equal(refused.status, 400);
    assert.ok(sizes.length <= 4);
    sizes.length = 0;
    assert.equal((await post(gateway, '/v1/responses', ask({ input }))).status, 400);
    assert.equal(sizes.length, 1);
  });

  test('while its model loads the stream is kept alive, and a load that fails is told inside it', async () => {
    const { gateway, neuron } = await setup({ gateway: { keepalive_secs: 0.02 } }, 'available');
    const gate = createGate();
    neuron.onLoad = async () => {
      await gate.opened;
      return { status: 422, body: { error: 'the file is cut in half', code: 'invalid_model_file' } };
    };
    const response = await post(gateway, '/v1/responses', ask({ stream: true }));
    assert.equal(response.status, 200);
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const first = await reader.read();
    assert.match(Buffer.from(first.value as Uint8Array).toString(), /^: keep-alive/);
    gate.open();
    const rest: Uint8Array[] = [];
    for (let next = await reader.read(); !next.done; next = await reader.read()) rest.push(next.value);
    const { events, response: final } = checkResponsesStream(Buffer.concat(rest));
    assert.equal(final.status, 'failed');
    assert.equal(events.find(({ type }) => type === 'error')?.code, 'invalid_model_file');
  });

  test('a client that leaves ends the work, and nothing is kept of it', async () => {
    const { gateway, neuron } = await setup();
    const aborted = createGate();
    neuron.onChat = (call: ChatCall) => {
      call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      call.response.write(': prefill\n\n');
      void call.aborted.then(() => aborted.open());
    };
    const leaves = new AbortController();
    const response = await post(gateway, '/v1/responses', ask({ stream: true }), { signal: leaves.signal });
    assert.equal(response.status, 200);
    leaves.abort();
    await aborted.opened;
  });
});

describe('a stored response', () => {
  test('is retrieved, continued, listed and deleted by its own key only', async () => {
    const { gateway, neuron } = await setup();
    const one = await answer(post(gateway, '/v1/responses', ask({ instructions: 'Rhyme.' }), as('sk-a')));
    const at = `${gateway.url}/v1/responses/${one.id}`;
    assert.deepEqual(await answer(fetch(at, as('sk-a'))), one);
    const two = ask({ input: 'more', previous_response_id: one.id });
    for (const key of ['sk-b', '']) {
      const init = key === '' ? {} : as(key);
      for (const path of [at, `${at}/input_items`]) assert.equal((await fetch(path, init)).status, 404);
      assert.equal((await fetch(at, { method: 'DELETE', ...init })).status, 404);
      const refused = await post(gateway, '/v1/responses', two, init);
      assert.equal(refused.status, 400);
      const { error } = (await refused.json()) as Json;
      assert.deepEqual([error.code, error.param], ['previous_response_not_found', 'previous_response_id']);
    }
    const next = await answer(post(gateway, '/v1/responses', two, as('sk-a')));
    assert.equal(next.previous_response_id, one.id);
    assert.deepEqual(JSON.parse(neuron.chats.at(-1)?.body.toString() ?? '').messages, [
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'Hello world' },
      { role: 'user', content: 'more' },
    ]);
    const items = await answer(fetch(`${at}/input_items?order=asc`, as('sk-a')));
    assert.equal(items.data[0]?.content[0]?.text, 'hi');
    const gone: unknown = await answer(fetch(at, { method: 'DELETE', ...as('sk-a') }));
    assert.deepEqual(gone, { id: one.id, object: 'response', deleted: true });
    assert.equal((await fetch(at, as('sk-a'))).status, 404);
  });

  test('streams again, and says that nothing runs that could be cancelled', async () => {
    const { gateway } = await setup();
    const { response } = await streamed(post(gateway, '/v1/responses', ask({ stream: true })));
    const at = `${gateway.url}/v1/responses/${String(response.id)}`;
    assert.deepEqual((await streamed(fetch(`${at}?stream=true`))).response, response);
    assert.equal((await fetch(`${at}?stream=true&starting_after=3`)).status, 400);
    const cancelled = await fetch(`${at}/cancel`, { method: 'POST' });
    assert.equal(cancelled.status, 400);
    assert.match(((await cancelled.json()) as Json).error.message, /background: true/);
  });

  test('is not stored where the request or the configuration says so', async () => {
    const { gateway } = await setup();
    const unstored = await answer(post(gateway, '/v1/responses', ask({ store: false })));
    assert.equal(unstored.store, false);
    assert.equal((await fetch(`${gateway.url}/v1/responses/${unstored.id}`)).status, 404);
    const off = (await setup({ responses: { max_entries: 0 } })).gateway;
    const response = await answer(post(off, '/v1/responses', ask()));
    assert.equal(response.store, false);
    const { error } = await answer(fetch(`${off.url}/v1/responses/${response.id}`));
    assert.match(error.message, /keeps no responses/);
  });

  test('of another gateway is said to be that', async () => {
    const [a, b] = [await setup(), await setup()];
    const { id } = await answer(post(a.gateway, '/v1/responses', ask()));
    const { error } = await answer(post(b.gateway, '/v1/responses', ask({ previous_response_id: id })));
    assert.match(error.message, /not made by this gateway/);
  });
});
