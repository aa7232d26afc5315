import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import {
  answerBehind,
  answerWords,
  chatStream,
  createGate,
  type FakeNeuron,
  type FakeNeuronOptions,
  startFakeNeuron,
} from 'testkit/fake-neuron';
import type { z } from 'zod';
import { type Gateway, startGateway } from '../gateway.ts';

type CortexConfigInput = z.input<typeof cortexConfigSchema>;
type ModelsConfigInput = z.input<typeof modelsConfigSchema>;

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
  models: ModelsConfigInput = {},
  config: CortexConfigInput = {},
): Promise<Setup> {
  const fakes = await Promise.all(neurons.map((options) => startFakeNeuron(options)));
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...config,
      gateway: {
        listen: '127.0.0.1:0',
        metrics_listen: '127.0.0.1:0',
        poll_interval_secs: 3600,
        ...config.gateway,
      },
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

const post = (gateway: Gateway, path: string, body: unknown, init: RequestInit = {}): Promise<Response> =>
  fetch(gateway.url + path, {
    method: 'POST',
    body: typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
    ...init,
  });

const ask = (model: string, more: object = {}) => ({
  model,
  messages: [{ role: 'user', content: 'hi' }],
  ...more,
});

const loaded = (id: string, more: object = {}) => ({ id, status: 'loaded' as const, ...more });

describe('loads', () => {
  test('50 concurrent first requests make exactly one load', async () => {
    const { gateway, neurons } = await setup([{ models: [{ id: 'm' }] }]);
    const gate = createGate();
    neurons[0]!.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    const calls = Array.from({ length: 50 }, () => post(gateway, '/v1/chat/completions', ask('m')));
    await neurons[0]!.until(() => neurons[0]!.counters.loads === 1);
    gate.open();
    const answers = await Promise.all(calls);
    assert.deepEqual(new Set(answers.map((answer) => answer.status)), new Set([200]));
    assert.equal(neurons[0]!.counters.loads, 1);
    assert.equal(gateway.fleet.waitingCount, 0);
  });

  test('a failed load tells every waiter why', async () => {
    const { gateway, neurons } = await setup([{ models: [{ id: 'm' }] }]);
    const gate = createGate();
    neurons[0]!.onLoad = async () => {
      await gate.opened;
      return { status: 422, body: { error: 'the file is cut in half', code: 'invalid_model_file' } };
    };
    const { signal } = new AbortController();
    const waits = Array.from({ length: 3 }, () => gateway.fleet.request({ model: 'm' }, signal).ready);
    const refused = Promise.allSettled(waits);
    gate.open();
    for (const outcome of await refused) {
      assert.equal(outcome.status, 'rejected');
      assert.equal(outcome.reason.code, 'invalid_model_file');
      assert.match(outcome.reason.message, /cut in half/);
    }
    assert.equal(neurons[0]!.counters.loads, 1);
  });

  test('the least recently used model leaves, after its requests ended', async () => {
    const { gateway, neurons } = await setup([
      {
        devices: [2500],
        models: [loaded('old'), loaded('recent'), { id: 'new' }],
      },
    ]);
    const [neuron] = neurons;
    await (await post(gateway, '/v1/chat/completions', ask('recent'))).text();
    await (await post(gateway, '/v1/chat/completions', ask('new'))).text();
    assert.deepEqual(neuron!.events, ['chat recent', 'unload old', 'load new', 'chat new']);
    const gate = createGate();
    neuron!.onChat = answerBehind(gate);
    const streaming = await post(gateway, '/v1/chat/completions', ask('recent', { stream: true }));
    await post(gateway, '/v1/chat/completions', ask('new'), { signal: AbortSignal.abort() }).catch(() => {});
    // recent is busy, so new goes although it was used later
    neuron!.events.length = 0;
    const back = post(gateway, '/v1/chat/completions', ask('old'));
    await neuron!.until(() => neuron!.counters.loads === 2);
    assert.deepEqual(neuron!.events.slice(0, 2), ['unload new', 'load old']);
    gate.open();
    assert.match(await streaming.text(), /\[DONE\]/);
    await (await back).text();
  });

  test('two models of equal rank displace each other, and a victim drains first', async () => {
    const { gateway, neurons } = await setup([{ devices: [1500], models: [{ id: 'a' }, { id: 'b' }] }]);
    for (let i = 0; i < 5; i++) {
      for (const id of ['a', 'b']) {
        const answer = await post(gateway, '/v1/chat/completions', ask(id));
        assert.equal(answer.status, 200);
        await answer.text();
      }
    }
    assert.equal(neurons[0]!.counters.loads, 10);
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(metrics, /cortex_evictions_total\{model="a",node="n0",reason="room"\} 5/);
    assert.match(metrics, /cortex_cold_starts_total\{model="b",node="n0"\} 5/);
    assert.match(metrics, /cortex_completion_tokens_total\{model="b",node="n0"\} 10/);
  });

  test('nothing is evicted for a model that cannot fit anyway', async () => {
    const { gateway, neurons } = await setup([
      { devices: [2000], models: [loaded('small'), { id: 'huge', vramMb: 9000 }] },
    ]);
    const answer = await post(gateway, '/v1/chat/completions', ask('huge'));
    const body = (await answer.json()) as { error: { code: string; message: string } };
    assert.equal(body.error.code, 'no_feasible_node');
    assert.match(body.error.message, /needs 9000 MiB, n0 has only 2000 MiB/);
    assert.equal(neurons[0]!.counters.unloads, 0);
  });

  test('a stream that waits gets headers and then the answer; one that does not wait gets 503', async () => {
    const { gateway, neurons } = await setup(
      [{ models: [{ id: 'm' }] }],
      {},
      { gateway: { cold_load_wait_secs: 0 } },
    );
    const gate = createGate();
    neurons[0]!.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    const streamed = await post(gateway, '/v1/chat/completions', ask('m', { stream: true }));
    assert.equal(streamed.status, 200);
    assert.match(streamed.headers.get('content-type') ?? '', /event-stream/);
    const whole = await post(gateway, '/v1/chat/completions', ask('m'));
    assert.equal(whole.status, 503);
    assert.ok(Number(whole.headers.get('retry-after')) >= 1);
    const body = (await whole.json()) as { error: { code: string; loading: { node: string } } };
    assert.equal(body.error.code, 'model_loading');
    assert.equal(body.error.loading.node, 'n0');
    gate.open();
    assert.match(await streamed.text(), /world/);
    assert.equal(neurons[0]!.counters.loads, 1);
  });

  test('a neuron that lost the model is believed and loads it again', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    neurons[0]!.models.get('m')!.status = 'available';
    const answer = await post(gateway, '/v1/chat/completions', ask('m'));
    assert.equal(answer.status, 200);
    assert.equal(neurons[0]!.counters.loads, 1);
  });
});

describe('silence', () => {
  const readUntil = async (
    answer: Response,
    part: string,
  ): Promise<ReadableStreamDefaultReader<Uint8Array>> => {
    const reader = answer.body!.getReader();
    const decoder = new TextDecoder();
    for (let text = ''; !text.includes(part); ) {
      const { value, done } = await reader.read();
      assert.ok(!done, `ended without ${part}: ${text}`);
      text += decoder.decode(value, { stream: true });
    }
    return reader;
  };

  test('a stream that waits for a load is kept alive by a timer, in its own dialect', async () => {
    const { gateway, neurons } = await setup(
      [{ models: [{ id: 'm' }] }],
      {},
      { gateway: { keepalive_secs: 0.01 } },
    );
    const gate = createGate();
    neurons[0]!.onLoad = () => gate.opened.then(() => undefined);
    const openai = await post(gateway, '/v1/chat/completions', ask('m', { stream: true }));
    const anthropic = await post(gateway, '/v1/messages', ask('m', { stream: true, max_tokens: 5 }));
    const readers = [
      await readUntil(openai, ': keep-alive\n\n'),
      await readUntil(anthropic, 'event: ping\n'),
    ];
    gate.open();
    for (const reader of readers) while (!(await reader.read()).done);
    assert.equal(neurons[0]!.counters.loads, 1);
  });

  test('a load that fails after the headers ends in a typed error event', async () => {
    const { gateway, neurons } = await setup([{ models: [{ id: 'm' }] }]);
    neurons[0]!.onLoad = () => ({ status: 422, body: { error: 'cut in half', code: 'invalid_model_file' } });
    const openai = await (await post(gateway, '/v1/chat/completions', ask('m', { stream: true }))).text();
    assert.match(openai, /^data: \{"error":\{.*"code":"invalid_model_file"/);
    const body = ask('m', { stream: true, max_tokens: 5 });
    const anthropic = await (await post(gateway, '/v1/messages', body)).text();
    assert.match(anthropic, /^event: error\ndata: \{"type":"error"/);
  });

  test('a neuron that stalls in the middle of a stream is given up after the idle timeout', async () => {
    const { gateway, neurons } = await setup(
      [{ models: [loaded('m')] }],
      {},
      { gateway: { upstream_idle_timeout_secs: 0.05 } },
    );
    neurons[0]!.onChat = ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`${chatStream('m', ['x']).split('\n\n')[0]}\n\n`);
    };
    const text = await (await post(gateway, '/v1/chat/completions', ask('m', { stream: true }))).text();
    assert.match(text, /upstream_timeout/);
    await neurons[0]!.until(() => neurons[0]!.counters.aborted === 1);
  });

  test('a victim keeps its running stream, and goes when that ended', async () => {
    const { gateway, neurons } = await setup(
      [{ devices: [1500], models: [loaded('a'), { id: 'b' }] }],
      {},
      { queue: { max_wait_secs: 0 } },
    );
    const [neuron] = neurons;
    const gate = createGate();
    neuron!.onChat = answerBehind(gate, ['whole']);
    const stream = await post(gateway, '/v1/chat/completions', ask('a', { stream: true }));
    const ticket = gateway.fleet.request({ model: 'b' }, new AbortController().signal);
    assert.equal(ticket.lease, null);
    await gateway.fleet.pollNow('n0');
    assert.equal(neuron!.counters.unloads, 0);
    assert.equal(gateway.fleet.view().nodes[0]!.models.get('a')?.draining, true);
    gate.open();
    assert.match(await stream.text(), /\[DONE\]/);
    (await ticket.ready).release();
    assert.deepEqual(neuron!.events, ['chat a', 'unload a', 'load b']);
  });
});

describe('pass-through', () => {
  test('is byte-exact at every chunk boundary, also inside a character', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const bytes = Buffer.from(`: hi\n\n${chatStream('m', ['日本', '🙂é', '\\u0000'])}`);
    for (const size of [1, 2, 3, 7, bytes.length]) {
      neurons[0]!.onChat = async ({ response }) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.socket?.setNoDelay(true);
        for (let i = 0; i < bytes.length; i += size) {
          await new Promise((resolve) => response.write(bytes.subarray(i, i + size), resolve));
        }
        response.end();
      };
      const answer = await post(gateway, '/v1/chat/completions', ask('m', { stream: true }));
      assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes);
    }
  });

  test('passes embeddings and rerank on byte by byte, and counts what they read', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const answer = '{"data": [ {"embedding":"é/+8="} ],\n"usage":{"prompt_tokens":7,"total_tokens":7}}';
    neurons[0]!.onChat = async ({ response }) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(answer);
    };
    for (const path of ['/v1/embeddings', '/rerank']) {
      const body = '{ "model":"m","input":["日本",  "a"], "query":"q","documents":[ "d"] }';
      const response = await post(gateway, path, body);
      assert.equal(await response.text(), answer);
      const call = neurons[0]!.chats.at(-1)!;
      assert.equal(call.body.toString(), body);
      assert.equal(call.path, path.startsWith('/v1') ? path : `/v1${path}`);
    }
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    assert.match(metrics, /cortex_prompt_tokens_total\{[^}]*model="m"[^}]*\} 14/);
  });

  test('forwards the bytes that arrived, with only the model replaced for an alias', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('real')] }], {
      models: [{ id: 'real', vram_mb: 10 }],
      aliases: { nick: 'real' },
    });
    const body =
      '{ "messages":[{"role":"user","content":"\\u00e9 \\ud800 model"}],\n "model" : "nick", "x":{"model":"nick"}}';
    const answer = await post(gateway, '/chat/completions', body, {
      headers: {
        authorization: 'Bearer secret',
        'x-cortex-account-id': 'forged',
        'x-helexa-key-id': 'forged',
        'x-request-id': 'abc-1',
      },
    });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('x-request-id'), 'abc-1');
    assert.match(answer.headers.get('x-cortex-route') ?? '', /node=n0/);
    const { body: arrived, headers } = neurons[0]!.chats[0]!;
    assert.equal(arrived.toString(), body.replace('"nick", "x"', '"real", "x"'));
    assert.equal(headers.authorization, undefined);
    assert.equal(headers['x-cortex-account-id'], undefined);
    assert.equal(headers['x-helexa-key-id'], undefined);
    assert.equal(headers['x-request-id'], 'abc-1');
  });

  test('a client that leaves reaches the neuron: in prefill, mid-stream, and waiting for a whole answer', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const [neuron] = neurons;
    const phases: readonly ((response: import('node:http').ServerResponse) => void)[] = [
      () => {},
      (response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: {"choices":[]}\n\n');
      },
    ];
    for (const [i, act] of phases.entries()) {
      for (const stream of [true, false]) {
        neuron!.onChat = ({ response }) => act(response);
        const before = neuron!.counters.chats;
        const aborted = neuron!.counters.aborted;
        const controller = new AbortController();
        const call = post(gateway, '/v1/chat/completions', ask('m', { stream }), {
          signal: controller.signal,
        });
        call.catch(() => {});
        await neuron!.until(() => neuron!.counters.chats === before + 1);
        // of a whole answer the client hears nothing before its end
        if (i === 1 && stream) await call;
        controller.abort();
        await neuron!.until(() => neuron!.counters.aborted === aborted + 1);
      }
    }
    await gateway.fleet.operations.unload('m', null);
  });

  test('a truncated stream ends with a typed error and no [DONE]', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const whole = chatStream('m', ['one', 'two']);
    neurons[0]!.onChat = ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(whole.slice(0, whole.indexOf('two')), () => response.destroy());
    };
    const text = await (await post(gateway, '/v1/chat/completions', ask('m', { stream: true }))).text();
    const events = new SseParser().push(Buffer.from(text)).map(({ data }) => JSON.parse(data));
    assert.equal(events.at(-1).error.code, 'upstream_connection_error');
    assert.ok(!text.includes('[DONE]'));
  });
});

describe('replicas', () => {
  test('a request moves on before the first byte, never to the same node twice', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }, { models: [loaded('m')] }]);
    const failures: readonly ((response: import('node:http').ServerResponse) => void)[] = [
      (response) => void response.destroy(),
      (response) => void response.writeHead(503).end('{"error":{"code":"overloaded","message":"full"}}'),
      (response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.flushHeaders();
        setImmediate(() => response.destroy());
      },
    ];
    for (const [i, fail] of failures.entries()) {
      const chats = neurons.map((neuron) => neuron.counters.chats);
      neurons[0]!.onChat = ({ response }) => fail(response);
      // another conversation each: the same one would stay with the node that answered it
      const messages = [{ role: 'user', content: `round ${i}` }];
      const answer = await post(gateway, '/v1/chat/completions', ask('m', { stream: true, messages }));
      assert.equal(answer.status, 200);
      assert.match(await answer.text(), /world/);
      assert.match(answer.headers.get('x-cortex-route') ?? '', /node=n1/);
      assert.deepEqual(
        neurons.map((neuron, i) => neuron.counters.chats - chats[i]!),
        [1, 1],
      );
    }
  });

  test('with nowhere to go a refusal keeps status, body and Retry-After', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const refusal =
      '{"error":{"message":"queue full","type":"server_error","code":"overloaded","param":null}}';
    neurons[0]!.onChat = ({ response }) => {
      response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '7' });
      response.end(refusal);
    };
    const openai = await post(gateway, '/v1/chat/completions', ask('m'));
    assert.equal(openai.status, 503);
    assert.equal(openai.headers.get('retry-after'), '7');
    assert.equal(await openai.text(), refusal);
    const anthropic = await post(gateway, '/v1/messages', ask('m', { max_tokens: 5 }));
    assert.equal(anthropic.status, 503);
    assert.equal(anthropic.headers.get('retry-after'), '7');
    const body = (await anthropic.json()) as { type: string; error: { type: string; message: string } };
    assert.equal(body.type, 'error');
    assert.equal(body.error.type, 'overloaded_error');
    assert.equal(body.error.message, 'queue full');
  });

  test('own requests count: a burst spreads although no poll happened', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }, { models: [loaded('m')] }]);
    const gate = createGate();
    for (const neuron of neurons) {
      neuron.onChat = async (call) => {
        await gate.opened;
        answerWords(call, ['x']);
      };
    }
    const calls = Array.from({ length: 8 }, () => post(gateway, '/v1/chat/completions', ask('m')));
    await Promise.all(neurons.map((neuron) => neuron.until(() => neuron.counters.chats === 4)));
    gate.open();
    for (const call of calls) await (await call).text();
  });

  test('a node is unhealthy after three misses, not after one', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    neurons[0]!.failing = true;
    for (const healthy of [true, true, false]) {
      await gateway.fleet.pollNow('n0');
      assert.equal(gateway.fleet.facts.isHealthy('n0'), healthy);
    }
    const answer = await post(gateway, '/v1/chat/completions', ask('m'));
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get('retry-after'), '5');
    neurons[0]!.failing = false;
    await gateway.fleet.pollNow('n0');
    assert.equal(gateway.fleet.facts.isHealthy('n0'), true);
  });
});

describe('anthropic', () => {
  test('streams its own events, whatever the chunks', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const bytes = Buffer.from(chatStream('m', ['日本', '🙂']));
    neurons[0]!.onChat = async ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const byte of bytes) await new Promise((resolve) => response.write(Buffer.of(byte), resolve));
      response.end();
    };
    const answer = await post(gateway, '/v1/messages?beta=true', ask('m', { max_tokens: 5, stream: true }));
    const events = new SseParser().push(Buffer.from(await answer.arrayBuffer()));
    assert.deepEqual(
      events.map(({ event }) => event),
      [
        'message_start',
        'content_block_start',
        'content_block_delta',
        'content_block_delta',
        'content_block_stop',
        'message_delta',
        'message_stop',
      ],
    );
    const last = JSON.parse(events[5]!.data);
    assert.deepEqual(last.usage, {
      input_tokens: 6,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 4,
      output_tokens: 2,
      output_tokens_details: { thinking_tokens: 0 },
    });
  });

  test('answers whole in its own shape, and refuses what is wrong in it', async () => {
    const { gateway } = await setup([{ models: [loaded('m')] }]);
    const body = (await (await post(gateway, '/messages', ask('m', { max_tokens: 5 }))).json()) as {
      content: { text: string }[];
      stop_reason: string;
    };
    assert.equal(body.content[0]?.text, 'Hello world');
    assert.equal(body.stop_reason, 'end_turn');
    const tools = await post(gateway, '/v1/messages', ask('m', { max_tokens: 5, tools: [{ name: 'x' }] }));
    const refusal = (await tools.json()) as { type: string; error: { type: string; message: string } };
    assert.equal(tools.status, 400);
    assert.equal(refusal.type, 'error');
    assert.equal(refusal.error.type, 'invalid_request_error');
    assert.equal(refusal.error.message, 'tools.0.input_schema: Field required');
  });

  test('a neuron that dies mid-stream gives an error event and no message_stop', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m')] }]);
    const whole = chatStream('m', ['one', 'two']);
    neurons[0]!.onChat = ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(whole.slice(0, whole.indexOf('two')), () => response.destroy());
    };
    const text = await (
      await post(gateway, '/v1/messages', ask('m', { max_tokens: 5, stream: true }))
    ).text();
    const events = new SseParser().push(Buffer.from(text));
    assert.equal(events.at(-1)?.event, 'error');
    assert.equal(JSON.parse(events.at(-1)!.data).error.type, 'api_error');
    assert.ok(!text.includes('message_stop'));
  });

  test('unknown model and wrong key come in its envelope', async () => {
    const { gateway } = await setup(
      [{ models: [loaded('m')] }],
      {},
      { entitlements: { require_auth: true, keys: [{ key: 'k', account_id: 'acc' }] } },
    );
    const denied = await post(gateway, '/v1/messages', ask('m', { max_tokens: 5 }));
    assert.equal(denied.status, 401);
    assert.equal(((await denied.json()) as { error: { type: string } }).error.type, 'authentication_error');
    const missing = await post(gateway, '/v1/messages', ask('nope', { max_tokens: 5 }), {
      headers: { 'x-api-key': 'k' },
    });
    assert.equal(missing.status, 404);
    assert.equal(((await missing.json()) as { error: { type: string } }).error.type, 'not_found_error');
    assert.match(missing.headers.get('x-cortex-route') ?? '', /^none; /);
  });
});

describe('edges', () => {
  test('hostile bodies are never a 500', async () => {
    const { gateway, neurons } = await setup(
      [{ models: [loaded('m')] }],
      {},
      { gateway: { max_body_mb: 1 } },
    );
    const deep = `{"model":"m","messages":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    const bodies: readonly (string | Uint8Array)[] = [
      '',
      'null',
      '[]',
      '{',
      '{"model":7}',
      '{"model":"m"}',
      deep,
      'x'.repeat(2 * 1024 * 1024),
      Buffer.from([0x7b, 0xff, 0xfe, 0x7d]),
      Buffer.concat([
        Buffer.from('{"model":"m","messages":[],"x":"'),
        Buffer.of(0xff, 0xc3),
        Buffer.from('"}'),
      ]),
    ];
    for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/messages']) {
      for (const body of bodies) {
        const answer = await post(gateway, path, body);
        assert.notEqual(answer.status, 500, `${path} ${String(body).slice(0, 40)}`);
        await answer.arrayBuffer();
      }
    }
    assert.ok(neurons[0]!.counters.chats >= 1);
  });

  test('listings are stable, complete, and load nothing', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('b'), { id: 'a' }] }], {
      models: [{ id: 'c', vram_mb: 10 }],
      aliases: { z: 'a' },
    });
    const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as {
      data: { id: string; loaded: boolean }[];
    };
    assert.deepEqual(
      list.data.map(({ id, loaded }) => [id, loaded]),
      [
        ['a', false],
        ['b', true],
        ['c', false],
        ['z', false],
      ],
    );
    const one = await fetch(`${gateway.url}/v1/v1/models/b`);
    assert.equal(((await one.json()) as { id: string }).id, 'b');
    assert.equal((await fetch(`${gateway.url}/models/none`)).status, 404);
    await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`);
    assert.equal(neurons[0]!.counters.loads, 0);
    const health = (await (await fetch(`${gateway.url}/health`)).json()) as { status: string };
    assert.equal(health.status, 'ok');
    assert.equal((await fetch(gateway.url, { method: 'HEAD' })).status, 200);
    assert.equal((await fetch(`${gateway.url}/api/hello`, { method: 'HEAD' })).status, 200);
    const preflight = await fetch(`${gateway.url}/v1/messages`, { method: 'OPTIONS' });
    assert.equal(preflight.status, 204);
    assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /authorization/);
  });

  test('a budget is checked before anything is placed', async () => {
    const { gateway, neurons } = await setup(
      [{ models: [{ id: 'm' }] }],
      {},
      { entitlements: { keys: [{ key: 'k', account_id: 'acc', hard_cap: 100 }] } },
    );
    const headers = { authorization: 'Bearer k' };
    const over = await post(gateway, '/v1/chat/completions', ask('m', { max_tokens: 500 }), { headers });
    assert.equal(over.status, 429);
    assert.equal(over.headers.get('x-should-retry'), 'false');
    assert.equal(((await over.json()) as { error: { code: string } }).error.code, 'insufficient_quota');
    const threefold = ask('m', { max_tokens: 40, n: 3 });
    assert.equal((await post(gateway, '/v1/chat/completions', threefold, { headers })).status, 429);
    assert.equal(neurons[0]!.counters.loads, 0);
    const fits = await post(gateway, '/v1/chat/completions', ask('m', { max_tokens: 50 }), { headers });
    assert.equal(fits.status, 200);
    await fits.text();
    assert.equal(neurons[0]!.chats[0]!.headers['x-cortex-account-id'], 'acc');
  });

  test('admin loads, unloads and shows the fleet', async () => {
    const { gateway } = await setup([{ models: [{ id: 'm' }] }]);
    const load = await post(gateway, '/admin/load', { model: 'm' });
    assert.deepEqual(await load.json(), { status: 'loaded', model: 'm', node: 'n0' });
    const fleet = (await (await fetch(`${gateway.url}/admin/fleet`)).json()) as {
      nodes: { models: { id: string; status: string }[] }[];
    };
    assert.equal(fleet.nodes[0]?.models[0]?.status, 'loaded');
    const unload = await post(gateway, '/admin/unload', { model: 'm', node: 'n0' });
    assert.deepEqual(await unload.json(), { status: 'unloaded', model: 'm', nodes: ['n0'] });
    assert.equal((await post(gateway, '/admin/unload', { model: 'm' })).status, 404);
  });

  test('without admin keys no page of a browser and nobody behind a proxy is an admin', async () => {
    const { gateway } = await setup([{ models: [{ id: 'm' }] }]);
    for (const header of [
      ['origin', 'https://evil.example'],
      ['x-forwarded-for', '203.0.113.9'],
    ] as const) {
      const answer = await post(gateway, '/admin/load', { model: 'm' }, { headers: [[...header]] });
      assert.equal(answer.status, 403);
      assert.equal(answer.headers.get('access-control-allow-origin'), null);
    }
  });

  test('close refuses who waits and lets a stream end', async () => {
    const { gateway, neurons } = await setup([{ models: [loaded('m'), { id: 'cold' }] }]);
    const gate = createGate();
    neurons[0]!.onLoad = () => gate.opened.then(() => undefined);
    neurons[0]!.onChat = answerBehind(gate, ['last']);
    const stream = await post(gateway, '/v1/chat/completions', ask('m', { stream: true }));
    const waiting = post(gateway, '/v1/chat/completions', ask('cold'));
    await neurons[0]!.until(() => neurons[0]!.counters.loads === 1);
    const closed = gateway.close();
    assert.equal((await waiting).status, 503);
    gate.open();
    assert.match(await stream.text(), /last/);
    await closed;
  });

  test('1,000 aborted waiters leave nothing behind', async () => {
    const { gateway, neurons } = await setup([{ models: [{ id: 'm' }] }]);
    const gate = createGate();
    neurons[0]!.onLoad = () => gate.opened.then(() => undefined);
    const controller = new AbortController();
    const waits = Array.from({ length: 1000 }, () =>
      gateway.fleet.request({ model: 'm' }, controller.signal).ready.catch(() => 'gone'),
    );
    controller.abort(new Error('left'));
    assert.equal(new Set(await Promise.all(waits)).size, 1);
    assert.equal(gateway.fleet.waitingCount, 0);
    gate.open();
  });
});
