/** kill -9 of a neuron in the middle of its streams: what clients of every dialect see, with real weights. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadConfig } from 'cortex-core/config/load';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import { type Gateway, startGateway } from 'cortex-gateway/gateway';
import { type NeuronChild, startNeuronChild } from './neuron-child.test.kit.ts';
import { postJson, tinyFile } from './stack.ts';

const cache = mkdtempSync(join(tmpdir(), 'cortex-continuation-'));
const settings = {
  listen: '127.0.0.1',
  port: 0,
  device_worker: 'thread',
  // answers are compared word for word: see "Repeatability" in neuron/engine/DESIGN.md
  engine: { context: 2048, slots: 24, threads: 1, flash_attention: false, speculation: 'off' },
  models: { dirs: [], hf_cache: cache },
  default_models: [{ model_id: tinyFile }],
};

let fleet: NeuronChild[] = [];
const dead = new Set<string>();
let gateway: Gateway;

async function startFleet(count: number): Promise<void> {
  fleet = await Promise.all(Array.from({ length: count }, () => startNeuronChild(settings)));
  gateway = await startGateway(
    loadConfig('cortex', {
      defaults: {
        gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
        failover: { give_up_secs: 5 },
        neurons: fleet.map(({ url }, at) => ({ name: `n${at}`, endpoint: url })),
      },
    }),
    loadConfig('models', {}),
    { log: silentLog },
  );
}

function kill(node: string): Promise<void> {
  dead.add(node);
  return fleet[Number(node.slice(1))]!.kill();
}

/** The node that works most of those that live, once one does: the gateway sends a talk where it was before. */
async function busiest(): Promise<string> {
  for (;;) {
    const living = gateway.fleet.nodes().filter(({ name }) => !dead.has(name));
    const [most] = living.sort((a, b) => b.leaseCount - a.leaseCount);
    if (most !== undefined && most.leaseCount > 0) return most.name;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

before(() => startFleet(3));
after(async () => {
  await gateway?.close();
  for (const neuron of fleet) await neuron.kill();
  rmSync(cache, { recursive: true, force: true });
});

type Body = Readonly<Record<string, unknown>>;
interface Asked {
  readonly path: string;
  readonly body: Body;
}

const tell = [{ role: 'user', content: 'Tell me a long story about the sun, the sea and a small dog.' }];
const long = { model: 'cortex-tiny', max_tokens: 300, ignore_eos: true };
const schema = {
  type: 'object',
  properties: { list: { type: 'array', minItems: 30, maxItems: 30, items: { type: 'integer' } } },
  required: ['list'],
  additionalProperties: false,
};
const kinds: readonly Asked[] = [
  { path: '/chat/completions', body: { ...long, messages: tell, temperature: 0 } },
  {
    path: '/chat/completions',
    body: { ...long, messages: tell, temperature: 1.2, seed: 42, logprobs: true },
  },
  // no place of this one is close: with flash attention and with a cache in q8_0 the model draws the same
  { path: '/completions', body: { ...long, prompt: 'Once upon a time', temperature: 0.3, seed: 3 } },
  {
    path: '/chat/completions',
    body: {
      ...{ model: 'cortex-tiny', messages: tell, temperature: 0, max_tokens: 400 },
      response_format: { type: 'json_schema', json_schema: { name: 'list', schema, strict: true } },
    },
  },
  { path: '/messages', body: { model: 'cortex-tiny', max_tokens: 160, messages: tell, temperature: 0 } },
];

interface Seen {
  readonly text: string;
  readonly bytes: string;
}

/** Reads a stream to its end; `onFirst` is called when the first piece of text is there. */
async function ask(
  { path, body }: Asked,
  onText: (node: string, pieces: number) => void = () => {},
): Promise<Seen> {
  const request = { stream: true, stream_options: { include_usage: true }, ...body };
  const response = await postJson(`${gateway.url}/v1${path}`, request);
  assert.equal(response.status, 200);
  const node = /node=(\w+)/.exec(response.headers.get('x-cortex-route') ?? '')?.[1] ?? '';
  const parser = new SseParser();
  const decoder = new TextDecoder();
  let bytes = '';
  let text = '';
  let pieces = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    bytes += decoder.decode(chunk, { stream: true });
    for (const { data } of parser.push(chunk)) {
      const piece = textOf(data);
      text += piece;
      if (piece !== '') onText(node, ++pieces);
    }
  }
  return { text, bytes };
}

function textOf(data: string): string {
  if (data === '[DONE]') return '';
  const { choices, delta, error } = JSON.parse(data);
  assert.equal(error, undefined, data);
  const [choice] = choices ?? [];
  return choice?.delta?.content ?? choice?.text ?? delta?.text ?? '';
}

/** The stream's JSON without what no two answers share. */
function shape(bytes: string): unknown[] {
  return new SseParser().push(Buffer.from(bytes)).map(({ event, data }) => {
    if (data === '[DONE]') return data;
    return [
      event,
      JSON.parse(data, (key, value) => {
        if (key === 'timings' || key === 'prompt_tokens_details') return undefined;
        if (key === 'id' || key === 'created' || /^cache_|^input_tokens$/.test(key)) return null;
        return value;
      }),
    ];
  });
}

function idsOf(bytes: string): ReadonlySet<string> {
  return new Set([...bytes.matchAll(/"id":"([^"]+)"/g)].map((match) => match[1] ?? ''));
}

async function metric(name: string): Promise<string> {
  const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
  return text
    .split('\n')
    .filter((line) => line.startsWith(name))
    .join('\n');
}

describe('kill -9 of a neuron in the middle of 20 streams', {
  skip: process.platform === 'win32',
}, () => {
  test('every client gets the whole answer, word for word, as if nothing had happened', async () => {
    const whole = await Promise.all(kinds.map((kind) => ask(kind)));
    const asked = Array.from({ length: 20 }, (_, at) => at % kinds.length);
    const begun = new Map<string, number>();
    let killed: Promise<void> | null = null;
    const streams = asked.map((kind) =>
      ask(kinds[kind]!, (node, pieces) => {
        if (pieces !== 3) return;
        begun.set(node, (begun.get(node) ?? 0) + 1);
        // four of those that run there are in the middle, the others perhaps before it
        if (begun.get(node) === 4) killed ??= kill(node);
      }),
    );
    const seen = await Promise.all(streams);
    assert.notEqual(killed, null, `only ${JSON.stringify([...begun])} streams had begun`);
    await killed;
    for (const [at, { text, bytes }] of seen.entries()) {
      const expected = whole[asked[at]!]!;
      assert.equal(text, expected.text, `stream ${at}`);
      assert.deepEqual(shape(bytes), shape(expected.bytes), `stream ${at}`);
      assert.equal(idsOf(bytes).size, 1, `stream ${at}`);
      assert.doesNotMatch(bytes, /: tok/);
    }
    const continued = /cortex_continuations_total\{result="continued"\} (\d+)/.exec(
      await metric('cortex_continuations_total'),
    );
    assert.ok(Number(continued?.[1]) >= 1, `${continued?.[1]} continued`);
    assert.equal(
      gateway.fleet.nodes().reduce((sum, node) => sum + node.leaseCount, 0),
      0,
    );
  });

  test('a whole answer is sent again, unseen', async () => {
    const answers = Array.from({ length: 6 }, () =>
      postJson(`${gateway.url}/v1/chat/completions`, kinds[0]!.body),
    );
    await kill(await busiest());
    for (const answer of await Promise.all(answers)) {
      assert.equal(answer.status, 200);
      const { choices } = (await answer.json()) as { choices: { finish_reason: string }[] };
      assert.equal(choices[0]!.finish_reason, 'length');
    }
  });

  test('where nobody is left the stream ends in a typed error, and never as if it were whole', async () => {
    let killed = false;
    const openAi = postJson(`${gateway.url}/v1/chat/completions`, { ...kinds[0]!.body, stream: true });
    const anthropic = postJson(`${gateway.url}/v1/messages`, { ...kinds[4]!.body, stream: true });
    const texts = await Promise.all(
      [openAi, anthropic].map(async (call) => {
        const decoder = new TextDecoder();
        let text = '';
        for await (const chunk of (await call).body as unknown as AsyncIterable<Uint8Array>) {
          text += decoder.decode(chunk, { stream: true });
          if (!killed && /"content":"\S|text_delta/.test(text)) {
            killed = true;
            await kill(await busiest());
          }
        }
        return text;
      }),
    );
    const [chat = '', messages = ''] = texts;
    assert.match(chat, /data: \{"error":\{[^\n]*"code":"upstream_connection_error"[^\n]*\n\n$/);
    assert.doesNotMatch(chat, /\[DONE\]/);
    assert.match(messages, /event: error\ndata: \{"type":"error"[^\n]*\n\n$/);
    assert.doesNotMatch(messages, /message_stop/);
  });
});
