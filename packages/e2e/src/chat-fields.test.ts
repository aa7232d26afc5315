/**
 * OpenAI's chat, completions and embeddings at the gateway, a real neuron behind it: what clients send is
 * taken, what is wrong is refused with the vendor's status and the path of the field, and the next request is
 * answered.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SseParser } from 'cortex-core/wire/sse';
import { postJson, type Stack, startStack } from './stack.ts';

type Json = Record<string, unknown>;

const question = { role: 'user', content: 'What is the capital of France?' };
const call = { id: 'call_1', type: 'function', function: { name: 'f', arguments: '{"x":1}' } };
const tool = { type: 'function', function: { name: 'f', parameters: { type: 'object', properties: {} } } };
let stack: Stack;

before(async () => {
  stack = await startStack({ transport: 'thread' });
});
after(() => stack?.close());

const chat = (more: Json = {}): Json => ({
  model: 'cortex-tiny',
  messages: [question],
  temperature: 0,
  max_tokens: 8,
  ...more,
});

async function ask(
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<[number, Json]> {
  const response =
    typeof body === 'string' || body instanceof Uint8Array
      ? await fetch(stack.baseUrl + path, { method: 'POST', body: body as string, headers })
      : await postJson(stack.baseUrl + path, body, headers);
  return [response.status, (await response.json()) as Json];
}

interface Choice {
  readonly index: number;
  readonly message: { readonly content: string | null; readonly function_call?: { readonly name: string } };
  readonly logprobs: { readonly content: readonly { readonly top_logprobs: readonly unknown[] }[] } | null;
  readonly finish_reason: string;
}

async function choices(more: Json): Promise<readonly Choice[]> {
  const [status, answer] = await ask('/chat/completions', chat(more));
  assert.equal(status, 200, JSON.stringify(answer));
  return answer.choices as readonly Choice[];
}

describe('what clients send is taken', () => {
  const conversations: readonly (readonly [string, readonly Json[]])[] = [
    ['a developer turn first', [{ role: 'developer', content: 'Be brief.' }, question]],
    [
      'a system turn in the middle',
      [
        question,
        { role: 'assistant', content: 'Paris.' },
        { role: 'system', content: 'Be brief.' },
        question,
      ],
    ],
    ['a system turn at the end', [question, { role: 'system', content: 'Be brief.' }]],
    [
      'null content beside calls',
      [
        question,
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', tool_call_id: 'call_1', content: 'ok' },
      ],
    ],
    [
      'content left out beside calls',
      [
        question,
        { role: 'assistant', tool_calls: [call] },
        { role: 'tool', tool_call_id: 'call_1', content: 'ok' },
      ],
    ],
    [
      'an empty list of calls',
      [question, { role: 'assistant', content: 'Paris.', tool_calls: [] }, question],
    ],
    ['an assistant who said nothing', [question, { role: 'assistant', content: '' }, question]],
    ['null fields', [{ ...question, name: null, tool_calls: null, refusal: null, audio: null }]],
    [
      'names',
      [
        { ...question, name: 'ann' },
        { role: 'assistant', name: 'bot', content: 'Hm.' },
        { ...question, name: 'bob' },
      ],
    ],
    [
      'a refusal part',
      [question, { role: 'assistant', content: [{ type: 'refusal', refusal: 'I will not.' }] }, question],
    ],
    [
      'a refusal beside null content',
      [question, { role: 'assistant', content: null, refusal: 'I will not.' }, question],
    ],
    [
      'a result of parts',
      [
        question,
        { role: 'assistant', content: '', tool_calls: [call] },
        { role: 'tool', tool_call_id: 'call_1', content: [{ type: 'text', text: 'ok' }] },
      ],
    ],
    ['two user turns', [question, question]],
    ['an orphan result', [question, { role: 'tool', tool_call_id: 'nobody', content: 'ok' }, question]],
    [
      'the older function turns',
      [
        question,
        { role: 'assistant', content: null, function_call: { name: 'f', arguments: '{}' } },
        { role: 'function', name: 'f', content: 'ok' },
      ],
    ],
    [
      'arguments that are no JSON',
      [
        question,
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ ...call, function: { name: 'f', arguments: '{"x":' } }],
        },
        { role: 'tool', tool_call_id: 'call_1', content: 'ok' },
      ],
    ],
    [
      'echoed reasoning',
      [question, { role: 'assistant', content: 'Paris.', reasoning_content: 'France...' }, question],
    ],
  ];
  for (const [name, messages] of conversations) {
    test(name, async () => {
      assert.equal((await choices({ messages })).length, 1);
    });
  }

  test('fields of OpenAI, of other servers and of nobody', async () => {
    const some = await choices({
      ...{ store: false, metadata: { a: 'b' }, user: 'u', safety_identifier: 's', prompt_cache_key: 'k' },
      ...{
        service_tier: 'auto',
        parallel_tool_calls: true,
        logit_bias: null,
        seed: 1,
        stop: null,
        tools: null,
      },
      ...{ top_k: 1, min_p: 0, cache_prompt: true, verbosity: 'medium', x_unknown: { deep: [1] }, n: 1 },
      ...{ response_format: { type: 'text' }, modalities: ['text'], stream_options: null, tool_choice: null },
    });
    assert.match(some[0]?.message.content ?? '', /Paris|capital/);
  });

  test('max_completion_tokens binds as max_tokens does, and before it', async () => {
    const [one] = await choices({ max_tokens: undefined, max_completion_tokens: 1 });
    assert.equal(one?.finish_reason, 'length');
    const [both] = await choices({ max_tokens: 400, max_completion_tokens: 1 });
    assert.equal(both?.finish_reason, 'length');
  });

  test('n and logprobs', async () => {
    const three = await choices({ n: 3, logprobs: true, top_logprobs: 2, temperature: 1, seed: 3 });
    assert.deepEqual(
      three.map(({ index }) => index),
      [0, 1, 2],
    );
    for (const { logprobs } of three) assert.equal(logprobs?.content[0]?.top_logprobs.length, 2);
  });

  test('functions and function_call come back as function_call', async () => {
    const [forced] = await choices({
      functions: [tool.function],
      function_call: { name: 'f' },
      max_tokens: 60,
    });
    assert.equal(forced?.message.function_call?.name, 'f');
    assert.equal(forced?.finish_reason, 'function_call');
  });

  for (const [options, expected] of [
    [{ include_usage: true }, 1],
    [{ include_usage: false }, 0],
    [undefined, 0],
  ] as const) {
    test(`stream_options ${JSON.stringify(options)}: ${expected} chunks with usage, then [DONE]`, async () => {
      const body = chat({ stream: true, ...(options === undefined ? {} : { stream_options: options }) });
      const response = await postJson(`${stack.baseUrl}/chat/completions`, body);
      const data = new SseParser().push(Buffer.from(await response.text())).map((event) => event.data);
      assert.equal(data.at(-1), '[DONE]');
      const chunks = data
        .slice(0, -1)
        .map((each) => JSON.parse(each) as { usage?: unknown; choices: unknown[] });
      assert.equal(chunks.filter(({ usage }) => usage).length, expected);
      assert.ok(chunks.every((chunk) => Array.isArray(chunk.choices)));
    });
  }

  test("an SDK's own headers and a foreign content-type change nothing", async () => {
    const headers = {
      'content-type': 'application/x-www-form-urlencoded',
      'x-stainless-lang': 'js',
      'x-stainless-retry-count': '0',
      'openai-organization': 'o',
      'openai-beta': 'b',
    };
    assert.equal((await ask('/chat/completions', chat(), headers))[0], 200);
  });
});

const part = (type: string, more: Json = {}): Json => ({
  messages: [{ role: 'user', content: [{ type, ...more }] }],
});
const nested = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`;

describe('what is wrong is refused at its field, and the next request is answered', () => {
  type Fault = readonly [string, Json | string | Uint8Array, string | RegExp | null, string?];
  const faults: readonly Fault[] = [
    // messages
    ['/chat/completions', chat({ messages: undefined }), 'messages'],
    ['/chat/completions', chat({ messages: null }), 'messages'],
    ['/chat/completions', chat({ messages: 'hi' }), 'messages'],
    ['/chat/completions', chat({ messages: [] }), 'messages'],
    ['/chat/completions', chat({ messages: ['hi'] }), 'messages.0'],
    ['/chat/completions', chat({ messages: [{ content: 'hi' }] }), 'messages.0.role'],
    ['/chat/completions', chat({ messages: [{ role: 7, content: 'hi' }] }), 'messages.0.role'],
    [
      '/chat/completions',
      chat({ messages: [question, { role: 'robot', content: 'hi' }] }),
      'messages.1.role',
    ],
    ['/chat/completions', chat({ messages: [{ role: 'user', content: 7 }] }), 'messages.0.content'],
    ['/chat/completions', chat({ messages: [{ role: 'user', content: [7] }] }), 'messages.0.content.0'],
    [
      '/chat/completions',
      chat({ messages: [{ role: 'user', content: [{ text: 'x' }] }] }),
      'messages.0.content.0.type',
    ],
    ['/chat/completions', chat(part('text', { text: 7 })), 'messages.0.content.0.text'],
    ['/chat/completions', chat(part('poem')), 'messages.0.content.0.type'],
    [
      '/chat/completions',
      chat(part('image_url', { image_url: { url: 'data:image/png;base64,AA==' } })),
      'messages.0.content.0',
      'vision_unsupported',
    ],
    [
      '/chat/completions',
      chat(part('input_audio', { input_audio: { data: 'AA==', format: 'wav' } })),
      'messages.0.content.0',
      'vision_unsupported',
    ],
    [
      '/chat/completions',
      chat(part('file', { file: { file_id: 'f' } })),
      'messages.0.content.0',
      'vision_unsupported',
    ],
    [
      '/chat/completions',
      chat({ messages: [question, { role: 'assistant', tool_calls: 'f' }] }),
      'messages.1.tool_calls',
    ],
    [
      '/chat/completions',
      chat({ messages: [question, { role: 'assistant', tool_calls: [{ id: 'a' }] }] }),
      'messages.1.tool_calls.0.function',
    ],
    // tools
    ['/chat/completions', chat({ tools: 'f' }), 'tools'],
    ['/chat/completions', chat({ tools: [{ type: 'function' }] }), 'tools.0'],
    ['/chat/completions', chat({ tools: [{ type: 'function', function: {} }] }), 'tools.0.function.name'],
    ['/chat/completions', chat({ tools: [{ type: 'web_search' }] }), 'tools.0'],
    ['/chat/completions', chat({ tools: [tool, tool] }), 'tools.1.function.name'],
    [
      '/chat/completions',
      chat({
        tools: Array.from({ length: 10_000 }, (_, i) => ({ type: 'function', function: { name: `f${i}` } })),
      }),
      'tools',
    ],
    [
      '/chat/completions',
      chat({ tools: [tool], tool_choice: { type: 'function', function: { name: 'g' } } }),
      'tool_choice',
    ],
    ['/chat/completions', chat({ tool_choice: 'required' }), 'tool_choice'],
    ['/chat/completions', chat({ tools: [tool], parallel_tool_calls: 'no' }), 'parallel_tool_calls'],
    ['/chat/completions', chat({ functions: [tool.function], tools: [tool] }), 'functions'],
    // values
    ['/chat/completions', chat({ model: undefined }), 'model'],
    ['/chat/completions', chat({ model: 7 }), 'model'],
    ['/chat/completions', chat({ model: '' }), 'model'],
    ['/chat/completions', chat({ stream: 'yes' }), 'stream'],
    ['/chat/completions', chat({ stream: true, stream_options: 'usage' }), 'stream_options'],
    [
      '/chat/completions',
      chat({ stream: true, stream_options: { include_usage: 'yes' } }),
      'stream_options.include_usage',
    ],
    ['/chat/completions', chat({ temperature: 'hot' }), 'temperature'],
    ['/chat/completions', chat({ temperature: -1 }), 'temperature'],
    ['/chat/completions', chat({ top_p: 2 }), 'top_p'],
    ['/chat/completions', chat({ max_tokens: -5 }), 'max_tokens'],
    ['/chat/completions', chat({ max_completion_tokens: 1.5 }), 'max_completion_tokens'],
    ['/chat/completions', chat({ n: 0 }), 'n'],
    ['/chat/completions', chat({ n: 100_000 }), 'n'],
    ['/chat/completions', chat({ logprobs: 'yes' }), 'logprobs'],
    ['/chat/completions', chat({ logprobs: true, top_logprobs: 99 }), 'top_logprobs'],
    ['/chat/completions', chat({ stop: [7] }), 'stop.0'],
    ['/chat/completions', chat({ response_format: { type: 'xml' } }), /^response_format/],
    ['/chat/completions', chat({ response_format: { type: 'json_schema' } }), /^response_format/],
    ['/chat/completions', chat({ modalities: ['audio'] }), 'modalities'],
    // bodies
    ['/chat/completions', '', null],
    ['/chat/completions', '{"model":', null],
    ['/chat/completions', '[]', null],
    ['/chat/completions', '"hi"', null],
    ['/chat/completions', 'model=cortex-tiny&x=1', null],
    ['/chat/completions', new Uint8Array([0x7b, 0xff, 0x7d]), null],
    ['/chat/completions', `{"model":"cortex-tiny","messages":${nested(100_000)}}`, 'messages'],
    // the others
    ['/completions', { model: 'cortex-tiny' }, 'prompt'],
    ['/completions', { model: 'cortex-tiny', prompt: { a: 1 } }, 'prompt'],
    ['/completions', { model: 'cortex-tiny', prompt: [1e9] }, 'prompt'],
    ['/completions', { model: 'cortex-tiny', prompt: 'x', max_tokens: 'all' }, 'max_tokens'],
    ['/completions', { model: 'cortex-tiny', prompt: 'x', logprobs: 1000 }, 'logprobs'],
    ['/completions', { prompt: 'x' }, 'model'],
    ['/embeddings', { model: 'cortex-tiny', input: 'x' }, 'model', 'wrong_modality'],
    ['/embeddings', { model: 'cortex-tiny' }, 'input'],
    ['/embeddings', { model: 'cortex-tiny', input: [] }, 'input'],
    ['/embeddings', { model: 'cortex-tiny', input: { a: 1 } }, 'input'],
    ['/embeddings', { model: 'cortex-tiny', input: 'x', encoding_format: 'gif' }, 'encoding_format'],
    ['/embeddings', { input: 'x' }, 'model'],
    ['/rerank', { model: 'cortex-tiny', documents: ['a'] }, 'query'],
    ['/rerank', { model: 'cortex-tiny', query: 'q', documents: 'a' }, 'documents'],
  ];
  for (const [path, body, param, code] of faults) {
    const isJson = typeof body === 'object' && !(body instanceof Uint8Array);
    const shown = (isJson ? JSON.stringify(body) : String(body)).replace(/^.*?"temperature":0,/, '{...');
    const streamed = isJson && path === '/chat/completions' && !('stream' in body) ? [true] : [];
    test(`${path} ${shown.slice(0, 120)} -> ${param}`, async () => {
      for (const given of [body, ...streamed.map((stream) => ({ ...(body as Json), stream }))]) {
        const [status, { error }] = (await ask(path, given)) as [number, { error: Json }];
        assert.equal(status, 400, JSON.stringify(error));
        assert.deepEqual(Object.keys(error).slice(0, 4), ['message', 'type', 'code', 'param']);
        assert.equal(error.type, 'invalid_request_error');
        assert.ok(String(error.message).length > 10);
        if (param instanceof RegExp) assert.match(String(error.param), param);
        else assert.equal(error.param, param, String(error.message));
        if (code !== undefined) assert.equal(error.code, code);
      }
    });
  }

  test('a model that is not there is 404', async () => {
    for (const path of ['/chat/completions', '/completions', '/embeddings']) {
      const [status, { error }] = (await ask(path, {
        ...chat(),
        model: 'nobody',
        prompt: 'x',
        input: 'x',
      })) as [number, { error: Json }];
      assert.deepEqual([status, error.code, error.param], [404, 'model_not_found', 'model']);
    }
  });

  test('after all of that a question is answered', async () => {
    assert.match((await choices({ max_tokens: 24 }))[0]?.message.content ?? '', /Paris/);
  });
});
