/** An answer that goes on at another neuron, as the wire shows it. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import { type Frame, FrameReader } from 'cortex-core/wire/token-frames';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const key = 'neuron-key';
const auth = { authorization: `Bearer ${key}` };

function start(): Promise<Neuron> {
  const config = neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    key,
    device_worker: 'thread',
    // answers are compared exactly: see "Repeatability" in engine/DESIGN.md
    engine: { threads: 1, flash_attention: false, speculation: 'off' },
    cpu: { memory_mb: 1000 },
    models: { dirs: [], hf_cache: join(tmpdir(), 'no-such-hub') },
    default_models: [{ model_id: tiny }],
  });
  return startNeuron(config, { log: silentLog });
}

let here: Neuron;
let there: Neuron;
before(async () => {
  [here, there] = await Promise.all([start(), start()]);
  await Promise.all([here.activated, there.activated]);
});
after(() => Promise.all([here?.close(), there?.close()]));

type Body = Readonly<Record<string, unknown>>;

async function post(neuron: Neuron, path: string, body: Body, headers: Record<string, string> = {}) {
  return fetch(`${neuron.url}${path}`, {
    method: 'POST',
    body: JSON.stringify({ model: 'cortex-tiny', ...body }),
    headers: { ...auth, ...headers },
  });
}

async function framesOf(response: Response): Promise<(Frame & { kind: 'events' })[]> {
  assert.equal(response.status, 200, response.ok ? '' : await response.text());
  const reader = new FrameReader();
  const frames = reader.push(new Uint8Array(await response.arrayBuffer()));
  assert.equal(reader.isMidFrame, false);
  return frames
    .filter((frame) => frame.kind !== 'keepAlive')
    .map((frame) => {
      assert.equal(frame.kind, 'events');
      return frame as Frame & { kind: 'events' };
    });
}

/** The events' JSON, without what no two runs share: times, and a call's id, which is shown once. */
function eventsOf(frames: readonly (Frame & { kind: 'events' })[]): unknown[] {
  const parser = new SseParser();
  return frames
    .flatMap(({ bytes }) => parser.push(bytes))
    .map(({ data }) => {
      if (data === '[DONE]') return data;
      const { timings, usage, ...event } = JSON.parse(data.replaceAll(/"call_\w+"/g, '"call"'));
      const { prompt_tokens_details: _, ...counted } = usage ?? {};
      return { ...event, ...(usage === undefined ? {} : { usage: counted }), hasTimings: !!timings };
    });
}

/** Lets the other neuron go on behind each frame; client and first neuron see what the whole run gave. */
async function checkEveryCut(path: string, body: Body): Promise<unknown[]> {
  const request = { stream: true, stream_options: { include_usage: true }, ...body };
  const whole = await framesOf(await post(here, path, request, { 'x-cortex-tokens': 'tell' }));
  const events = eventsOf(whole);
  assert.equal(events.at(-1), '[DONE]');
  const { id, created, model } = events[0] as { id: string; created: number; model: string };
  for (let cut = 1; cut < whole.length; cut++) {
    const sent = whole.slice(0, cut);
    const tokens = sent.flatMap((frame) => frame.tokens);
    const response = await post(
      there,
      path,
      { ...request, cortex_continue: { id, created, model, tokens } },
      { 'x-cortex-tokens': 'continue' },
    );
    assert.equal(response.headers.get('x-cortex-continued'), String(tokens.length));
    const rest = await framesOf(response);
    assert.deepEqual([...eventsOf(sent), ...eventsOf(rest)], events, `${path}, cut behind frame ${cut}`);
  }
  return events;
}

const france = [{ role: 'user', content: 'What is the capital of France?' }];
const weather = [{ role: 'user', content: 'What is the weather in Paris?' }];
const tools = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
    },
  },
];

describe('an answer that goes on at another neuron', () => {
  it('is the undisturbed one: greedy, usage counted once, one role, one id', async () => {
    const events = await checkEveryCut('/v1/chat/completions', { messages: france, temperature: 0 });
    assert.match(JSON.stringify(events), /"completion_tokens":12/);
  });

  it('is the undisturbed one: a seed, logprobs and a stop', async () => {
    await checkEveryCut('/v1/chat/completions', {
      messages: france,
      temperature: 1.3,
      seed: 7,
      max_tokens: 20,
      ignore_eos: true,
      logprobs: true,
      top_logprobs: 2,
      stop: ['zzz', ' the end'],
      frequency_penalty: 0.5,
    });
  });

  it('is the undisturbed one: a call of a tool, in the middle of its arguments', async () => {
    const events = await checkEveryCut('/v1/chat/completions', { messages: weather, temperature: 0, tools });
    assert.match(JSON.stringify(events), /get_weather.*tool_calls/);
  });

  it('is the undisturbed one: a schema', async () => {
    const schema = {
      type: 'object',
      properties: { city: { type: 'string', maxLength: 12 }, big: { type: 'boolean' } },
      required: ['city', 'big'],
      additionalProperties: false,
    };
    await checkEveryCut('/v1/chat/completions', {
      messages: france,
      temperature: 0,
      max_tokens: 60,
      response_format: { type: 'json_schema', json_schema: { name: 'city', schema, strict: true } },
    });
  });

  it('is the undisturbed one: thinking', async () => {
    const events = await checkEveryCut('/v1/chat/completions', {
      messages: france,
      temperature: 0,
      max_tokens: 60,
      enable_thinking: true,
    });
    assert.ok(events.length > 5);
  });

  it('is the undisturbed one: a raw completion with echo and places of its tokens', async () => {
    const raw = { prompt: 'The capital of', temperature: 0, max_tokens: 16 };
    await checkEveryCut('/v1/completions', { ...raw, echo: true });
    await checkEveryCut('/v1/completions', { ...raw, logprobs: 1 });
  });
});

describe('what a neuron tells and takes', () => {
  const body = { messages: france, temperature: 0, stream: true };

  it('says no ids to whom does not ask, and honours nobody without the key', async () => {
    const plain = await (await post(here, '/v1/chat/completions', body)).text();
    assert.doesNotMatch(plain, /: tok/);
    const stranger = await post(here, '/v1/chat/completions', body, {
      authorization: 'Bearer other',
      'x-cortex-tokens': 'tell',
    });
    assert.equal(stranger.status, 401);
  });

  it('says none for several choices, which cannot go on', async () => {
    const several = await post(
      here,
      '/v1/chat/completions',
      { ...body, n: 2 },
      { 'x-cortex-tokens': 'tell' },
    );
    assert.doesNotMatch(await several.text(), /: tok/);
  });

  it('ignores the field without the header, and names what is wrong with it', async () => {
    const sofar = { id: 'chatcmpl-1', created: 1, model: 'cortex-tiny', tokens: [1] };
    const ignored = await post(here, '/v1/chat/completions', { ...body, cortex_continue: sofar });
    assert.equal(ignored.headers.get('x-cortex-continued'), null);
    assert.match(await ignored.text(), /"content":"The"/);
    const wrong: [Body, RegExp][] = [
      [body, /cortex_continue/],
      [{ ...body, stream: false, cortex_continue: sofar }, /stream/],
      [{ ...body, n: 2, cortex_continue: sofar }, /"n"/],
      [{ ...body, cortex_continue: { ...sofar, tokens: [2 ** 32 + 5] } }, /not in the vocabulary/],
      [{ ...body, cortex_continue: { ...sofar, tokens: 'abc' } }, /tokens/],
      [{ ...body, cortex_continue: { ...sofar, more: 1 } }, /more/],
    ];
    for (const [request, message] of wrong) {
      const refused = await post(here, '/v1/chat/completions', request, { 'x-cortex-tokens': 'continue' });
      const text = await refused.text();
      assert.ok(refused.status >= 400 && refused.status < 500, text);
      assert.match(text, message);
    }
  });

  it('says in its listing which weights and which template it has', async () => {
    const digests = await Promise.all(
      [here, there].map(async (neuron) => {
        const rows = (await (await fetch(`${neuron.url}/models`, { headers: auth })).json()) as Body[];
        const { weights_digest: weights, template_digest: template } = rows[0]!;
        return [weights, template];
      }),
    );
    assert.match(String(digests[0]![0]), /^[0-9a-f]{64}$/);
    assert.match(String(digests[0]![1]), /^[0-9a-f]{64}$/);
    assert.deepEqual(digests[0], digests[1]);
  });
});
