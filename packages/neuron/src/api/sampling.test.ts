/**
 * Every sampling field acts, under the name that clients send, on both endpoints: a run with the field is held
 * against the same run without it (or with another value of it), so that a field which is ignored fails here.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const question = 'Tell me about the sun.';
const paths = ['/v1/chat/completions', '/v1/completions'] as const;
type Path = (typeof paths)[number];
type Fields = Readonly<Record<string, unknown>>;

let neuron: Neuron;

const folder = mkdtempSync(join(tmpdir(), 'neuron-sampling-'));

before(async () => {
  const greedy = withMetadata({ temp: 0 });
  const narrow = withMetadata({ temp: 2, top_k: 1 });
  const absurd = withMetadata({ temp: -5, top_p: 7, min_p: Number.NaN, penalty_repeat: 1e9 });
  for (const [name, bytes] of Object.entries({ greedy, narrow, absurd })) {
    writeFileSync(join(folder, `${name}.gguf`), bytes);
  }
  const config = neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    engine: { threads: 1, context: 1024 },
    cpu: { memory_mb: 2000 },
    models: { hf_cache: join(tmpdir(), 'no-such-hub'), dirs: [folder] },
    default_models: [tiny, 'greedy', 'narrow', 'absurd'].map((model_id) => ({ model_id, slots: 1 })),
  });
  neuron = await startNeuron(config, { log: silentLog });
  await neuron.activated;
  assert.deepEqual(neuron.activation.state.failed, []);
});
after(async () => {
  await neuron.close();
  rmSync(folder, { recursive: true });
});

/**
 * The model that ships, with `general.sampling.*` as floats put before its other metadata. A key that is padding
 * brings what is inserted to a multiple of 32 bytes, so that the tensors stay aligned (GGUF specification).
 */
function withMetadata(sampling: Readonly<Record<string, number>>): Buffer {
  const key = (name: string, type: number): Buffer => {
    const head = Buffer.alloc(8 + name.length + 4);
    head.writeBigUInt64LE(BigInt(name.length), 0);
    head.write(name, 8, 'latin1');
    head.writeUInt32LE(type, 8 + name.length);
    return head;
  };
  const floats = Object.entries(sampling).map(([name, value]) => {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return Buffer.concat([key(`general.sampling.${name}`, 6), bytes]);
  });
  const text = Buffer.alloc(8);
  const padding = Buffer.concat([...floats, key('test.padding', 8), text]);
  const missing = (32 - (padding.length % 32)) % 32;
  text.writeBigUInt64LE(BigInt(missing));
  const original = readFileSync(tiny);
  const head = Buffer.from(original.subarray(0, 24));
  head.writeBigUInt64LE(head.readBigUInt64LE(16) + BigInt(floats.length + 1), 16);
  const inserted = [...floats, key('test.padding', 8), text, Buffer.alloc(missing, 'x')];
  return Buffer.concat([head, ...inserted, original.subarray(24)]);
}

interface Answer {
  readonly text: string;
  readonly finishReason: string;
  readonly completionTokens: number;
}

interface Choice {
  readonly text?: string;
  readonly message?: { readonly content: string };
  readonly delta?: { readonly content?: string };
  readonly finish_reason: string | null;
  readonly logprobs: unknown;
}

interface Body {
  readonly choices: readonly Choice[];
  readonly usage?: { readonly completion_tokens: number };
}

function bodyOf(path: Path, fields: Fields): string {
  const prompt = `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
  const input = path === '/v1/completions' ? { prompt } : { messages: [{ role: 'user', content: question }] };
  return JSON.stringify({ model: 'cortex-tiny', max_tokens: 48, ignore_eos: true, ...input, ...fields });
}

async function post(path: string, body: string): Promise<Response> {
  const response = await fetch(`${neuron.url}${path}`, { method: 'POST', body });
  if (response.status !== 200) assert.fail(await response.text());
  return response;
}

async function ask(path: Path, fields: Fields): Promise<Answer> {
  const body = (await (await post(path, bodyOf(path, fields))).json()) as Body;
  const [choice] = body.choices;
  assert.ok(choice !== undefined && body.usage !== undefined);
  return {
    text: choice.text ?? choice.message?.content ?? '',
    finishReason: choice.finish_reason ?? '',
    completionTokens: body.usage.completion_tokens,
  };
}

/** The text of each event, in order. */
async function stream(path: Path, fields: Fields): Promise<readonly string[]> {
  const response = await post(path, bodyOf(path, { ...fields, stream: true }));
  const events = new SseParser().push(new Uint8Array(await response.arrayBuffer()));
  const chunks = events.filter(({ data }) => data !== '[DONE]').map(({ data }) => JSON.parse(data) as Body);
  return chunks.map(({ choices: [choice] }) => choice?.text ?? choice?.delta?.content ?? '');
}

async function tokensOf(content: string): Promise<readonly number[]> {
  const body = JSON.stringify({ model: 'cortex-tiny', content, parse_special: true });
  return ((await (await post('/tokenize', body)).json()) as { tokens: number[] }).tokens;
}

async function textOf(tokens: readonly number[]): Promise<string> {
  const body = JSON.stringify({ model: 'cortex-tiny', tokens });
  return ((await (await post('/detokenize', body)).json()) as { content: string }).content;
}

const random: Fields = { temperature: 1.5, seed: 11, top_k: 0, top_p: 1, min_p: 0 };
const dry: Fields = { temperature: 0, dry_multiplier: 2, dry_base: 1.75, dry_allowed_length: 2 };

/** Field, what stays the same, and two values between which the text must change. */
const changes: readonly (readonly [string, Fields, unknown, unknown])[] = [
  ['temperature', { ...random, temperature: undefined }, 0.2, 2],
  ['top_k', random, 0, 3],
  ['top_p', random, 1, 0.5],
  ['min_p', random, 0, 0.3],
  ['typical_p', random, 1, 0.2],
  ['top_n_sigma', random, -1, 0.5],
  ['xtc_probability', { ...random, temperature: 0.5, xtc_threshold: 0.02 }, 0, 1],
  ['xtc_threshold', { ...random, temperature: 0.5, xtc_probability: 1 }, 0.5, 0.02],
  ['repeat_penalty', { temperature: 0 }, 1, 5],
  ['repetition_penalty', { temperature: 0 }, 1, 5],
  ['repeat_last_n', { temperature: 0, repeat_penalty: 5 }, 1, 64],
  ['frequency_penalty', { temperature: 0 }, 0, 5],
  ['presence_penalty', { temperature: 0 }, 0, 10],
  ['dry_multiplier', { ...dry, dry_multiplier: undefined }, 0, 2],
  ['dry_base', { ...dry, dry_multiplier: 0.1 }, 1, 50],
  ['dry_allowed_length', dry, 1, 20],
  ['dry_penalty_last_n', dry, 0, -1],
  ['dry_sequence_breakers', dry, ['\n'], [' ', 'e', 'a', 'o', 'i', 't']],
  ['logit_bias', { temperature: 0 }, {}, { 300: 1e6 }],
  ['seed', random, 11, 12],
];

/** Field, and a value at which sampling at a high temperature can only choose the likeliest. */
const narrowed: readonly (readonly [string, unknown])[] = [
  ['temperature', 0],
  ['temperature', 1e-20],
  ['top_k', 1],
  ['top_p', 1e-6],
  ['min_p', 1],
  ['top_n_sigma', 1e-6],
];

for (const path of paths) {
  describe(path, () => {
    for (const [field, fields, one, other] of changes) {
      it(`${field} acts`, async () => {
        const first = await ask(path, { ...fields, [field]: one });
        const second = await ask(path, { ...fields, [field]: other });
        assert.notEqual(first.text, second.text);
        assert.equal(
          (await ask(path, { ...fields, [field]: other })).text,
          second.text,
          'and repeats itself',
        );
      });
    }

    for (const [field, value] of narrowed) {
      it(`${field} = ${value} is greedy`, async () => {
        const greedy = await ask(path, { temperature: 0, seed: 1 });
        assert.equal((await ask(path, { ...random, [field]: value })).text, greedy.text);
        assert.notEqual((await ask(path, random)).text, greedy.text);
      });
    }

    it('a seed repeats its text, and without one two texts differ', async () => {
      assert.equal((await ask(path, random)).text, (await ask(path, random)).text);
      const { seed: _, ...unseeded } = random;
      assert.notEqual((await ask(path, unseeded)).text, (await ask(path, unseeded)).text);
    });

    it('presence and frequency penalties do not count the prompt', async () => {
      // One token: nothing of the answer is there to be counted, and the prompt must not be.
      const one = await ask(path, { temperature: 0, max_tokens: 1 });
      const penalised = { temperature: 0, max_tokens: 1, presence_penalty: 100, frequency_penalty: 100 };
      assert.equal((await ask(path, penalised)).text, one.text);
    });

    it('logit_bias forces and forbids a token, in both forms', async () => {
      const [one, other] = [400, 500];
      const fields = { temperature: 0, max_tokens: 3 };
      const thrice = async (token: number): Promise<string> => await textOf([token, token, token]);
      assert.equal((await ask(path, { ...fields, logit_bias: { [one]: 1000 } })).text, await thrice(one));
      assert.equal((await ask(path, { ...fields, logit_bias: [[one, 1000]] })).text, await thrice(one));
      const both = { [one]: 1000, [other]: 900 };
      assert.equal((await ask(path, { ...fields, logit_bias: both })).text, await thrice(one));
      const without = Object.entries({ ...both, [one]: false });
      assert.equal((await ask(path, { ...fields, logit_bias: without })).text, await thrice(other));
    });

    it("the model's own end tokens end an answer, and ignore_eos goes past them", async () => {
      for (const text of ['<|im_end|>', '<|endoftext|>']) {
        const [token, ...more] = await tokensOf(text);
        if (token === undefined || more.length > 0) continue;
        const fields = { temperature: 0, logit_bias: { [token]: 1000 }, ignore_eos: false };
        assert.deepEqual(await ask(path, fields), { text: '', finishReason: 'stop', completionTokens: 0 });
        const past = await ask(path, { ...fields, ignore_eos: true });
        assert.deepEqual([past.finishReason, past.completionTokens], ['length', 48]);
      }
      const whole = await ask(path, { temperature: 0, ignore_eos: false, max_tokens: 200 });
      assert.equal(whole.finishReason, 'stop');
    });

    it('max_tokens ends an answer with length', async () => {
      const { finishReason, completionTokens } = await ask(path, { temperature: 0, max_tokens: 7 });
      assert.deepEqual([finishReason, completionTokens], ['length', 7]);
    });

    it('no event of a stream shows half a character or any of a stop', async () => {
      // The grammar makes the model say this and nothing else; most of it is single bytes to its vocabulary.
      const said = 'naïve 日本語 🦊🦊 end';
      const fields = {
        grammar: `root ::= ${JSON.stringify(said)}`,
        temperature: 1,
        seed: 4,
        ignore_eos: false,
      };
      assert.equal((await stream(path, fields)).join(''), said);
      for (const [stop, shown] of [
        ['本', 'naïve 日'],
        [' 🦊🦊 e', 'naïve 日本語'],
        ['🦊 ', 'naïve 日本語 🦊'],
        [['never', '語 🦊', '日本語 🦊🦊 x'], 'naïve 日本'],
        ['end.', said],
        ['n', ''],
      ] as const) {
        const pieces = await stream(path, { ...fields, stop });
        assert.equal(pieces.join(''), shown, JSON.stringify(stop));
        for (const piece of pieces) assert.doesNotMatch(piece, /\ufffd/);
        const whole = await ask(path, { ...fields, stop });
        assert.deepEqual([whole.text, whole.finishReason], [shown, 'stop'], JSON.stringify(stop));
      }
    });

    it('usage tells the reused tokens, streamed and whole', async () => {
      const cached = (usage: unknown): unknown =>
        (usage as { prompt_tokens_details?: { cached_tokens?: unknown } })?.prompt_tokens_details
          ?.cached_tokens;
      const whole = (await (await post(path, bodyOf(path, { max_tokens: 1 }))).json()) as Body;
      assert.equal(typeof cached(whole.usage), 'number');
      const options = { max_tokens: 1, stream: true, stream_options: { include_usage: true } };
      const text = await (await post(path, bodyOf(path, options))).text();
      const last = text.split('\n').findLast((line) => line.includes('"usage"')) ?? '';
      assert.equal(typeof cached((JSON.parse(last.slice('data: '.length)) as Body).usage), 'number');
      // The same prompt just before, in the one slot: all but its last token.
      const { usage } = JSON.parse(last.slice('data: '.length)) as { usage: { prompt_tokens: number } };
      assert.equal(cached(usage), usage.prompt_tokens - 1);
      const twice = bodyOf(path, { max_tokens: 1, n: 2 });
      const both = (await (await post(path, twice)).json()) as { usage: { prompt_tokens: number } };
      assert.equal(cached(both.usage), both.usage.prompt_tokens - 1, 'of choices too');
      assert.equal(both.usage.prompt_tokens, usage.prompt_tokens);
    });

    it('a seed gives the same text when the prompt is cached as when it was not', async () => {
      const long = Array.from({ length: 30 }, (_, at) => `${path}${(at * 31) % 97}`).join(' ');
      const input =
        path === '/v1/completions' ? { prompt: long } : { messages: [{ role: 'user', content: long }] };
      const first = await ask(path, { ...random, ...input });
      assert.equal((await ask(path, { ...random, ...input })).text, first.text);
    });
  });
}

describe("what a model's file recommends", () => {
  for (const path of paths) {
    it(`is used on ${path} where the request says nothing, and only there`, async () => {
      const greedy = await ask(path, { temperature: 0 });
      for (const [model, over] of [
        ['greedy', { temperature: 1.5 }],
        ['narrow', { top_k: 0 }],
      ] as const) {
        assert.equal((await ask(path, { model })).text, greedy.text, model);
        assert.notEqual((await ask(path, { model, seed: 5, ...over })).text, greedy.text, model);
      }
    });

    it(`is ignored on ${path} where it is out of range`, async () => {
      const fields = { seed: 5, temperature: 0.9 };
      assert.equal((await ask(path, { model: 'absurd' })).completionTokens, 48);
      const plain = await ask(path, fields);
      assert.equal((await ask(path, { model: 'absurd', ...fields })).text, plain.text);
    });
  }
});

describe('logprobs', () => {
  interface Entry {
    readonly token: string;
    readonly logprob: number;
    readonly bytes: readonly number[];
    readonly top_logprobs: readonly { readonly token: string; readonly logprob: number }[];
  }

  function logprobsOf({ choices: [choice] }: Body): unknown {
    assert.ok(choice !== undefined);
    return choice.logprobs;
  }

  it("are the log-softmax of the model's own logits, whatever the samplers did", async () => {
    const [path] = paths;
    const fields = { logprobs: true, top_logprobs: 20, max_tokens: 12, temperature: 1.8, seed: 3, top_k: 5 };
    const answer = (await (await post(path, bodyOf(path, fields))).json()) as Body;
    const { content } = logprobsOf(answer) as { content: readonly Entry[] };
    const chat = { model: 'cortex-tiny', messages: [{ role: 'user', content: question }] };
    const asked = (await (await post('/tokenize', JSON.stringify(chat))).json()) as { tokens: number[] };
    const { device, handle } = neuron.registry.serving('cortex-tiny');
    const tokens = [...asked.tokens];
    assert.equal(content.length, 12);
    for (const entry of content) {
      const row = await device.forwardLogits(handle, Int32Array.from(tokens), 0);
      const max = row.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY);
      const sum = Math.log(row.reduce((total, logit) => total + Math.exp(logit - max), 0)) + max;
      const sorted = [...row].sort((a, b) => b - a);
      for (const [rank, { logprob }] of entry.top_logprobs.entries()) {
        assert.ok(Math.abs(logprob - ((sorted[rank] ?? 0) - sum)) < 1e-3, `${logprob} of rank ${rank}`);
      }
      const id = entry.top_logprobs.findIndex(({ logprob }) => logprob === entry.logprob);
      assert.ok(id >= 0 && id < 5, 'top_k = 5 chose one of the five likeliest');
      tokens.push(row.indexOf(sorted[id] ?? 0));
    }
  });

  it('are the same streamed, and in the shape of raw completions', async () => {
    const [chat, raw] = paths;
    const chatFields = { logprobs: true, top_logprobs: 2, max_tokens: 8, temperature: 0 };
    const whole = (await (await post(chat, bodyOf(chat, chatFields))).json()) as Body;
    const text = await (await post(chat, bodyOf(chat, { ...chatFields, stream: true }))).text();
    const streamed = text
      .split('\n')
      .filter((line) => line.startsWith('data: {'))
      .map((line) => JSON.parse(line.slice('data: '.length)) as Body)
      .flatMap(({ choices }) => (choices[0]?.logprobs as { content: Entry[] } | null)?.content ?? []);
    const { content: entries } = logprobsOf(whole) as { content: readonly Entry[] };
    assert.deepEqual(streamed, entries);
    const answer = (await (await post(raw, bodyOf(raw, { ...chatFields, logprobs: 2 }))).json()) as Body;
    const { tokens, token_logprobs } = logprobsOf(answer) as {
      tokens: readonly string[];
      token_logprobs: readonly number[];
    };
    assert.deepEqual(
      tokens,
      entries.map(({ token }) => token),
    );
    assert.deepEqual(
      token_logprobs,
      entries.map(({ logprob }) => logprob),
    );
  });
});
