/** Several answers to one request, and raw completions, with a device that does what the test says. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { SseParser } from 'cortex-core/wire/sse';
import { readFixture } from '../chat/conversations.test.kit.ts';
import type { Neuron } from '../neuron.ts';
import { ScriptedDevice } from './scripted-device.test.kit.ts';
import { startTiny, until } from './scripted-neuron.test.kit.ts';

const messages = [{ role: 'user', content: 'hello' }];

let neuron: Neuron;
let device: ScriptedDevice;
afterEach(() => neuron.close());

async function start(slots = 4, chatTemplate?: string, admission: object = {}): Promise<void> {
  device = new ScriptedDevice();
  if (chatTemplate !== undefined) device.chatTemplate = chatTemplate;
  neuron = await startTiny(device, { engine: { threads: 1, slots }, admission });
}

function load() {
  return neuron.registry.loads()[0];
}

function post(path: string, body: object, headers = {}, signal?: AbortSignal): Promise<Response> {
  return fetch(`${neuron.url}${path}`, {
    method: 'POST',
    headers,
    ...(signal === undefined ? {} : { signal }),
    body: JSON.stringify({ model: 'cortex-tiny', ...body }),
  });
}

interface Answer {
  readonly choices: {
    readonly index: number;
    readonly text: string;
    readonly finish_reason: string | null;
    readonly message: { readonly content: string; readonly tool_calls?: { readonly id: string }[] };
    readonly delta: { readonly content?: string };
    readonly logprobs: Record<string, unknown> | null;
  }[];
  readonly usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
  readonly error: { code: string; param: string };
}

async function json(response: Promise<Response>): Promise<Answer> {
  return (await (await response).json()) as Answer;
}

async function chunksOf(response: Promise<Response>): Promise<Answer[]> {
  const bytes = new Uint8Array(await (await response).arrayBuffer());
  const events = new SseParser().push(bytes).filter(({ data }) => data !== '[DONE]');
  return events.map(({ data }) => JSON.parse(data) as Answer);
}

function textOf(tokens: Int32Array): string {
  return String.fromCodePoint(...tokens);
}

describe('n', () => {
  it('runs choices side by side, each under a permit, with seeds that follow from one', async () => {
    await start();
    const answer = json(post('/v1/chat/completions', { messages, n: 3, seed: 7 }));
    const generations = [await device.next(), await device.next(), await device.next()];
    assert.equal(neuron.registry.loads()[0]?.in_flight, 3);
    assert.equal(generations[0]?.params.sampling.seed, 7);
    assert.equal(new Set(generations.map((each) => each.params.sampling.seed)).size, 3);
    for (const [at, each] of generations.entries()) {
      each.emit(`answer ${at}`);
      each.finish();
    }
    const { choices, usage } = await answer;
    assert.deepEqual(
      choices.map((choice) => [choice.index, choice.message.content]),
      [0, 1, 2].map((at) => [at, `answer ${at}`]),
    );
    const prompt = generations[0]!.params.tokens.length;
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [prompt, 3]);
    assert.equal(neuron.registry.loads()[0]?.in_flight, 0);
  });

  it('streams each choice under its index, and one usage', async () => {
    await start();
    const stream = chunksOf(
      post('/v1/chat/completions', { messages, n: 2, stream: true, stream_options: { include_usage: true } }),
    );
    const [first, second] = [await device.next(), await device.next()];
    second.emit('b1');
    first.emit('a1');
    second.emit('b2');
    second.finish();
    first.finish('length');
    const chunks = await stream;
    const of = (index: number) =>
      chunks.flatMap((chunk) => chunk.choices.filter((choice) => choice.index === index));
    assert.equal(
      of(0)
        .map((choice) => choice.delta.content ?? '')
        .join(''),
      'a1',
    );
    assert.equal(
      of(1)
        .map((choice) => choice.delta.content ?? '')
        .join(''),
      'b1b2',
    );
    assert.deepEqual([of(0).at(-1)?.finish_reason, of(1).at(-1)?.finish_reason], ['length', 'stop']);
    assert.deepEqual(chunks.at(-1)?.choices, []);
    assert.equal(chunks.at(-1)?.usage.completion_tokens, 3);
  });

  it('never runs more at once than there are slots', async () => {
    await start(2);
    const answer = json(post('/v1/chat/completions', { messages, n: 5 }));
    for (let at = 0; at < 5; at++) {
      const generation = await device.next();
      assert.ok(device.generations.length <= at + 2);
      generation.emit('x');
      generation.finish();
    }
    assert.equal((await answer).choices.length, 5);
  });

  it('lets another request in when one choice is done, not after all of them', async () => {
    await start(2);
    const many = json(post('/v1/completions', { prompt: 'many', n: 5 }));
    const [own, beside] = [await device.next(), await device.next()];
    const single = json(post('/v1/completions', { prompt: 'single' }));
    await until(() => load()?.queue_depth === 1);
    beside.finish();
    const third = await device.next();
    assert.equal(textOf(third.params.tokens), 'single');
    third.finish();
    await single;
    own.finish();
    for (let at = 0; at < 3; at++) (await device.next()).finish();
    assert.equal((await many).choices.length, 5);
    assert.deepEqual([load()?.in_flight, load()?.queue_depth], [0, 0]);
  });

  it('goes on with the slot that it has where it may have no further one', async () => {
    await start(4, undefined, { max_per_principal: 1 });
    const answer = json(post('/v1/completions', { prompt: 'p', n: 3 }, { 'x-cortex-account-id': 'a' }));
    for (let at = 0; at < 3; at++) {
      const generation = await device.next();
      assert.equal(device.generations.length, at + 1);
      generation.finish();
    }
    assert.equal((await answer).choices.length, 3);
    assert.equal(load()?.in_flight, 0);
  });

  it('leaves no permit and no place in the queue behind when the client goes', async () => {
    await start(2);
    const [leave, stay] = [new AbortController(), json(post('/v1/completions', { prompt: 'stay' }))];
    const staying = await device.next();
    const leaving = post('/v1/completions', { prompt: 'leave', n: 4 }, {}, leave.signal).catch(() => null);
    const gone = await device.next();
    await until(() => load()?.queue_depth === 1);
    leave.abort();
    await Promise.all([leaving, gone.cancelled]);
    await until(() => load()?.queue_depth === 0 && load()?.in_flight === 1);
    staying.finish();
    await stay;
    assert.equal(load()?.in_flight, 0);
  });

  it('stops the others when one fails', async () => {
    await start();
    const answer = json(post('/v1/chat/completions', { messages, n: 2 }));
    const [first, second] = [await device.next(), await device.next()];
    first.finish('cancelled');
    await second.cancelled;
    assert.equal((await answer).error.code, 'job_failed');
    assert.equal(neuron.registry.loads()[0]?.in_flight, 0);
  });

  it('has a limit, over all prompts', async () => {
    await start();
    for (const [path, body] of [
      ['/v1/chat/completions', { messages, n: 129 }],
      ['/v1/completions', { prompt: ['a', 'b'], n: 65 }],
      ['/v1/completions', { prompt: Array(129).fill('a') }],
    ] as const) {
      const response = await post(path, body);
      assert.equal(response.status, 400);
      await response.body?.cancel();
    }
  });
});

describe('POST /v1/chat/completions', () => {
  it('ends the block that a model without a switch opens although it was told not to think', async () => {
    await start(4, readFixture('templates/gpt-oss.jinja'));
    for (const [fields, budget] of [
      [{ reasoning_effort: 'none' }, 0],
      [{ enable_thinking: false }, 0],
      [{}, null],
    ] as const) {
      const answer = json(post('/v1/chat/completions', { messages, ...fields }));
      const generation = await device.next();
      assert.equal(generation.params.reasoning?.budget, budget);
      generation.finish();
      await answer;
    }
  });

  it('gives calls of different choices different ids', async () => {
    await start(4, '{{ tools }}<tool_call></tool_call>{{ messages[0].content }}');
    const tools = [{ type: 'function', function: { name: 'f' } }];
    const answer = json(post('/v1/chat/completions', { messages, tools, n: 2 }));
    for (const generation of [await device.next(), await device.next()]) {
      generation.emit('<tool_call>{"name": "f", "arguments": {}}</tool_call>');
      generation.finish();
    }
    const ids = (await answer).choices.map(({ message }) => message.tool_calls?.[0]?.id);
    assert.match(ids[0] ?? '', /^call_[a-z0-9]{24}$/);
    assert.notEqual(ids[0], ids[1]);
  });

  it('refuses ignore_eos with an answer that has a form', async () => {
    await start();
    const format = { response_format: { type: 'json_object' }, ignore_eos: true };
    const { error } = await json(post('/v1/chat/completions', { messages, ...format }));
    assert.deepEqual([error.code, error.param], ['invalid_request', 'ignore_eos']);
  });
});

describe('POST /v1/completions', () => {
  it('answers several prompts, n of each, in order', async () => {
    await start(8);
    const answer = json(post('/v1/completions', { prompt: ['one', 'two'], n: 2, max_tokens: 5 }));
    for (let at = 0; at < 4; at++) {
      const generation = await device.next();
      generation.emit(`${textOf(generation.params.tokens)}!`);
      generation.finish();
    }
    const { choices, usage } = await answer;
    assert.deepEqual(
      choices.map((choice) => [choice.index, choice.text]),
      [
        [0, 'one!'],
        [1, 'one!'],
        [2, 'two!'],
        [3, 'two!'],
      ],
    );
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [6, 4]);
  });

  it('echoes the prompt, also one of tokens, streamed and not', async () => {
    await start();
    for (const stream of [false, true]) {
      const response = post('/v1/completions', { prompt: [0x68, 0x69], echo: true, stream });
      const generation = await device.next();
      generation.emit(' you');
      generation.finish();
      const answers = stream ? await chunksOf(response) : [await json(response)];
      assert.equal(answers.flatMap((each) => each.choices.map((choice) => choice.text)).join(''), 'hi you');
    }
  });

  it('gives logprobs in the old shape, with offsets into the text', async () => {
    await start();
    const answer = json(post('/v1/completions', { prompt: 'p', logprobs: 1 }));
    const generation = await device.next();
    const one = (text: string, logprob: number) => ({
      token: 1,
      text,
      bytes: [],
      logprob,
      top: [{ token: 1, text, bytes: [], logprob }],
    });
    generation.emit('ab', [one('a', -1), one('b', -2)]);
    generation.emit('c', [one('c', -3)]);
    generation.finish();
    assert.deepEqual((await answer).choices[0]?.logprobs, {
      tokens: ['a', 'b', 'c'],
      token_logprobs: [-1, -2, -3],
      top_logprobs: [{ a: -1 }, { b: -2 }, { c: -3 }],
      text_offset: [0, 1, 2],
    });
  });

  it('fills in the middle with the tokens of the vocabulary, and takes markers in the text as text', async () => {
    await start();
    const answer = json(post('/v1/completions', { prompt: '<|fim_suffix|>', suffix: 'after' }));
    const { params } = await device.next();
    assert.equal(textOf(params.tokens), '\x01<|fim_suffix|>\x02after\x03');
    device.generations[0]?.finish();
    await answer;
  });

  it('asks for those tokens once, not with each request', async () => {
    await start();
    const jobs: number[] = [];
    for (const prompt of ['a', 'b']) {
      const before = device.jobs.tokenize;
      const answer = json(post('/v1/completions', { prompt, suffix: 'c' }));
      (await device.next()).finish();
      await answer;
      jobs.push(device.jobs.tokenize - before);
    }
    assert.deepEqual(jobs, [5, 2]); // three markers and two texts, then the texts
  });

  it('refuses too many ids before it makes a text of them to echo', async () => {
    await start();
    const response = await post('/v1/completions', { prompt: Array(5000).fill(65), echo: true });
    assert.equal(((await response.json()) as Answer).error.code, 'context_length_exceeded');
    assert.equal(device.jobs.detokenize, 0);
  });

  it('refuses a suffix that cannot fit before it makes tokens of it', async () => {
    await start();
    await json(post('/v1/completions', { prompt: 'a', suffix: 'x'.repeat(20_000) })).then(({ error }) => {
      assert.deepEqual([error.code, error.param], ['context_length_exceeded', 'suffix']);
    });
    assert.equal(device.jobs.tokenize, 0);
  });

  it('refuses what it cannot do, by the field', async () => {
    await start();
    for (const [body, code, param] of [
      [{ best_of: 2 }, 'unsupported_parameter', 'best_of'],
      [{ guided_choice: ['a'] }, 'unsupported_parameter', 'guided_choice'],
      [{ structured_outputs: {} }, 'unsupported_parameter', 'structured_outputs'],
      [{ json_schema: {} }, 'unsupported_parameter', 'json_schema'],
      [{ response_format: { type: 'json_object' } }, 'unsupported_parameter', 'response_format'],
      [{ use_beam_search: true }, 'unsupported_parameter', 'use_beam_search'],
      [{ prompt_logprobs: 1 }, 'unsupported_parameter', 'prompt_logprobs'],
      [{ ignore_eos: true, grammar: 'root ::= "a"' }, 'invalid_request', 'ignore_eos'],
      [{ echo: true, logprobs: 1 }, 'unsupported_parameter', 'echo'],
      [{ prompt: [[1], [0x110000]] }, 'invalid_request', 'prompt.1'],
      [{ prompt: ['a', ''] }, 'invalid_request', 'prompt'],
    ] as const) {
      const response = await post('/v1/completions', { prompt: 'p', ...body });
      const { error } = (await response.json()) as Answer;
      assert.deepEqual([response.status, error.code, error.param], [400, code, param]);
    }
  });
});
