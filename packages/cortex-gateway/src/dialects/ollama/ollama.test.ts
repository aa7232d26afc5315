import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { ollamaChat, ollamaEmbed, ollamaEmbeddings, ollamaGenerate } from './ollama.ts';
import { resolveOllamaName, toOllamaName, toShow, toTag } from './ollama-models.ts';

const same = (name: string): string => name;
const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
type Json = Record<string, unknown>;

function upstreamOf(
  request: Json,
  dialect = ollamaChat(same),
  capabilities: readonly string[] | null = null,
): Json {
  const parsed = dialect.parse(bytes(request));
  return JSON.parse(Buffer.from(parsed.toUpstream({ wireId: 'wire', capabilities })).toString()) as Json;
}

const chunk = (delta: Json, finish: string | null = null, more: Json = {}): string =>
  `data: ${JSON.stringify({ id: 'c', created: 1_764_000_000, choices: [{ index: 0, delta, finish_reason: finish }], ...more })}\n\n`;
const usage = `data: ${JSON.stringify({
  id: 'c',
  created: 1_764_000_000,
  choices: [],
  usage: { prompt_tokens: 12, completion_tokens: 5, total_tokens: 17 },
  timings: { queue_ms: 1, prefill_ms: 20.5, decode_ms: 100 },
})}\n\ndata: [DONE]\n\n`;
const created_at = new Date(1_764_000_000_000).toISOString();
const golden =
  chunk({ role: 'assistant', content: '' }) +
  chunk({ reasoning_content: 'Hm. ' }) +
  chunk({ content: 'Grüße ' }) +
  ': keep-alive\n\n' +
  chunk({ content: '🌍' }) +
  chunk({
    tool_calls: [{ index: 0, id: 'call_a', type: 'function', function: { name: 'f', arguments: '' } }],
  }) +
  chunk({ tool_calls: [{ index: 0, function: { arguments: '{"x":' } }] }) +
  chunk({ tool_calls: [{ index: 0, function: { arguments: '"ü"}' } }] }) +
  chunk({}, 'tool_calls') +
  usage;

function streamed(sse: string, size: number, request: Json = {}): Json[] {
  const dialect = ollamaChat(same);
  const out = dialect
    .parse(bytes({ model: 'm:latest', messages: [{ role: 'user', content: 'x' }], ...request }))
    .streamOut('r');
  const all = Buffer.from(sse);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < all.length; at += size) {
    const made = out.push(all.subarray(at, at + size));
    assert.ok(made.length === 0 || made.at(-1) === 10, 'ends at the end of a line');
    parts.push(made);
  }
  parts.push(out.end());
  return linesOf(Buffer.concat(parts));
}

function linesOf(made: Uint8Array): Json[] {
  return Buffer.from(made)
    .toString()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Json);
}

describe('chat, streamed', () => {
  const expected = [
    { message: { role: 'assistant', content: '', thinking: 'Hm. ' }, done: false },
    { message: { role: 'assistant', content: 'Grüße ' }, done: false },
    { message: { role: 'assistant', content: '🌍' }, done: false },
    {
      message: {
        role: 'assistant',
        content: '',
        tool_calls: [{ id: 'call_a', function: { index: 0, name: 'f', arguments: { x: 'ü' } } }],
      },
      done: false,
    },
    {
      message: { role: 'assistant', content: '' },
      done: true,
      done_reason: 'stop',
      total_duration: 121_500_000,
      load_duration: 1_000_000,
      prompt_eval_duration: 20_500_000,
      eval_duration: 100_000_000,
      prompt_eval_count: 12,
      eval_count: 5,
    },
  ].map((line) => ({ model: 'm:latest', created_at, ...line }));

  for (const size of [1, 2, 3, 7, 64, 1e6]) {
    test(`is the same lines in pieces of ${size} bytes`, () => {
      assert.deepEqual(streamed(golden, size), expected);
    });
  }

  test('cut anywhere before its end it is never done', () => {
    const all = Buffer.from(golden);
    const end = golden.indexOf('"finish_reason":"tool_calls"');
    for (let length = 0; length < Buffer.byteLength(golden.slice(0, end)); length++) {
      const out = ollamaChat(same)
        .parse(bytes({ model: 'm', messages: [{ role: 'user', content: 'x' }] }))
        .streamOut('r');
      const made = [...linesOf(out.push(all.subarray(0, length)))];
      let failure: unknown = null;
      try {
        made.push(...linesOf(out.end()));
      } catch (thrown) {
        failure = thrown;
      }
      assert.ok(failure instanceof AppError, `cut at ${length}`);
      assert.ok(made.every(({ done }) => done === false));
      assert.deepEqual(linesOf(out.error(failure)), [{ error: failure.message }]);
      assert.equal(out.push(Buffer.from(golden)).length + out.end().length + out.keepAlive().length, 0);
    }
  });

  test('an error of upstream is thrown, to become the last line', () => {
    const sse = `${chunk({ content: 'a' })}data: {"error":{"message":"the device died","code":"device_gone"}}\n\n`;
    assert.throws(
      () => streamed(sse, 1e6),
      (error: unknown) => error instanceof AppError && error.code === 'device_gone',
    );
  });

  test('text that stands before a fault in the same chunk reaches the client', () => {
    for (const fault of ['{"error":{"message":"the device died","code":"device_gone"}}', 'no JSON']) {
      const out = ollamaChat(same)
        .parse(bytes({ model: 'm', messages: [{ role: 'user', content: 'x' }] }))
        .streamOut('r');
      const made = linesOf(out.push(Buffer.from(`${chunk({ content: 'ab' })}data: ${fault}\n\n`)));
      assert.deepEqual(
        made.map(({ message }) => message),
        [{ role: 'assistant', content: 'ab' }],
      );
      assert.throws(() => out.end(), AppError);
    }
  });

  test('an event beyond all measure is the fault of upstream, in words', () => {
    const out = ollamaChat(same)
      .parse(bytes({ model: 'm', messages: [{ role: 'user', content: 'x' }] }))
      .streamOut('r');
    assert.throws(() => out.push(Buffer.alloc(17 * 1024 * 1024, 97)), {
      code: 'upstream_malformed_response',
    });
  });

  test('an answer at its limit is done for its length, a call cut off there is left out', () => {
    const sse =
      chunk({
        tool_calls: [{ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{"x":' } }],
      }) +
      chunk({}, 'length') +
      usage;
    const lines = streamed(sse, 1e6);
    assert.deepEqual([lines.length, lines[0]?.done, lines[0]?.done_reason], [1, true, 'length']);
  });

  test('a call that is left out leaves no gap in the numbers of the others', () => {
    const call = (index: number, args: string): Json => ({
      tool_calls: [{ index, id: `c${index}`, type: 'function', function: { name: 'f', arguments: args } }],
    });
    const lines = streamed(chunk(call(0, '{"x":')) + chunk(call(1, '{}')) + chunk({}, 'length'), 1e6);
    const [first] = lines;
    const shown = [{ id: 'c1', function: { index: 0, name: 'f', arguments: {} } }];
    assert.deepEqual((first as { message: Json }).message.tool_calls, shown);
  });

  test('a call whose arguments are no object, though nothing cut them, ends the answer in an error', () => {
    for (const args of ['{"x":', '{x: 1}', '["a"]', '{"x":"a "b" c"}']) {
      const call = { tool_calls: [{ index: 0, id: 'a', function: { name: 'f', arguments: args } }] };
      assert.throws(() => streamed(chunk(call) + chunk({}, 'tool_calls') + usage, 1e6), {
        code: 'upstream_malformed_response',
        message: /call of "f" (that ends in the middle|whose arguments are no JSON object)/,
      });
    }
  });

  test('a keep-alive is a part without text', () => {
    const out = ollamaChat(same)
      .parse(bytes({ model: 'm', messages: [{ role: 'user', content: 'x' }] }))
      .streamOut('r');
    const [line] = linesOf(out.keepAlive());
    assert.deepEqual([line?.message, line?.done], [{ role: 'assistant', content: '' }, false]);
  });
});

test('chat, whole: one object with text, thinking, calls, counts and times', () => {
  const request = ollamaChat(same).parse(
    bytes({ model: 'm', stream: false, messages: [{ role: 'user', content: 'x' }] }),
  );
  assert.equal(request.stream, false);
  const answer = {
    id: 'c',
    created: 1_764_000_000,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: 'Hi',
          reasoning_content: 'Hm',
          tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '' } }],
        },
        finish_reason: 'tool_calls',
      },
    ],
    usage: { prompt_tokens: 3, completion_tokens: 4 },
    timings: { queue_ms: 0, prefill_ms: 1, decode_ms: 2 },
  };
  assert.deepEqual(JSON.parse(Buffer.from(request.wholeOut?.(bytes(answer)) ?? []).toString()), {
    model: 'm',
    created_at,
    message: {
      role: 'assistant',
      content: 'Hi',
      thinking: 'Hm',
      tool_calls: [{ id: 'a', function: { index: 0, name: 'f', arguments: {} } }],
    },
    done: true,
    done_reason: 'stop',
    total_duration: 3_000_000,
    load_duration: 0,
    prompt_eval_duration: 1_000_000,
    eval_duration: 2_000_000,
    prompt_eval_count: 3,
    eval_count: 4,
  });
});

describe('the request', () => {
  test('options, format and thinking become the fields of chat; num_ctx and the like become nothing', () => {
    const body = upstreamOf(
      {
        model: 'm',
        messages: [
          { role: 'system', content: 's' },
          { role: 'user', content: 'u' },
        ],
        format: { type: 'object' },
        think: 'high',
        keep_alive: '5m',
        options: { num_predict: 7, temperature: 0, seed: 1, stop: 'X', num_ctx: 8192, mirostat: 2, top_k: 5 },
      },
      ollamaChat(same),
      ['text', 'reasoning'],
    );
    assert.deepEqual(body, {
      model: 'wire',
      messages: [
        { role: 'system', content: 's' },
        { role: 'user', content: 'u' },
      ],
      max_tokens: 7,
      stream: true,
      stream_options: { include_usage: true, include_prompt_usage: true },
      temperature: 0,
      top_k: 5,
      seed: 1,
      stop: ['X'],
      enable_thinking: true,
      reasoning_effort: 'high',
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema: { type: 'object' } } },
    });
  });

  test('num_predict of -1 and -2 asks for no number', () => {
    for (const num_predict of [-1, -2]) {
      const body = upstreamOf({
        model: 'm',
        messages: [{ role: 'user', content: 'u' }],
        options: { num_predict },
      });
      assert.equal(body.max_tokens, undefined);
    }
  });

  test('results without ids find their calls: by tool, else in order', () => {
    const { messages } = upstreamOf({
      model: 'm',
      messages: [
        { role: 'user', content: 'u' },
        {
          role: 'assistant',
          tool_calls: [
            { function: { name: 'a', arguments: { n: 1 } } },
            { function: { name: 'b', arguments: {} } },
            { id: 'mine', function: { name: 'b' } },
          ],
        },
        { role: 'tool', tool_name: 'b', content: 'first b' },
        { role: 'tool', tool_call_id: 'mine', content: 'second b' },
        { role: 'tool', content: 'the a' },
      ],
    }) as { messages: readonly Json[] };
    assert.deepEqual(
      messages.slice(1).map(({ role, tool_call_id, content }) => [role, tool_call_id, content]),
      [
        ['assistant', undefined, null],
        ['tool', 'call_1_0', 'the a'],
        ['tool', 'call_1_1', 'first b'],
        ['tool', 'mine', 'second b'],
      ],
    );
  });

  test('an image is refused where the model is known not to see, with its place', () => {
    const request = { model: 'm', messages: [{ role: 'user', content: 'u', images: ['iVBORw0KGgoAAA'] }] };
    assert.throws(
      () => upstreamOf(request, ollamaChat(same), ['text']),
      (error: unknown) =>
        error instanceof AppError &&
        error.code === 'vision_unsupported' &&
        error.param === 'messages.0.images.0',
    );
    const seen = upstreamOf(request, ollamaChat(same), ['text', 'vision']) as {
      messages: { content: unknown }[];
    };
    assert.match(JSON.stringify(seen.messages[0]?.content), /data:image\/png;base64,iVBORw0KGgoAAA/);
  });

  test('generate: a prompt with a system text is a chat, a raw one is not', () => {
    const chat = upstreamOf({ model: 'm', prompt: 'p', system: 's', stream: false }, ollamaGenerate(same));
    assert.deepEqual(chat.messages, [
      { role: 'system', content: 's' },
      { role: 'user', content: 'p' },
    ]);
    const dialect = ollamaGenerate(same);
    const raw = dialect.parse(bytes({ model: 'm', prompt: '<s>p', raw: true, options: { num_predict: 3 } }));
    assert.equal(raw.upstreamPath, '/v1/completions');
    assert.deepEqual(JSON.parse(Buffer.from(raw.toUpstream({ wireId: 'w' })).toString()), {
      model: 'w',
      prompt: '<s>p',
      stream: true,
      stream_options: { include_usage: true },
      max_tokens: 3,
    });
    const out = raw.streamOut('r');
    const text = (value: string, finish: string | null): string =>
      `data: ${JSON.stringify({ created: 1_764_000_000, choices: [{ index: 0, text: value, finish_reason: finish }] })}\n\n`;
    const lines = linesOf(
      Buffer.concat([out.push(Buffer.from(text('a', null) + text('b', 'length'))), out.end()]),
    );
    assert.deepEqual(
      lines.map(({ response, done }) => [response, done]),
      [
        ['a', false],
        ['b', false],
        ['', true],
      ],
    );
    assert.equal(lines.at(-1)?.done_reason, 'length');
  });

  test('a raw answer that is not streamed may be printed over several lines', () => {
    const raw = ollamaGenerate(same).parse(bytes({ model: 'm', prompt: 'p', raw: true, stream: false }));
    const answer = { choices: [{ index: 0, text: 'a\nb', finish_reason: 'stop' }] };
    const whole = raw.wholeOut?.(Buffer.from(JSON.stringify(answer, null, 2))) ?? [];
    assert.equal((JSON.parse(Buffer.from(whole).toString()) as Json).response, 'a\nb');
  });

  test('tools, their calls and images count among the tokens of the request', () => {
    const ask = { model: 'm', messages: [{ role: 'user', content: 'u' }] };
    const sizeOf = (more: Json): number =>
      ollamaChat(same).parse(bytes({ ...ask, ...more })).inputTokensEstimate;
    const description = 'x'.repeat(4000);
    const tools = [{ type: 'function', function: { name: 'f', description } }];
    assert.ok(sizeOf({ tools }) >= sizeOf({}) + 1000);
    const image = { role: 'user', content: 'u', images: ['iVBORw0KGgoAAA'] };
    assert.ok(sizeOf({ messages: [image] }) >= sizeOf({}) + 256);
  });

  test('embed: vectors in order, and the older form of one', () => {
    const answer = bytes({
      data: [{ embedding: [1, 2] }, { embedding: [3, 4] }],
      usage: { prompt_tokens: 9 },
    });
    const embed = ollamaEmbed(same).parse(bytes({ model: 'm', input: ['a', 'b'], truncate: true }));
    assert.deepEqual(JSON.parse(Buffer.from(embed.wholeOut?.(answer) ?? []).toString()), {
      model: 'm',
      embeddings: [
        [1, 2],
        [3, 4],
      ],
      prompt_eval_count: 9,
    });
    const old = ollamaEmbeddings(same).parse(bytes({ model: 'm', prompt: 'a' }));
    assert.deepEqual(JSON.parse(Buffer.from(old.wholeOut?.(answer) ?? []).toString()), { embedding: [1, 2] });
  });

  test('a conversation of 160,000 turns is measured, not a crash', () => {
    const messages = Array.from({ length: 160_000 }, () => ({ role: 'user', content: '' }));
    assert.ok(ollamaChat(same).parse(bytes({ model: 'm', messages })).promptTokensEstimate > 160_000);
  });

  const faults: readonly (readonly [Json, string, string])[] = [
    [{ messages: [] }, 'missing_model_field', 'model'],
    [{ model: 'm', messages: 'hi' }, 'invalid_request', 'messages'],
    [{ model: 'm', messages: [{ role: 'robot' }] }, 'invalid_request', 'messages.0.role'],
    [{ model: 'm', messages: [{ role: 'user', content: 3 }] }, 'invalid_request', 'messages.0.content'],
    [{ model: 'm', messages: [{ role: 'user', images: ['?'] }] }, 'invalid_request', 'messages.0.images.0'],
    [{ model: 'm', messages: [], options: { temperature: 'hot' } }, 'invalid_request', 'options.temperature'],
    [{ model: 'm', messages: [], think: 'much' }, 'invalid_request', 'think'],
    [{ model: 'm', messages: [], format: 'xml' }, 'invalid_request', 'format'],
    [{ model: 'm', messages: [], tools: [{ function: {} }] }, 'invalid_request', 'tools.0.function.name'],
  ];
  for (const [body, code, param] of faults) {
    test(`${JSON.stringify(body)} is refused at ${param}`, () => {
      assert.throws(
        () => ollamaChat(same).parse(bytes(body)),
        (error: unknown) => error instanceof AppError && error.code === code && error.param === param,
      );
    });
  }

  for (const field of [
    { template: 'x' },
    { context: [1] },
    { raw: true, images: ['iVBORw0KGgo'] },
    { raw: true, format: 'json' },
  ]) {
    test(`generate with ${JSON.stringify(field)} says that it is not read`, () => {
      assert.throws(
        () => ollamaGenerate(same).parse(bytes({ model: 'm', prompt: 'p', ...field })),
        (error: unknown) => error instanceof AppError && error.code === 'unsupported_parameter',
      );
    });
  }
});

test('names have a tag, and are found with it, without it, and in any case', () => {
  assert.deepEqual(['a', 'org/b:Q4', 'host:1/c'].map(toOllamaName), [
    'a:latest',
    'org/b:Q4',
    'host:1/c:latest',
  ]);
  const ids = new Set(['a', 'org/b:Q4', 'c:latest']);
  assert.deepEqual(
    ['a', 'a:latest', 'A:Latest', 'org/b:Q4', 'org/b:q4', 'c:latest', 'd:latest'].map((name) =>
      resolveOllamaName(name, ids),
    ),
    ['a', 'a', 'a', 'org/b:Q4', 'org/b:Q4', 'c:latest', 'd'],
  );
});

test('a listed model says its size, quantisation, context and capabilities in Ollama’s words', () => {
  const model = {
    id: 'org/Qwen3-8B:Q4_K_M',
    modifiedAt: created_at,
    digest: 'f'.repeat(64),
    capabilities: ['text', 'tools', 'reasoning'],
    context: 4096,
    memoryMb: 2,
  };
  const { name, size, details } = toTag(model);
  assert.deepEqual([name, size], ['org/Qwen3-8B:Q4_K_M', 2_097_152]);
  assert.deepEqual([details.parameter_size, details.quantization_level], ['8B', 'Q4_K_M']);
  const shown = toShow(model);
  assert.deepEqual(shown.capabilities, ['completion', 'tools', 'thinking']);
  assert.equal((shown.model_info as Json)['gguf.context_length'], 4096);
});
