/** `background: true` of the Responses API: made without the client, polled, read from any event on, cancelled. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import type { ResponseObject } from 'cortex-core/wire/responses';
import { SseParser } from 'cortex-core/wire/sse';
import { answerWords, type ChatCall, chatStream, createGate, startFakeNeuron } from 'testkit/fake-neuron';
import type { z } from 'zod';
import { faultOfResponse } from '../dialects/wire-grammar/responses-grammar.ts';
import { checkResponsesStream } from '../dialects/wire-grammar/responses-stream.test.kit.ts';
import { type Gateway, startGateway } from '../gateway.ts';

type Json = ResponseObject & {
  readonly error: { readonly code: string; readonly message: string; readonly param: string };
};

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function setup(
  config: z.input<typeof cortexConfigSchema> = {},
  status: 'loaded' | 'available' = 'loaded',
) {
  const neuron = await startFakeNeuron({ models: [{ id: 'm', status, context: 4096 }] });
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...config,
      gateway: {
        ...{ listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
        ...{ stream_check_every: 1, ...config.gateway },
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

/** Writes its first word at once, the rest when `gate` opens. */
function answerInTwo(gate: { readonly opened: Promise<void> }) {
  return async ({ response }: ChatCall): Promise<void> => {
    const text = chatStream('m', ['Hello', ' world']);
    const middle = text.indexOf('\n\n', text.indexOf('Hello')) + 2;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(text.slice(0, middle));
    await gate.opened;
    response.end(text.slice(middle));
  };
}

const as = (key: string): RequestInit => ({ headers: { authorization: `Bearer ${key}` } });
const post = (gateway: Gateway, body: object, init: RequestInit = {}): Promise<Response> =>
  fetch(`${gateway.url}/v1/responses`, { method: 'POST', body: JSON.stringify(body), ...init });
const jsonOf = async (response: Promise<Response>): Promise<Json> => (await response).json() as Promise<Json>;
const ask = (more: object = {}) => ({ model: 'm', input: 'hi', background: true, ...more });
const textOf = ({ output: [item] }: ResponseObject) =>
  item?.type === 'message' ? item.content[0]?.text : null;

/** Polls, as clients do. */
async function settled(gateway: Gateway, id: string, init: RequestInit = {}): Promise<Json> {
  for (;;) {
    const response = await jsonOf(fetch(`${gateway.url}/v1/responses/${id}`, init));
    if (response.status !== 'queued' && response.status !== 'in_progress') return response;
  }
}

/** Reads until `part` has come. */
async function readUntil(response: Response, part: string): Promise<string> {
  let text = '';
  for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
    text += Buffer.from(chunk).toString();
    if (text.includes(part)) return text;
  }
  throw new Error(`ended without ${part}: ${text}`);
}
const eventsOf = (text: string) =>
  new SseParser().push(Buffer.from(text)).map(({ data }) => JSON.parse(data));

async function protocolErrors({ metricsPort }: Gateway): Promise<readonly string[]> {
  const scraped = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  return scraped.match(/^cortex_stream_protocol_errors_total\{.*$/gm) ?? [];
}

describe('a response in the background', () => {
  test('is queued at once, made without its client, and fetched when it is done', async () => {
    const { gateway, neuron } = await setup();
    const gate = createGate();
    neuron.onChat = answerInTwo(gate);
    const asked = await post(gateway, ask());
    const queued = (await asked.json()) as Json;
    assert.equal(asked.status, 200);
    assert.deepEqual([queued.status, queued.background, queued.store], ['queued', true, true]);
    assert.equal(faultOfResponse({ ...queued }), null);
    assert.match(asked.headers.get('x-cortex-route') ?? '', /^node=n/);
    let now = queued;
    while (now.status === 'queued') now = await jsonOf(fetch(`${gateway.url}/v1/responses/${queued.id}`));
    assert.equal(now.status, 'in_progress');
    gate.open();
    const done = await settled(gateway, queued.id);
    assert.equal(done.status, 'completed');
    assert.equal(textOf(done), 'Hello world');
    assert.deepEqual(done.usage?.output_tokens, 2);
    assert.equal(done.created_at, queued.created_at);
    neuron.onChat = (call) => answerWords(call, ['ok']);
    const next = { model: 'm', input: 'more', previous_response_id: done.id };
    assert.equal((await post(gateway, next)).status, 200);
    assert.deepEqual(await protocolErrors(gateway), []);
  });

  test('goes on when the client of its stream leaves, which comes back for the rest', async () => {
    const { gateway, neuron } = await setup();
    const gate = createGate();
    neuron.onChat = answerInTwo(gate);
    const leaves = new AbortController();
    const first = await readUntil(
      await post(gateway, ask({ stream: true }), { signal: leaves.signal }),
      '"Hello"',
    );
    leaves.abort();
    const seen = eventsOf(first);
    assert.deepEqual(
      seen.slice(0, 3).map(({ type, response }) => [type, response.status]),
      [
        ['response.created', 'queued'],
        ['response.queued', 'queued'],
        ['response.in_progress', 'in_progress'],
      ],
    );
    const { id } = seen[0].response;
    const at = `${gateway.url}/v1/responses/${id}?stream=true`;
    const last = seen.at(-1).sequence_number;
    // while it runs, twice; then when it has ended
    const running = [fetch(`${at}&starting_after=${last}`), fetch(at)].map(async (each) =>
      (await each).text(),
    );
    const [late] = await Promise.all([fetch(`${at}&starting_after=0`)]);
    gate.open();
    const [rest = '', whole = ''] = await Promise.all(running);
    const { events, response } = checkResponsesStream(Buffer.from(whole));
    assert.equal(textOf(response), 'Hello world');
    assert.equal(eventsOf(rest)[0].sequence_number, last + 1);
    assert.deepEqual([...seen, ...eventsOf(rest)], events);
    assert.deepEqual(eventsOf(await late.text()), events.slice(1));
    for (const after of [0, last, events.length - 2]) {
      const again = await (await fetch(`${at}&starting_after=${after}`)).text();
      assert.deepEqual(eventsOf(again), events.slice(after + 1));
    }
    assert.deepEqual(eventsOf(await (await fetch(at)).text()), events);
    assert.equal(await (await fetch(`${at}&starting_after=${events.length - 1}`)).text(), '');
    assert.equal(neuron.counters.chats, 1);
    assert.deepEqual(await protocolErrors(gateway), []);
  });

  test('is cancelled: the neuron stops, what there was is kept, and cancelling again changes nothing', async () => {
    const { gateway, neuron } = await setup();
    neuron.onChat = answerInTwo({ opened: new Promise(() => {}) });
    const stream = await post(gateway, ask({ stream: true }));
    const reader = (stream.body as ReadableStream<Uint8Array>).getReader();
    let text = '';
    while (!text.includes('"Hello"')) text += Buffer.from((await reader.read()).value ?? []).toString();
    const { id } = eventsOf(text)[0].response;
    const cancel = () => jsonOf(fetch(`${gateway.url}/v1/responses/${id}/cancel`, { method: 'POST' }));
    const cancelled = await cancel();
    assert.equal(cancelled.status, 'cancelled');
    assert.equal(textOf(cancelled), 'Hello');
    assert.equal(faultOfResponse({ ...cancelled }), null);
    await neuron.until(() => neuron.counters.aborted === 1);
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      text += Buffer.from(next.value).toString();
    }
    const { events, response } = checkResponsesStream(Buffer.from(text));
    assert.equal(events.at(-1)?.type, 'response.incomplete');
    assert.deepEqual({ ...response }, cancelled);
    assert.deepEqual(await cancel(), cancelled);
    assert.deepEqual(await settled(gateway, id), cancelled);
    assert.equal(gateway.fleet.nodes()[0]?.leaseCount, 0);
  });

  test('is cancelled while it waits for a load', async () => {
    const { gateway, neuron } = await setup({}, 'available');
    const gate = createGate();
    neuron.onLoad = () => gate.opened.then(() => undefined);
    const { id, status } = await jsonOf(post(gateway, ask()));
    assert.equal(status, 'queued');
    await neuron.until(() => neuron.counters.loads === 1);
    const cancelled = await jsonOf(fetch(`${gateway.url}/v1/responses/${id}/cancel`, { method: 'POST' }));
    assert.deepEqual([cancelled.status, cancelled.output], ['cancelled', []]);
    assert.equal(gateway.fleet.waitingCount, 0);
    gate.open();
  });

  test('is nobody else’s, and is forgotten while it runs', async () => {
    const { gateway, neuron } = await setup();
    neuron.onChat = answerInTwo({ opened: new Promise(() => {}) });
    const { id } = await jsonOf(post(gateway, ask(), as('sk-a')));
    const at = `${gateway.url}/v1/responses/${id}`;
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/cancel'],
      ['GET', '/input_items'],
    ] as const) {
      assert.equal((await fetch(at + path, { method, ...as('sk-b') })).status, 404, path);
    }
    const items = (await (await fetch(`${at}/input_items`, as('sk-a'))).json()) as { data: unknown[] };
    assert.equal(items.data.length, 1);
    const early = await post(gateway, { model: 'm', input: 'x', previous_response_id: id }, as('sk-a'));
    assert.equal(early.status, 400);
    assert.match(((await early.json()) as Json).error.message, /still being made/);
    assert.equal((await fetch(at, { method: 'DELETE', ...as('sk-a') })).status, 200);
    assert.equal((await fetch(at, as('sk-a'))).status, 404);
    await neuron.until(() => neuron.counters.aborted === 1);
  });

  test('what refuses it at once is the answer, what fails later a failed response', async () => {
    const keys = [{ key: 'sk-a', account_id: 'a', hard_cap: 10 }];
    const { gateway, neuron } = await setup({ entitlements: { keys } });
    for (const [status, body, init] of [
      [404, ask({ model: 'nope' }), {}],
      [400, ask({ input: 'x'.repeat(40_000) }), {}],
      [400, ask({ store: false }), {}],
      [400, ask({ background: 'yes' }), {}],
      [429, ask(), as('sk-a')],
    ] as const) {
      for (const stream of [false, true]) {
        assert.equal((await post(gateway, { ...body, stream }, init)).status, status);
      }
    }
    neuron.onChat = ({ response }: ChatCall) => {
      response.writeHead(400, { 'content-type': 'application/json' });
      response.end(
        JSON.stringify({ error: { message: 'no', code: 'invalid_request', param: 'messages.0' } }),
      );
    };
    const { id } = await jsonOf(post(gateway, ask()));
    const failed = await settled(gateway, id);
    assert.deepEqual(
      [failed.status, failed.error.code, failed.error.message],
      ['failed', 'invalid_prompt', 'no'],
    );
    neuron.onChat = ({ response }: ChatCall) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const delta = { id: 'c', choices: [{ index: 0, delta: { content: 'half' }, finish_reason: null }] };
      response.write(`data: ${JSON.stringify(delta)}\n\n`, () => response.destroy());
    };
    const streamed = await (await post(gateway, ask({ stream: true }))).arrayBuffer();
    const { response } = checkResponsesStream(Buffer.from(streamed));
    assert.deepEqual([response.status, textOf(response)], ['failed', 'half']);
    assert.deepEqual(await settled(gateway, response.id), { ...response });
    assert.deepEqual(await protocolErrors(gateway), []);
  });

  test('truncation auto sends less until the model can take it', async () => {
    const { gateway, neuron } = await setup();
    const input = Array.from({ length: 40 }, (_, at) => ({ role: 'user', content: `${at} `.repeat(30) }));
    neuron.onChat = (call: ChatCall) => {
      const { messages } = JSON.parse(call.body.toString()) as { messages: { content: string }[] };
      const size = messages.map(({ content }) => content).join('').length;
      if (size <= 1000) return answerWords(call, ['ok']);
      const message = `This model's maximum context length is 4096 tokens. However, your messages resulted in ${size * 9} tokens.`;
      call.response.writeHead(400, { 'content-type': 'application/json' });
      call.response.end(JSON.stringify({ error: { message, code: 'context_length_exceeded' } }));
    };
    const { id } = await jsonOf(post(gateway, ask({ input, truncation: 'auto' })));
    const done = await settled(gateway, id);
    assert.deepEqual([done.status, textOf(done)], ['completed', 'ok']);
    assert.equal(neuron.counters.chats, 2);
  });

  test('one that cannot be tried again, because what it goes on from was deleted, has failed', async () => {
    const { gateway, neuron } = await setup();
    const first = await jsonOf(post(gateway, { model: 'm', input: 'hi' }));
    const message =
      "This model's maximum context length is 4096 tokens. However, your messages resulted in 9000 tokens.";
    neuron.onChat = async (call: ChatCall) => {
      await fetch(`${gateway.url}/v1/responses/${first.id}`, { method: 'DELETE' });
      call.response.writeHead(400, { 'content-type': 'application/json' });
      call.response.end(JSON.stringify({ error: { message, code: 'context_length_exceeded' } }));
    };
    const more = { previous_response_id: first.id, truncation: 'auto', stream: true };
    const streamed = await (await post(gateway, ask(more))).arrayBuffer();
    const { response } = checkResponsesStream(Buffer.from(streamed));
    assert.equal(response.status, 'failed');
    assert.match(response.error?.message ?? '', new RegExp(first.id));
    assert.equal((await settled(gateway, response.id)).status, 'failed');
  });

  test('no more are made at a time than may be, and none where the configuration says so', async () => {
    const { gateway, neuron } = await setup({ responses: { max_background: 2 } });
    const gate = createGate();
    neuron.onChat = answerInTwo(gate);
    const runs = [await jsonOf(post(gateway, ask())), await jsonOf(post(gateway, ask()))];
    const over = await post(gateway, ask());
    assert.equal(over.status, 429);
    assert.ok(Number(over.headers.get('retry-after')) > 0);
    gate.open();
    for (const { id } of runs) assert.equal((await settled(gateway, id)).status, 'completed');
    assert.equal((await post(gateway, ask())).status, 200);
    for (const responses of [{ max_background: 0 }, { max_entries: 0 }]) {
      const off = await setup({ responses });
      const refused = await post(off.gateway, ask());
      assert.equal(refused.status, 400);
      assert.equal(((await refused.json()) as Json).error.param, 'background');
    }
  });

  test('one key leaves places to others, and is told what to do', async () => {
    const { gateway, neuron } = await setup({ responses: { max_background: 8 } });
    neuron.onChat = answerInTwo({ opened: new Promise(() => {}) });
    const askAs = async (key: string) => await jsonOf(post(gateway, ask(), as(key)));
    for (let i = 0; i < 6; i++) assert.equal((await askAs('sk-a')).status, 'queued');
    const { error } = await askAs('sk-a');
    assert.deepEqual([error.code, error.param], ['rate_limit_exceeded', 'background']);
    assert.match(
      error.message,
      /^6 responses of this key .* last 2 of 8 .* wait for one of yours, or cancel/,
    );
    const [b] = [await askAs('sk-b'), await askAs('sk-b')];
    assert.equal(b?.status, 'queued');
    assert.match((await askAs('sk-c')).error.message, /^8 responses/);
    // a place that becomes free is for whoever has the least
    const at = `${gateway.url}/v1/responses/${b?.id}/cancel`;
    await (await fetch(at, { method: 'POST', ...as('sk-b') })).arrayBuffer();
    assert.equal((await askAs('sk-a')).error.code, 'rate_limit_exceeded');
    assert.equal((await askAs('sk-c')).status, 'queued');
  });

  test('where nobody sends a key every place can be taken', async () => {
    const { gateway, neuron } = await setup({ responses: { max_background: 8 } });
    neuron.onChat = answerInTwo({ opened: new Promise(() => {}) });
    for (let i = 0; i < 8; i++) assert.equal((await jsonOf(post(gateway, ask()))).status, 'queued');
    assert.match((await jsonOf(post(gateway, ask()))).error.message, /^8 responses/);
  });

  test('a third sending gets what the second got, also where the first one has lost events', async () => {
    const { gateway, neuron } = await setup({ responses: { max_mb: 0.08, max_background: 4 } });
    neuron.onChat = async ({ response }) => {
      const text = chatStream('m', [neuron.counters.chats === 1 ? 'x'.repeat(30_000) : 'Hello', ' world']);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(text.slice(0, text.indexOf(' world')));
      await new Promise(() => {});
    };
    const send = () => post(gateway, ask({ stream: true }), { headers: { 'idempotency-key': 'k' } });
    // more than is kept: who reads it is cut, and it goes on
    await assert.rejects(send().then((response) => response.text()));
    const idOf = async () => eventsOf(await readUntil(await send(), 'response.queued'))[0].response.id;
    assert.equal(await idOf(), await idOf());
  });

  test('a request that is sent again gets the response that is being made', async () => {
    const { gateway, neuron } = await setup();
    const gate = createGate();
    neuron.onChat = answerInTwo(gate);
    const send = (more: object, headers: Readonly<Record<string, string>>) =>
      post(gateway, ask(more), { headers });
    const first = await jsonOf(send({}, { 'x-stainless-retry-count': '0' }));
    const again = await jsonOf(send({}, { 'x-stainless-retry-count': '1' }));
    assert.equal(again.id, first.id);
    const streamed = await send({ stream: true }, { 'idempotency-key': 'k' });
    await readUntil(streamed, 'response.queued');
    const joined = await send({ stream: true }, { 'idempotency-key': 'k' });
    // who does not say that it is a resend is none, nor is another request
    const others = [
      await jsonOf(send({}, { 'x-stainless-retry-count': '0' })),
      await jsonOf(send({ input: 'other' }, { 'x-stainless-retry-count': '1' })),
      await jsonOf(send({}, { 'x-stainless-retry-count': '1', authorization: 'Bearer sk-b' })),
    ];
    assert.equal(new Set([first.id, ...others.map(({ id }) => id)]).size, 4);
    gate.open();
    assert.equal(
      textOf(checkResponsesStream(Buffer.from(await joined.arrayBuffer())).response),
      'Hello world',
    );
    for (const { id } of [first, ...others.slice(0, 2)]) await settled(gateway, id);
    await settled(gateway, others[2]?.id ?? '', as('sk-b'));
    assert.equal(neuron.counters.chats, 5);
  });

  test('events that are not kept are refused, and the response is sent from its beginning', async () => {
    const { gateway, neuron } = await setup({ responses: { max_mb: 0.006, max_background: 1 } });
    const words = Array.from({ length: 100 }, (_, at) => ` ${at}`);
    const gate = createGate();
    neuron.onChat = async (call) => {
      await gate.opened;
      answerWords(call, words);
    };
    const polled = await jsonOf(post(gateway, ask()));
    const at = (id: string, query: string) => fetch(`${gateway.url}/v1/responses/${id}?stream=true${query}`);
    const early = await at(polled.id, '');
    assert.deepEqual([early.status, ((await early.json()) as Json).error.param], [400, 'stream']);
    gate.open();
    await settled(gateway, polled.id);
    // its first events had to go before the last came
    const [{ response: head }] = eventsOf(
      await readUntil(await post(gateway, ask({ stream: true })), 'response.queued'),
    );
    await settled(gateway, head.id);
    for (const id of [polled.id, head.id]) {
      const gone = await at(id, '&starting_after=3');
      assert.deepEqual([gone.status, ((await gone.json()) as Json).error.param], [400, 'starting_after']);
      const again = checkResponsesStream(Buffer.from(await (await at(id, '')).arrayBuffer()));
      assert.equal(textOf(again.response), words.join(''));
    }
    for (const after of ['x', '-1', '1.5', '']) {
      const { error } = await jsonOf(at(polled.id, `&starting_after=${after}`));
      assert.equal(error.param, 'starting_after', after);
    }
  });

  test('a gateway that stops ends those that run', async () => {
    const { gateway, neuron } = await setup();
    neuron.onChat = answerInTwo({ opened: new Promise(() => {}) });
    await jsonOf(post(gateway, ask()));
    await neuron.until(() => neuron.counters.chats === 1);
    await gateway.close();
    await neuron.until(() => neuron.counters.aborted === 1);
  });

  test('who reads one that says nothing is kept alive', async () => {
    const { gateway, neuron } = await setup({ gateway: { keepalive_secs: 0.01 } });
    const gate = createGate();
    neuron.onChat = async (call) => {
      await gate.opened;
      answerWords(call, ['late']);
    };
    const stream = await post(gateway, ask({ stream: true }));
    let text = '';
    for await (const chunk of stream.body as AsyncIterable<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      if ((text.match(/^: keep-alive$/gm) ?? []).length >= 2) gate.open();
    }
    assert.equal(textOf(checkResponsesStream(Buffer.from(text)).response), 'late');
  });
});
