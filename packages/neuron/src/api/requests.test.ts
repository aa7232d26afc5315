/** What happens between the socket and the device, with a device that does what the test says. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import { FakeClock } from 'testkit/clock';
import { createGate } from 'testkit/gate';
import type { Neuron } from '../neuron.ts';
import { type Generation, ScriptedDevice, scriptedVocabulary } from './scripted-device.test.kit.ts';
import { chat, openChat, startTiny, tiny, until } from './scripted-neuron.test.kit.ts';

const mib = 1024 * 1024;

let neuron: Neuron;
let device: ScriptedDevice;

afterEach(() => neuron.close());

async function start(over: Readonly<Record<string, unknown>> = {}, clock?: FakeClock): Promise<void> {
  device = new ScriptedDevice();
  neuron = await startTiny(device, over, clock === undefined ? {} : { clock });
}

function call(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
  const method = body === undefined ? 'GET' : 'POST';
  const text = body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body);
  return fetch(`${neuron.url}${path}`, { method, headers, body: text });
}

const open = (body: unknown) => openChat(neuron, body);

function load() {
  const [first] = neuron.registry.loads();
  assert.ok(first);
  return first;
}

async function answerTo(generation: Generation, response: Promise<Response>): Promise<string> {
  generation.emit('done');
  generation.finish();
  const body = (await (await response).json()) as { choices: [{ message: { content: string } }] };
  return body.choices[0].message.content;
}

describe('a client that leaves', () => {
  it('gives up its place in the queue, and never reaches the device', async () => {
    await start({ admission: { max_in_flight: 1 } });
    const first = call('/v1/chat/completions', chat);
    const running = await device.next();
    const { client } = open({ ...chat, stream: true });
    await until(() => load().queue_depth === 1);
    client.destroy();
    await until(() => load().queue_depth === 0);
    assert.equal(load().in_flight, 1);
    assert.equal(await answerTo(running, first), 'done');
    const next = call('/v1/chat/completions', chat);
    assert.equal(await answerTo(await device.next(), next), 'done');
    assert.equal(device.generations.length, 2);
  });

  for (const phase of ['prefill', 'mid-stream', 'non-stream'] as const) {
    it(`frees its slot: ${phase}`, async () => {
      await start({ admission: { max_in_flight: 1 } });
      const { client, response } = open({ ...chat, stream: phase !== 'non-stream' });
      const left = await device.next();
      if (phase !== 'prefill') left.emit('some text ');
      if (phase === 'mid-stream')
        await new Promise<void>(
          (resolve) => void response.then((each) => each.once('data', () => resolve())),
        );
      client.destroy();
      await left.cancelled;
      const next = call('/v1/chat/completions', chat);
      assert.equal(await answerTo(await device.next(), next), 'done');
      assert.equal(load().in_flight, 0);
    });
  }
});

describe('a client that does not read', () => {
  it('is cut at the bound, its generation cancelled, and others go on', async () => {
    await start();
    const socket = await paused({ ...chat, stream: true });
    const slow = await device.next();
    const other = call('/v1/chat/completions', { ...chat, stream: true });
    const good = await device.next();
    const piece = 'x'.repeat(64 * 1024);
    let sent = 0;
    while (!slow.signal.aborted) {
      slow.emit(piece);
      good.emit('y');
      sent += piece.length;
      assert.ok(sent < 64 * mib, 'nobody cut the client');
      await new Promise((resolve) => setImmediate(resolve));
    }
    await slow.cancelled;
    assert.ok(sent > 4 * mib, `cut after ${sent} bytes`);
    good.emit('z');
    good.finish();
    const data = await readEvents(await other);
    assert.equal(data.at(-1), '[DONE]');
    const text = data
      .slice(0, -1)
      .map((each) => contentOf(each))
      .join('');
    assert.equal(text, `${'y'.repeat(sent / piece.length)}z`);
    await until(() => load().in_flight === 0);
    socket.destroy();
  });

  async function paused(body: unknown): Promise<Socket> {
    const socket = connect(neuron.port, '127.0.0.1');
    socket.pause();
    socket.on('error', () => {});
    const text = JSON.stringify(body);
    const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${text.length}\r\n\r\n`;
    await new Promise<void>((resolve) => socket.write(head + text, () => resolve()));
    return socket;
  }
});

async function readEvents(response: Response): Promise<string[]> {
  const parser = new SseParser();
  const bytes = new Uint8Array(await response.arrayBuffer());
  return parser.push(bytes).map((event) => event.data);
}

function contentOf(data: string): string {
  const chunk = JSON.parse(data) as { choices: [{ delta: { content?: string } }] };
  return chunk.choices[0].delta.content ?? '';
}

describe('unload', () => {
  it('lets a running stream end whole, refuses new requests, then succeeds', async () => {
    await start();
    const stream = call('/v1/chat/completions', { ...chat, stream: true });
    const running = await device.next();
    running.emit('one ');
    const unloading = call('/models/unload', { model_id: 'cortex-tiny' });
    await until(() => !neuron.registry.isLoaded('cortex-tiny'));
    const refused = await call('/v1/chat/completions', chat);
    assert.equal(refused.status, 404);
    assert.equal(((await refused.json()) as { error: { code: string } }).error.code, 'model_not_loaded');
    assert.deepEqual(device.dropped, []);
    running.emit('two');
    running.finish();
    const data = await readEvents(await stream);
    assert.equal(data.at(-1), '[DONE]');
    assert.equal(data.slice(0, -1).map(contentOf).join(''), 'one two');
    assert.equal((await unloading).status, 200);
    assert.deepEqual(device.dropped, [1]);
  });
});

describe('a model that is unloaded while a prompt is read', () => {
  it('is not there, rather than an internal error', async () => {
    for (const [path, body] of [
      ['/v1/chat/completions', chat],
      ['/v1/completions', { model: 'cortex-tiny', prompt: 'x' }],
      ['/tokenize', chat],
    ] as const) {
      await start();
      device.tokenize = async () => {
        await neuron.registry.unload('cortex-tiny');
        throw new AppError('job_failed', 'Tokenize: no model for handle 1');
      };
      const response = await call(path, body);
      assert.equal(response.status, 404, path);
      assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'model_not_found');
      await neuron.close();
    }
  });
});

describe('a model whose prompt is read for long', () => {
  it('is in use, whoever else was served meanwhile', async () => {
    const clock = new FakeClock();
    await start({}, clock);
    const [entered, gate] = [createGate(), createGate()];
    const { tokenize } = ScriptedDevice.prototype;
    device.tokenize = async (...job) => {
      entered.open();
      await gate.opened;
      return tokenize.apply(device, job);
    };
    const { response } = open(chat);
    await entered.opened;
    const other = call('/v1/completions', { model: 'cortex-tiny', prompt: [1, 2] });
    const short = await device.next();
    short.finish();
    assert.equal((await other).status, 200);
    const { load_id, requests } = neuron.registry.loads()[0]?.use ?? assert.fail('it is gone');
    assert.equal(requests, 2);
    await clock.advance(11_000);
    const since = () => ({ load_id, requests: neuron.registry.loads()[0]?.use?.requests });
    const refused = await call('/models/unload', { model_id: 'cortex-tiny', unused_since: since() });
    assert.deepEqual(
      [refused.status, ((await refused.json()) as { code: string }).code],
      [409, 'model_in_use'],
    );
    gate.open();
    const generation = await device.next();
    generation.finish();
    assert.equal((await response).statusCode, 200);
    (await response).resume();
    await clock.advance(11_000);
    assert.equal(clock.pending, 0);
    const unloaded = await call('/models/unload', { model_id: 'cortex-tiny', unused_since: since() });
    assert.equal(unloaded.status, 200);
  });

  it('takes no place in the line of those who wait until the model has moved', async () => {
    const clock = new FakeClock();
    await start({ admission: { max_in_flight: 1, max_queue_depth: 1 } }, clock);
    const running = call('/v1/completions', { model: 'cortex-tiny', prompt: [1, 2] });
    const generation = await device.next();
    const [entered, gate] = [createGate(), createGate()];
    device.tokenize = async () => {
      entered.open();
      await gate.opened;
      return Int32Array.of(1);
    };
    const reading = call('/v1/chat/completions', chat);
    await entered.opened;
    const recycling = neuron.registry.recycle(0, 60_000).catch(() => {});
    await clock.advance(5000);
    const newcomer = neuron.registry.whenServing('cortex-tiny', new AbortController().signal);
    newcomer.catch(() => {});
    generation.finish();
    assert.equal((await running).status, 200);
    await recycling;
    assert.equal((await newcomer).id, 'cortex-tiny');
    gate.open();
    assert.equal(await answerTo(await device.next(), reading), 'done');
  });
});

describe('the key', () => {
  it('is asked for everywhere but on /health and /version, and by no other spelling', async () => {
    await start({ key: 'secret key' });
    for (const path of ['/health', '/version']) assert.equal((await call(path)).status, 200, path);
    const guarded: [string, unknown?][] = [
      ['/v1/models'],
      ['/models'],
      ['/discovery'],
      ['/metrics'],
      ['/models/cortex-tiny/endpoint'],
      ['/models/cortex-tiny/capabilities'],
      ['/v1/chat/completions', chat],
      ['/v1/completions', chat],
      ['/tokenize', chat],
      ['/detokenize', chat],
      ['/models/load', { model_id: 'x' }],
      ['/models/unload', { model_id: 'cortex-tiny' }],
    ];
    for (const [path, body] of guarded) {
      for (const authorization of ['', 'Bearer', 'Bearer secret', 'Bearer SECRET KEY', 'Basic secret key']) {
        const refused = await call(path, body, authorization === '' ? {} : { authorization });
        assert.equal(refused.status, 401, `${path} with "${authorization}"`);
        assert.equal(refused.headers.get('www-authenticate'), 'Bearer');
        assert.match(await refused.text(), /Authorization: Bearer KEY/);
      }
    }
    assert.equal(neuron.registry.isLoaded('cortex-tiny'), true);
    assert.equal((await call('/models', undefined, { authorization: 'bearer secret key' })).status, 200);
    assert.equal((await call('/v1/models', undefined, { 'x-api-key': 'secret key' })).status, 200);
  });
});

describe('GET /metrics', () => {
  it('counts what ran, per model, and says what is running', async () => {
    await start();
    const answered = call('/v1/chat/completions', chat);
    await answerTo(await device.next(), answered);
    const running = call('/v1/chat/completions', chat);
    const second = await device.next();
    const response = await call('/metrics');
    assert.match(response.headers.get('content-type') ?? '', /^text\/plain/);
    const text = await response.text();
    const prompt = device.generations[0]?.params.tokens.length;
    for (const line of [
      'neuron_requests_total{model="cortex-tiny"} 1',
      `neuron_prompt_tokens_total{model="cortex-tiny"} ${prompt}`,
      'neuron_cached_prompt_tokens_total{model="cortex-tiny"} 2',
      'neuron_completion_tokens_total{model="cortex-tiny"} 1',
      'neuron_request_duration_seconds_count{model="cortex-tiny"} 1',
      'neuron_time_to_first_token_seconds_count{model="cortex-tiny"} 1',
      'neuron_draft_tokens_total{model="cortex-tiny"} 0',
      'neuron_model_in_flight{model="cortex-tiny"} 1',
      'neuron_model_queue_depth{model="cortex-tiny"} 0',
    ]) {
      assert.ok(text.split('\n').includes(line), `${line} is not in\n${text}`);
    }
    assert.doesNotMatch(text, /neuron_request_errors_total\{/);
    await answerTo(second, running);
    await neuron.registry.unload('cortex-tiny');
    assert.doesNotMatch(await (await call('/metrics')).text(), /neuron_model_in_flight\{/);
  });
});

describe('what was drafted', () => {
  it('is told with the timings, of all choices, streamed and whole, and counted', async () => {
    await start();
    const drafts = [{ drafted: 12, accepted: 5 }, { drafted: 3, accepted: 0 }, undefined] as const;
    for (const stream of [false, true]) {
      const options = stream ? { stream, stream_options: { include_usage: true } } : {};
      const answered = call('/v1/chat/completions', { ...chat, n: 3, ...options });
      for (const speculation of drafts) {
        const generation = await device.next();
        generation.emit('done');
        generation.finish('stop', speculation);
      }
      const text = await (await answered).text();
      assert.match(text, /"timings":\{[^}]*"draft_n":15,"draft_n_accepted":5\}/);
    }
    const plain = call('/v1/chat/completions', chat);
    const last = await device.next();
    last.emit('done');
    last.finish();
    assert.doesNotMatch(await (await plain).text(), /draft_n/);
    const metrics = await (await call('/metrics')).text();
    assert.match(metrics, /^neuron_draft_tokens_total\{model="cortex-tiny"\} 30$/m);
    assert.match(metrics, /^neuron_draft_tokens_accepted_total\{model="cortex-tiny"\} 10$/m);
  });
});

describe('/tokenize and /detokenize', () => {
  it('give a text back, whole characters and all', async () => {
    await start();
    const content = 'naïve 日本 🦊\n';
    const response = await call('/tokenize', { model: 'cortex-tiny', content, messages: null });
    const { tokens, count } = (await response.json()) as { tokens: number[]; count: number };
    assert.equal(count, [...content].length);
    const back = await call('/detokenize', { model: 'cortex-tiny', tokens });
    assert.deepEqual(await back.json(), { content });
  });

  it('shows the prompt of a conversation exactly as a request would run it', async () => {
    await start();
    const { tokens } = (await (await call('/tokenize', chat)).json()) as { tokens: number[] };
    const answered = call('/v1/chat/completions', chat);
    const generation = await device.next();
    assert.deepEqual([...generation.params.tokens], tokens);
    await answerTo(generation, answered);
  });
});

describe('a request of the wrong shape', () => {
  it('is refused with the path of the field, and reaches no device', async () => {
    await start();
    const content = [{ type: 'text', text: 7 }];
    const cases: [string, unknown, number, string][] = [
      ['/v1/chat/completions', { ...chat, messages: [] }, 400, 'messages'],
      [
        '/v1/chat/completions',
        { ...chat, messages: [{ role: 'user', content: 3 }] },
        422,
        'messages.0.content',
      ],
      [
        '/v1/chat/completions',
        { ...chat, messages: [{ role: 'user', content }] },
        422,
        'messages.0.content.0.text',
      ],
      ['/v1/chat/completions', { ...chat, messages: [{ role: 'constructor' }] }, 422, 'messages.0.role'],
      ['/v1/chat/completions', { ...chat, messages: [{ role: '__proto__' }] }, 422, 'messages.0.role'],
      ['/v1/chat/completions', { ...chat, stop: Array(10_000).fill('x') }, 400, 'stop'],
      ['/v1/chat/completions', { ...chat, temperature: 'NaN' }, 400, 'temperature'],
      [
        '/v1/chat/completions',
        '{"model":"cortex-tiny","messages":[{"role":"user"}],"temperature":1e999}',
        400,
        'temperature',
      ],
      ['/v1/chat/completions', { ...chat, seed: 'x' }, 400, 'seed'],
      ['/v1/chat/completions', { ...chat, model: 1 }, 422, 'model'],
      ['/v1/chat/completions', [], 422, ''],
      ['/v1/completions', { model: 'cortex-tiny', prompt: [] }, 400, 'prompt'],
      ['/v1/completions', { model: 'cortex-tiny', prompt: [2 ** 32 + 5] }, 400, 'prompt'],
      ['/v1/completions', { model: 'cortex-tiny', prompt: [-1] }, 400, 'prompt'],
      ['/v1/completions', { model: 'cortex-tiny', prompt: 'x'.repeat(5000) }, 400, 'prompt'],
      ['/tokenize', { model: 'cortex-tiny' }, 422, 'content'],
      ['/tokenize', { model: 'cortex-tiny', content: 1 }, 422, 'content'],
      ['/detokenize', { model: 'cortex-tiny', tokens: [1.5] }, 400, 'tokens'],
      ['/detokenize', { model: 'cortex-tiny', tokens: [scriptedVocabulary] }, 400, 'tokens'],
    ];
    for (const [path, body, status, param] of cases) {
      const response = await call(path, body);
      const { error } = (await response.json()) as { error: { param: string | null; message: string } };
      assert.deepEqual([response.status, error.param ?? ''], [status, param], error.message);
    }
    assert.equal(device.generations.length, 0);
  });

  it('is refused by the lifecycle routes in a sentence that names the field', async () => {
    await start();
    const cases: [string, unknown, RegExp][] = [
      ['/models/load', { model_id: 'x', devices: [0, 'one'] }, /"devices\.1"/],
      ['/models/load', { model_id: 'x', context: 'large' }, /"context"/],
      ['/models/load', { model_id: 'x', slots: 0 }, /"slots"/],
      ['/models/load', { model_id: 7 }, /"model_id"/],
      ['/models/load', { model_id: 'x', colour: 'red' }, /colour/],
      ['/models/unload', { model_id: 7 }, /"model_id"/],
    ];
    for (const [path, body, named] of cases) {
      const response = await call(path, body);
      const { error } = (await response.json()) as { error: string };
      assert.equal(response.status, 422, error);
      assert.match(error, named);
    }
  });
});

describe('POST /models/load', () => {
  it('takes no path, and touches no file for one', async () => {
    await start();
    // Whatever looks at the disk is behind this call.
    const asked: string[] = [];
    neuron.registry.load = async ({ model_id }) => void asked.push(model_id);
    const names = ['../../etc/passwd', '/abs/file.gguf', 'a\0b', '..', 'a/../b', '~/x', 'C:\\x', './x', tiny];
    const ids = [...names, 'huggingface:../etc', 'huggingface:/etc/x', 'org/\0'];
    for (const model_id of ids) {
      const response = await call('/models/load', { model_id });
      const { error } = (await response.json()) as { error: string };
      assert.equal(response.status, 400, model_id);
      assert.match(error, /a model id is a name, not a path/);
    }
    assert.deepEqual(asked, []);
  });

  it('refuses what this machine cannot do before it fetches anything', async () => {
    let fetched = 0;
    const noNetwork = async (): Promise<never> => {
      fetched++;
      throw new TypeError('no network');
    };
    neuron = await startTiny(new ScriptedDevice(), { default_models: [] }, { fetch: noNetwork });
    for (const wrong of [
      { devices: [3] },
      { tensor_parallel: 4 },
      { cache_type_k: 'q3' },
      { harness: 'vllm' },
    ]) {
      const response = await call('/models/load', { model_id: 'org/name', ...wrong });
      assert.equal(response.status, 400, await response.text());
    }
    assert.equal(fetched, 0);
    assert.equal((await call('/models/load', { model_id: 'org/name' })).status, 422);
    assert.equal(fetched, 1);
  });
});
