import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import type { ResponseObject, ResponseOutputItem } from 'cortex-core/wire/responses';
import type { JsonObject } from '../request-body.ts';
import { faultOfResponse } from '../wire-grammar/responses-grammar.ts';
import { checkResponsesStream } from '../wire-grammar/responses-stream.test.kit.ts';
import { toCarried } from './carried-text.ts';
import { pageOfItems } from './item-page.ts';
import { replayResponse } from './replay.ts';
import { compactionDialect, readResponse, responsesCount } from './responses.ts';
import type { CallerStore, StoredResponse } from './store-face.ts';
import { TurnFitter } from './truncation.ts';

/** A store without limits. */
function createShelf(): CallerStore & { readonly all: Map<string, StoredResponse> } {
  const all = new Map<string, StoredResponse>();
  const items = () =>
    [...all.values()].flatMap(({ input, response }) => [...input, ...response.output] as JsonObject[]);
  return {
    all,
    keeps: true,
    find: (id) => all.get(id) ?? null,
    findItem: (id) => items().find((item) => item.id === id) ?? null,
    put: (stored) => void all.set(stored.response.id, stored),
    whyMissing: () => 'It is not here.',
  };
}

function setup({ context = null }: { context?: number | null } = {}) {
  const shelf = createShelf();
  let count = 0;
  const deps = {
    store: shelf,
    newId: (prefix: string) => `${prefix}_${++count}`,
    nowSecs: () => 1_700_000_000,
    contextOf: () => context,
    fitter: new TurnFitter(),
  };
  const parse = (body: object | string) =>
    readResponse(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), deps).request;
  return { shelf, parse, deps };
}

interface ChatBody {
  readonly messages: readonly JsonObject[];
  readonly tools?: readonly { readonly function: JsonObject & { readonly name: string } }[];
  readonly [field: string]: unknown;
}
const bodyOf = (request: object, kit = setup()): ChatBody =>
  JSON.parse(
    Buffer.from(kit.parse({ model: 'm', ...request }).toUpstream({ wireId: 'w' })).toString(),
  ) as ChatBody;
const messagesOf = (input: unknown, more: object = {}) => bodyOf({ input, ...more }).messages;

const frame = (delta: object, finish: string | null = null, more: object = {}): string =>
  `data: ${JSON.stringify({ id: 'chatcmpl-1', choices: [{ index: 0, delta, finish_reason: finish }], ...more })}\n\n`;
const call = (index: number, args: string, id?: string, name = 'f') => ({
  tool_calls: [{ index, ...(id ? { id } : {}), function: { ...(id ? { name } : {}), arguments: args } }],
});
const usage = {
  prompt_tokens: 10,
  completion_tokens: 7,
  prompt_tokens_details: { cached_tokens: 4 },
  completion_tokens_details: { reasoning_tokens: 2 },
};
const ending = (finish: string) => [
  frame({}, finish),
  `data: ${JSON.stringify({ choices: [], usage })}\n\n`,
  'data: [DONE]\n\n',
];
const golden = [
  ': keep-alive\n\n',
  frame({ role: 'assistant', content: '' }),
  frame({ reasoning_content: 'denke ' }),
  frame({ reasoning_content: 'nach 🤔' }),
  frame({ content: '日本' }),
  frame({ content: '語 🎉' }),
  frame(call(0, '', 'call_a')),
  frame(call(0, '{"x":')),
  frame(call(0, '"é"}')),
  frame(call(1, '{"input":"*** Begin', 'call_b', 'apply_patch')),
  frame(call(1, ' \\"Patch\\"\\n\\ud83d')),
  frame(call(1, '\\ude00"}')),
  frame(call(2, '{}', 'call_c', 'mcp__disk__read')),
  ...ending('tool_calls'),
];
const tools = [
  { type: 'function', name: 'f', parameters: { type: 'object', properties: { x: { type: 'string' } } } },
  {
    type: 'custom',
    name: 'apply_patch',
    format: { type: 'grammar', syntax: 'lark', definition: 'start: X' },
  },
  {
    type: 'namespace',
    name: 'mcp__disk',
    tools: [{ type: 'function', name: 'read', parameters: { type: 'object' } }],
  },
  { type: 'web_search' },
];
const asked = { model: 'm', input: 'hi', stream: true, tools };

/** Everything that the stream says, broken off with an error event where `end` throws. */
function streamOf(bytes: Uint8Array, request: object = asked, size = bytes.length, kit = setup()) {
  const out = kit.parse(request).streamOut('req');
  const sent: Uint8Array[] = [];
  try {
    for (let at = 0; at < bytes.length; at += size) sent.push(out.push(bytes.subarray(at, at + size)));
    sent.push(out.end());
  } catch (thrown) {
    assert.ok(thrown instanceof AppError);
    sent.push(out.error(thrown));
  }
  return checkResponsesStream(Buffer.concat(sent));
}
const finalOf = (frames: readonly string[], request: object = asked) =>
  streamOf(Buffer.from(frames.join('')), request).response;
const bytesOf = (frames: readonly string[]) => Buffer.from(frames.join(''));
const shortOf = (item: ResponseOutputItem): unknown => {
  const { id: _, status, ...rest } = item as ResponseOutputItem & { id: string };
  return { ...rest, status };
};

describe('the stream', () => {
  test('tells every item in its own form, and counts tokens', () => {
    const { events, response } = streamOf(bytesOf(golden));
    const { output, status, usage: used } = response;
    assert.equal(status, 'completed');
    assert.deepEqual(output.map(shortOf), [
      {
        type: 'reasoning',
        summary: [],
        content: [{ type: 'reasoning_text', text: 'denke nach 🤔' }],
        status: 'completed',
      },
      {
        type: 'message',
        role: 'assistant',
        content: [{ type: 'output_text', text: '日本語 🎉', annotations: [], logprobs: [] }],
        status: 'completed',
      },
      { type: 'function_call', call_id: 'call_a', name: 'f', arguments: '{"x":"é"}', status: 'completed' },
      {
        type: 'custom_tool_call',
        call_id: 'call_b',
        name: 'apply_patch',
        input: '*** Begin "Patch"\n😀',
        status: 'completed',
      },
      {
        type: 'function_call',
        call_id: 'call_c',
        name: 'read',
        namespace: 'mcp__disk',
        arguments: '{}',
        status: 'completed',
      },
    ]);
    assert.deepEqual(used, {
      input_tokens: 10,
      input_tokens_details: { cached_tokens: 4, cache_write_tokens: 0 },
      output_tokens: 7,
      output_tokens_details: { reasoning_tokens: 2 },
      total_tokens: 17,
    });
    const inputs = events.filter(({ type }) => type === 'response.custom_tool_call_input.delta');
    assert.ok(inputs.length > 1, 'the input comes in pieces');
  });

  test('is the same to the byte in any chunking', () => {
    const bytes = bytesOf(golden);
    const whole = streamOf(bytes);
    for (let size = 1; size < 80; size++) {
      assert.deepEqual(streamOf(bytes, asked, size), whole, `chunks of ${size}`);
    }
  });

  test('cut short it fails, keeps its grammar wherever the cut is, and is never called complete', () => {
    const bytes = bytesOf(golden);
    const stop = bytes.indexOf('\n\n', bytes.indexOf('"finish_reason":"tool_calls"')) + 2;
    for (let cut = 0; cut <= bytes.length; cut++) {
      const { response, events } = streamOf(bytes.subarray(0, cut));
      assert.equal(response.status, cut < stop ? 'failed' : 'completed', `cut at ${cut}`);
      assert.equal(
        events.some(({ type }) => type === 'error'),
        cut < stop,
      );
    }
  });

  test('a failure before the first event is created, error, failed, and the store has it', () => {
    const kit = setup();
    const out = kit.parse(asked).streamOut('req');
    const error = new AppError('context_length_exceeded', 'too long', { param: 'input' });
    const { events, response } = checkResponsesStream(Buffer.from(out.error(error)));
    assert.deepEqual(
      events.map(({ type }) => type),
      ['response.created', 'response.in_progress', 'error', 'response.failed'],
    );
    assert.deepEqual(response.error, { code: 'context_length_exceeded', message: 'too long' });
    assert.equal(kit.shelf.find(String(response.id))?.response.status, 'failed');
  });

  test('tells agents apart what to try again and what not', () => {
    const codeOf = (code: ConstructorParameters<typeof AppError>[0]) => {
      const out = setup().parse(asked).streamOut('req');
      const { response } = checkResponsesStream(Buffer.from(out.error(new AppError(code, 'x'))));
      return (response.error as { code: string }).code;
    };
    assert.equal(codeOf('overloaded'), 'server_error');
    assert.equal(codeOf('device_gone'), 'server_error');
    assert.equal(codeOf('rate_limit_exceeded'), 'rate_limit_exceeded');
    assert.equal(codeOf('template_render_failed'), 'invalid_prompt');
  });

  test('a limit ends it as incomplete, with the item that was cut', () => {
    const cut = finalOf([frame({ content: 'half a' }), ...ending('length')]);
    assert.equal(cut.status, 'incomplete');
    assert.deepEqual(cut.incomplete_details, { reason: 'max_output_tokens' });
    assert.equal(cut.output[0]?.status, 'incomplete');
    const [inCall] = finalOf([frame(call(0, '{"x":"ha', 'c')), ...ending('length')]).output;
    assert.deepEqual(inCall?.type === 'function_call' && [inCall.status, inCall.arguments], [
      'incomplete',
      '{"x":"ha',
    ]);
    const refused = finalOf([frame({ refusal: 'no' }), ...ending('stop')]);
    assert.deepEqual(refused.incomplete_details, { reason: 'content_filter' });
  });

  test('half a surrogate pair in a custom input is replaced, however it is cut', () => {
    for (const [args, input] of [
      ['{"input":"\\ud83dx"}', '\ufffdx'],
      ['{"input":"\\ude00"}', '\ufffd'],
      ['{"input":"\\ud83d\\ud83d\\ude00"}', '\ufffd😀'],
      ['{"input":"\\ud83d"}', '\ufffd'],
      ['{"input":"a\\"\\\\\\n"}', 'a"\\\n'],
      ['{"other":"\\ud83d"}', '{"other":"\\ud83d"}'],
    ] as const) {
      for (let size = 1; size <= args.length; size++) {
        const pieces = args.match(new RegExp(`.{1,${size}}`, 'gs')) ?? [];
        const frames = [
          frame(call(0, '', 'c', 'apply_patch')),
          ...pieces.map((piece) => frame(call(0, piece))),
          ...ending('tool_calls'),
        ];
        const [item] = finalOf(frames).output;
        assert.equal(item?.type === 'custom_tool_call' && item.input, input);
      }
    }
  });

  test('a call without arguments has {}, also where another follows', () => {
    const { output } = finalOf([frame(call(0, '', 'a')), frame(call(1, '', 'b')), ...ending('tool_calls')]);
    assert.deepEqual(
      output.map((item) => item.type === 'function_call' && [item.arguments, item.status]),
      [
        ['{}', 'completed'],
        ['{}', 'completed'],
      ],
    );
  });

  test('a summary that was asked for is where summaries are, and text travels in encrypted_content', () => {
    const include = ['reasoning.encrypted_content'];
    const request = { ...asked, reasoning: { effort: 'low', summary: 'auto' }, include, store: false };
    const kit = setup();
    const { response } = streamOf(bytesOf(golden), request, 7, kit);
    const [item] = response.output;
    assert.ok(item?.type === 'reasoning');
    assert.deepEqual(item.summary, [{ type: 'summary_text', text: 'denke nach 🤔' }]);
    assert.equal(item.content, undefined);
    const { id: _, summary: __, ...foreign } = item;
    const [, back] = messagesOf(
      ['hi', { ...foreign, summary: [] }, { role: 'assistant', content: 'b' }].map(asItem),
    );
    assert.equal(back?.reasoning_content, 'denke nach 🤔');
    assert.equal(kit.shelf.all.size, 0);
  });

  test('what is whole is the same response, and a stored one streams again', () => {
    const message = {
      content: '日本語 🎉',
      reasoning_content: 'denke nach 🤔',
      tool_calls: [
        { id: 'call_a', function: { name: 'f', arguments: '{"x":"é"}' } },
        { id: 'call_b', function: { name: 'apply_patch', arguments: '{"input":"x"}' } },
      ],
    };
    const kit = setup();
    const whole = kit.parse({ ...asked, stream: false }).wholeOut;
    assert.ok(whole !== null);
    const answer = { id: 'c', choices: [{ index: 0, message, finish_reason: 'tool_calls' }], usage };
    const response = JSON.parse(Buffer.from(whole(Buffer.from(JSON.stringify(answer)))).toString());
    assert.equal(faultOfResponse(response), null);
    assert.deepEqual(kit.shelf.find(response.id)?.response, response);
    const again = checkResponsesStream(replayResponse(response));
    assert.deepEqual(again.response, response);
    const golden1 = finalOf(golden);
    assert.deepEqual(checkResponsesStream(replayResponse(golden1)).response, golden1);
  });

  test('a custom tool gets no input that lost its end', () => {
    const kit = setup();
    const call = { id: 'call_b', function: { name: 'apply_patch', arguments: '{"input":"*** Begin' } };
    const answerOf = (finish_reason: string) =>
      Buffer.from(JSON.stringify({ id: 'c', choices: [{ message: { tool_calls: [call] }, finish_reason }] }));
    const whole = kit.parse({ ...asked, stream: false }).wholeOut;
    assert.throws(() => whole?.(answerOf('tool_calls')), { code: 'upstream_malformed_response' });
    const { output } = JSON.parse(Buffer.from(whole?.(answerOf('length')) ?? []).toString());
    assert.deepEqual([output[0].status, output[0].input], ['incomplete', '*** Begin']);
  });

  test('no order and no chunking of an upstream stream makes an invalid one or loses text', () => {
    const seed = Number(process.env.CORTEX_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    const random = randomOf(seed);
    const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
    for (let round = 0; round < 300; round++) {
      const frames: string[] = [];
      let [text, calls] = ['', 0];
      const steps = Math.floor(random() * 12);
      for (let step = 0; step < steps; step++) {
        const kind = pick(['text', 'reasoning', 'call', 'more', 'ping']);
        const word = pick(['a', 'ß', '日', '🎉', '"\\n', '\u2028']);
        if (kind === 'text') {
          frames.push(frame({ content: word }));
          text += word;
        } else if (kind === 'reasoning') frames.push(frame({ reasoning_content: word }));
        else if (kind === 'call') {
          const name = pick(['f', 'apply_patch', 'mcp__disk__read', 'unknown']);
          const args = pick(['', '{}', '{"input":"', '{"input":"\\ud83d', '{"x":1}', 'junk', '[1']);
          frames.push(frame(call(calls, args, `call_${round}_${calls}`, name)));
          calls++;
        } else if (kind === 'more' && calls > 0)
          frames.push(frame(call(calls - 1, pick(['', 'x', '\\u00']))));
        else frames.push(': ping\n\n');
      }
      if (random() < 0.8) frames.push(...ending(pick(['stop', 'length', 'tool_calls', 'content_filter'])));
      const bytes = bytesOf(frames);
      const size = 1 + Math.floor(random() * 50);
      try {
        const { response } = streamOf(bytes, asked, size);
        const { output, status } = response;
        const said = output.map((item) => (item.type === 'message' ? item.content[0]?.text : '')).join('');
        if (status !== 'failed') assert.equal(said, text);
        else assert.ok(text.startsWith(said));
      } catch (cause) {
        throw new Error(`CORTEX_TEST_SEED=${seed}, round ${round}: ${bytes.toString()}`, { cause });
      }
    }
  });
});

const asItem = (item: unknown) => (typeof item === 'string' ? { role: 'user', content: item } : item);

function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('the request', () => {
  test('input is a text or items, with instructions before it', () => {
    assert.deepEqual(messagesOf('hi', { instructions: 'Be short.' }), [
      { role: 'system', content: 'Be short.' },
      { role: 'user', content: 'hi' },
    ]);
    assert.deepEqual(messagesOf(''), [{ role: 'user', content: '' }]);
    assert.deepEqual(
      messagesOf([
        { role: 'developer', content: 'Be kind.' },
        { role: 'user', content: [{ type: 'input_text', text: 'a' }] },
        { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'b' }], phase: null },
        { role: 'user', content: 'c' },
      ]),
      [
        { role: 'system', content: 'Be kind.' },
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
        { role: 'user', content: 'c' },
      ],
    );
  });

  test('calls and results of every kind come back as the model made them', () => {
    const messages = messagesOf(
      [
        'hi',
        { type: 'reasoning', summary: [], encrypted_content: 'gAAAAforeign' },
        { type: 'function_call', call_id: 'a', name: 'read', namespace: 'mcp__disk', arguments: '{}' },
        { type: 'custom_tool_call', call_id: 'b', name: 'apply_patch', input: 'x"y' },
        { type: 'custom_tool_call_output', call_id: 'b', output: [{ type: 'input_text', text: 'done' }] },
        { type: 'function_call_output', call_id: 'a', output: 'text' },
        { type: 'web_search_call', id: 'ws_1', status: 'completed' },
      ].map(asItem),
      { tools },
    );
    assert.deepEqual(messages.slice(1), [
      {
        role: 'assistant',
        content: null,
        tool_calls: [
          { id: 'a', type: 'function', function: { name: 'mcp__disk__read', arguments: '{}' } },
          { id: 'b', type: 'function', function: { name: 'apply_patch', arguments: '{"input":"x\\"y"}' } },
        ],
      },
      { role: 'tool', tool_call_id: 'a', content: 'text' },
      { role: 'tool', tool_call_id: 'b', content: 'done' },
    ]);
  });

  test('an image in a result or in a question is passed on, and refused by its path', () => {
    const url = 'data:image/png;base64,AAAA';
    const input = [{ role: 'user', content: [{ type: 'input_image', image_url: url, detail: 'low' }] }];
    assert.deepEqual(messagesOf(input)[0]?.content, [
      { type: 'image_url', image_url: { url, detail: 'low' } },
    ]);
    const target = { wireId: 'w', capabilities: ['text'] };
    assert.throws(() => setup().parse({ model: 'm', input }).toUpstream(target), {
      code: 'vision_unsupported',
      param: 'input[0].content[0]',
    });
  });

  test('reasoning that led to nothing is left out', () => {
    const thought = { type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text: 'hm' }] };
    const said = { role: 'assistant', content: 'b' };
    assert.deepEqual(messagesOf(['hi', thought, said, 'go', thought].map(asItem)), [
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'b', reasoning_content: 'hm' },
      { role: 'user', content: 'go' },
    ]);
  });

  test('tools become functions, namespaces flat, and hosted ones are left out', () => {
    const body = bodyOf({ input: 'hi', tools, tool_choice: 'required', parallel_tool_calls: false });
    assert.deepEqual(
      body.tools?.map((tool) => tool.function.name),
      ['f', 'apply_patch', 'mcp__disk__read'],
    );
    assert.match(String(body.tools?.[1]?.function.description), /Lark grammar:\nstart: X/);
    assert.deepEqual([body.tool_choice, body.parallel_tool_calls], ['required', false]);
    const hosted = bodyOf({
      input: 'hi',
      tools: [{ type: 'web_search' }],
      tool_choice: { type: 'web_search' },
    });
    assert.deepEqual([hosted.tools, hosted.tool_choice], [undefined, undefined]);
  });

  test('tool_choice names one, or allows some', () => {
    const named = bodyOf({ input: 'hi', tools, tool_choice: { type: 'custom', name: 'apply_patch' } });
    assert.deepEqual(named.tool_choice, { type: 'function', function: { name: 'apply_patch' } });
    const allowed = [
      { type: 'function', name: 'f' },
      { type: 'namespace', name: 'mcp__disk' },
    ];
    const choice = { type: 'allowed_tools', mode: 'required', tools: allowed };
    const some = bodyOf({ input: 'hi', tools, tool_choice: choice });
    assert.deepEqual(
      [some.tools?.map((tool) => tool.function.name), some.tool_choice],
      [['f', 'mcp__disk__read'], 'required'],
    );
  });

  test('tools that a search of the client found can be called', () => {
    const search = { type: 'tool_search', execution: 'client' };
    const found = { type: 'function', name: 'found', parameters: { type: 'object' } };
    const input = [
      'hi',
      { type: 'tool_search_call', call_id: 's', execution: 'client', arguments: { query: 'x' } },
      { type: 'tool_search_output', call_id: 's', execution: 'client', tools: [found] },
    ].map(asItem);
    const body = bodyOf({ input, tools: [search] });
    assert.deepEqual(
      body.tools?.map((tool) => tool.function.name),
      ['tool_search', 'found'],
    );
    assert.match(String(body.messages[2]?.content), /found/);
    const frames = [frame(call(0, '{"query":"y"}', 'c', 'tool_search')), ...ending('tool_calls')];
    const [item] = finalOf(frames, { ...asked, input, tools: [search] }).output;
    assert.deepEqual(shortOf(item as ResponseOutputItem), {
      type: 'tool_search_call',
      call_id: 'c',
      execution: 'client',
      arguments: { query: 'y' },
      status: 'completed',
    });
  });

  test('what chat has under another name is translated, and the rest is repeated', () => {
    const schema = { type: 'object', properties: { a: { type: 'string' } } };
    const format = { type: 'json_schema', name: 'n', schema, strict: true };
    const request = {
      input: 'hi',
      text: { format, verbosity: 'low' },
      max_output_tokens: 5,
      temperature: 0.5,
      metadata: { a: 'b' },
      service_tier: 'flex',
      prompt_cache_key: 'k',
      safety_identifier: 's',
      client_metadata: { x: 1 },
      prompt_cache_retention: '24h',
    };
    const body = bodyOf(request);
    assert.deepEqual(body.response_format, {
      type: 'json_schema',
      json_schema: { name: 'n', schema, strict: true },
    });
    assert.deepEqual([body.max_tokens, body.temperature, body.verbosity], [5, 0.5, undefined]);
    const response = finalOf([...ending('stop')], { ...asked, ...request });
    assert.deepEqual(response.metadata, { a: 'b' });
    assert.equal(response.service_tier, 'flex');
    assert.deepEqual(response.text, { format, verbosity: 'low' });
    assert.deepEqual(response.output, []);
  });

  test('null is absent for every optional field', () => {
    const names = [
      ...[
        'instructions',
        'tools',
        'tool_choice',
        'text',
        'reasoning',
        'max_output_tokens',
        'include',
        'store',
      ],
      ...[
        'metadata',
        'truncation',
        'parallel_tool_calls',
        'previous_response_id',
        'background',
        'temperature',
      ],
      ...['conversation', 'prompt', 'service_tier', 'user', 'stream', 'top_logprobs', 'max_tool_calls'],
    ];
    const nulls = Object.fromEntries(names.map((name) => [name, null]));
    assert.deepEqual(messagesOf('hi', nulls), [{ role: 'user', content: 'hi' }]);
  });

  test('truncation auto drops whole exchanges from the front, and only then', () => {
    const long = 'x'.repeat(1500);
    const input = [
      { role: 'developer', content: 'Be kind.' },
      { role: 'user', content: `1 ${long}` },
      { type: 'function_call', call_id: 'a', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'a', output: long },
      { role: 'assistant', content: 'a' },
      { role: 'user', content: '2' },
    ];
    const textsOf = (request: object) =>
      bodyOf({ input, ...request }, setup({ context: 1000 })).messages.map(({ role, content }) => [
        role,
        String(content).slice(0, 8),
      ]);
    assert.deepEqual(textsOf({ truncation: 'auto' }), [
      ['system', 'Be kind.'],
      ['user', '2'],
    ]);
    assert.equal(textsOf({ truncation: 'disabled' }).length, 6);
    assert.equal(bodyOf({ input, truncation: 'auto' }, setup({ context: 9000 })).messages.length, 6);
  });
});

describe('what is stored', () => {
  const finish = (kit: ReturnType<typeof setup>, request: object, words: string): ResponseObject => {
    const stream = streamOf(bytesOf([frame({ content: words }), ...ending('stop')]), request, 9, kit);
    return stream.response;
  };

  test('a chain is replayed before the input, without the instructions of before', () => {
    const kit = setup();
    const one = finish(kit, { ...asked, instructions: 'Rhyme.', input: 'first' }, 'one');
    const two = finish(kit, { ...asked, input: 'second', previous_response_id: one.id }, 'two');
    const body = bodyOf({ input: 'third', previous_response_id: two.id, instructions: 'Sing.' }, kit);
    assert.deepEqual(
      body.messages.map(({ role, content }) => `${role}: ${content}`),
      ['system: Sing.', 'user: first', 'assistant: one', 'user: second', 'assistant: two', 'user: third'],
    );
  });

  test('a result answers a call of the response before', () => {
    const kit = setup();
    const { response } = streamOf(bytesOf(golden), asked, 99, kit);
    const results = ['call_a', 'call_b', 'call_c'].map((id) => ({
      type: id === 'call_b' ? 'custom_tool_call_output' : 'function_call_output',
      call_id: id,
      output: `of ${id}`,
    }));
    const { messages } = bodyOf({ input: results, previous_response_id: response.id, tools }, kit);
    assert.deepEqual(
      messages.slice(2).map(({ content }) => content),
      ['of call_a', 'of call_b', 'of call_c'],
    );
    assert.equal(messages[1]?.reasoning_content, 'denke nach 🤔');
  });

  test('an unknown id, and a chain that lost a link, are said as the vendor says it', () => {
    const kit = setup();
    const unknown = { model: 'm', input: 'x', previous_response_id: 'resp_no' };
    const expected = { code: 'previous_response_not_found', param: 'previous_response_id', status: 400 };
    assert.throws(() => kit.parse(unknown), {
      ...expected,
      message: /^Previous response with id 'resp_no' not found/,
    });
    const one = finish(kit, { ...asked, input: 'first' }, 'one');
    const two = finish(kit, { ...asked, input: 'second', previous_response_id: one.id }, 'two');
    kit.shelf.all.delete(one.id);
    assert.throws(() => kit.parse({ ...unknown, previous_response_id: two.id }), expected);
  });

  test('an item is named instead of sent, also without a type', () => {
    const kit = setup();
    const one = finish(kit, { ...asked, input: 'first' }, 'one');
    const [item] = one.output;
    const input = [{ id: item?.id }, { role: 'user', content: 'go on' }];
    assert.deepEqual(bodyOf({ input }, kit).messages[0], { role: 'assistant', content: 'one' });
    assert.throws(() => kit.parse({ model: 'm', input: [{ type: 'item_reference', id: 'msg_no' }] }), {
      code: 'not_found',
      param: 'input[0].id',
    });
    assert.throws(() => kit.parse({ model: 'm', input: [{ id: item?.id }, { id: item?.id }] }), {
      code: 'invalid_request',
      param: 'input[1].id',
    });
  });

  test('input items have ids, and are listed page by page', () => {
    const kit = setup();
    const input = Array.from({ length: 5 }, (_, at) => ({ role: 'user', content: String(at) }));
    const { id } = finish(kit, { ...asked, input }, 'x');
    const items = kit.shelf.find(id)?.input ?? [];
    const page = (query: string) => pageOfItems(items, new URLSearchParams(query));
    const texts = (query: string) =>
      page(query)
        .data.map((item) => (item.content as { text: string }[])[0]?.text)
        .join('');
    assert.deepEqual([texts(''), texts('order=asc'), texts('order=asc&limit=2')], ['43210', '01234', '01']);
    const first = page('order=asc&limit=2');
    assert.equal(first.has_more, true);
    assert.equal(texts(`order=asc&limit=3&after=${first.last_id}`), '234');
    assert.throws(() => page('after=nope'), { param: 'after' });
    assert.throws(() => page('limit=0'), { param: 'limit' });
  });
});

describe('a compaction', () => {
  test('asks for a summary behind the conversation, and its item says it in a later request', () => {
    const kit = setup();
    const conversation = [
      { role: 'user', content: 'first' },
      { type: 'function_call', call_id: 'a', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'a', output: 'result' },
    ];
    const body = { model: 'm', input: conversation, instructions: 'Be kind.' };
    const request = compactionDialect(kit.deps).parse(Buffer.from(JSON.stringify(body)));
    assert.equal(request.stream, false);
    const upstream = JSON.parse(Buffer.from(request.toUpstream({ wireId: 'w' })).toString()) as ChatBody;
    assert.deepEqual(
      upstream.messages.map(({ role }) => role),
      ['system', 'user', 'assistant', 'tool', 'user'],
    );
    assert.match(String(upstream.messages.at(-1)?.content), /summary of the conversation/);
    const answer = (content: string) =>
      Buffer.from(
        JSON.stringify({ choices: [{ index: 0, message: { content }, finish_reason: 'stop' }], usage }),
      );
    const compacted = JSON.parse(Buffer.from(request.wholeOut?.(answer('They met.')) ?? []).toString());
    assert.deepEqual([compacted.object, compacted.usage.total_tokens], ['response.compaction', 17]);
    const later = messagesOf([...compacted.output, { role: 'user', content: 'And then?' }]);
    assert.match(String(later[0]?.content), /They met\.\n\nAnd then\?$/);
    assert.equal(kit.shelf.all.size, 0);
    assert.throws(() => request.wholeOut?.(answer(' ')), { code: 'upstream_malformed_response' });
  });
});

test('a count is about the very body that the neuron would get', () => {
  const kit = setup();
  const body = Buffer.from(JSON.stringify({ ...asked, stream: false }));
  const count = responsesCount(kit.deps);
  const counted = count.parse(body).toUpstream({ wireId: 'w' });
  assert.deepEqual(counted, kit.parse(body.toString()).toUpstream({ wireId: 'w' }));
  assert.deepEqual(count.toAnswer(5), { object: 'response.input_tokens', input_tokens: 5 });
});

describe('bad input', () => {
  const message = { role: 'user', content: 'x' };
  const open = { type: 'function_call', call_id: 'a', name: 'f', arguments: '{}' };
  const deep = (levels: number): unknown => (levels === 0 ? 'x' : [deep(levels - 1)]);
  for (const [what, request, param] of [
    ['no model', { input: 'x' }, 'model'],
    ['no input', { model: 'm' }, 'input'],
    ['input of the wrong type', { input: 5 }, 'input'],
    ['no items', { input: [] }, 'input'],
    ['an item that is a text', { input: ['x'] }, 'input[0]'],
    ['an item without a type', { input: [message, {}] }, 'input[1].type'],
    [
      'an item with the name of a property of all objects',
      { input: [{ type: 'constructor' }] },
      'input[0].type',
    ],
    ['an unknown item', { input: [{ type: 'wish' }] }, 'input[0].type'],
    ['an unknown role', { input: [{ role: 'boss', content: 'x' }] }, 'input[0].role'],
    ['no content', { input: [{ role: 'user' }] }, 'input[0].content'],
    [
      'an unknown part',
      { input: [message, message, message, { role: 'user', content: [{ type: 'x' }] }] },
      'input[3].content[0].type',
    ],
    [
      'a part without text',
      { input: [{ role: 'user', content: [{ type: 'input_text' }] }] },
      'input[0].content[0].text',
    ],
    [
      'an image by id',
      { input: [{ role: 'user', content: [{ type: 'input_image', file_id: 'f' }] }] },
      'input[0].content[0].file_id',
    ],
    [
      'an image that is none',
      { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'file:///x' }] }] },
      'input[0].content[0].image_url',
    ],
    [
      'a result without a call',
      { input: [{ type: 'function_call_output', call_id: 'a', output: '' }] },
      'input[0].call_id',
    ],
    ['a call id twice', { input: [open, open] }, 'input[1].call_id'],
    ['a call without a name', { input: [{ ...open, name: undefined }] }, 'input[0].name'],
    [
      'a result without output',
      { input: [open, { type: 'function_call_output', call_id: 'a' }] },
      'input[1].output',
    ],
    [
      'foreign compaction',
      { input: [{ type: 'compaction', encrypted_content: 'x' }] },
      'input[0].encrypted_content',
    ],
    ['tools that are no list', { input: 'x', tools: {} }, 'tools'],
    ['a tool without a type', { input: 'x', tools: [{ name: 'f' }] }, 'tools[0].type'],
    [
      'a tool in the form of chat',
      { input: 'x', tools: [{ type: 'function', function: { name: 'f' } }] },
      'tools[0].name',
    ],
    [
      'a tool in a namespace without a name',
      { input: 'x', tools: [{ type: 'namespace', name: 'n', tools: [{ type: 'function' }] }] },
      'tools[0].tools[0].name',
    ],
    [
      '10,000 tools',
      { input: 'x', tools: Array.from({ length: 10_000 }, (_, i) => ({ type: 'function', name: `f${i}` })) },
      'tools',
    ],
    ['an unknown choice', { input: 'x', tool_choice: 'maybe' }, 'tool_choice'],
    [
      'a choice that is not there',
      { input: 'x', tool_choice: { type: 'function', name: 'g' } },
      'tool_choice',
    ],
    ['an unknown format', { input: 'x', text: { format: { type: 'xml' } } }, 'text.format.type'],
    [
      'a format without a schema',
      { input: 'x', text: { format: { type: 'json_schema', name: 'n' } } },
      'text.format.schema',
    ],
    ['an unknown effort', { input: 'x', reasoning: { effort: 'some' } }, 'reasoning.effort'],
    ['no tokens', { input: 'x', max_output_tokens: 0 }, 'max_output_tokens'],
    ['half a token', { input: 'x', max_output_tokens: 1.5 }, 'max_output_tokens'],
    ['a temperature in words', { input: 'x', temperature: 'hot' }, 'temperature'],
    ['a temperature of 3', { input: 'x', temperature: 3 }, 'temperature'],
    ['background that is not stored', { input: 'x', background: true, store: false }, 'background'],
    ['a conversation', { input: 'x', conversation: 'conv_1' }, 'conversation'],
    ['a stored prompt', { input: 'x', prompt: { id: 'p' } }, 'prompt'],
    ['log probabilities', { input: 'x', include: ['message.output_text.logprobs'] }, 'include[0]'],
    ['metadata of numbers', { input: 'x', metadata: { a: 1 } }, 'metadata.a'],
    ['an unknown truncation', { input: 'x', truncation: 'some' }, 'truncation'],
    ['stream in words', { input: 'x', stream: 'yes' }, 'stream'],
    ['a million items', { input: Array.from({ length: 1_000_000 }, () => 'x') }, 'input'],
    ['a deep item', { input: [{ role: 'user', content: deep(100) }] }, 'input[0].content[0]'],
  ] as [string, object, string][]) {
    test(`${what} is refused with ${param}`, () => {
      const full = what === 'no model' ? request : { model: 'm', ...request };
      assert.throws(
        () => setup().parse(full),
        (error: unknown) => {
          assert.ok(error instanceof AppError, String(error));
          assert.deepEqual([error.param, error.status], [param, 400]);
          return true;
        },
      );
    });
  }

  test('bodies that are no JSON object are refused', () => {
    for (const body of ['', '{', '[]', '"x"', '{"model":"m","input":"\ud800']) {
      assert.throws(
        () => setup().parse(body),
        (error: unknown) => error instanceof AppError && error.status === 400,
      );
    }
    const nested = `{"model":"m","input":${'['.repeat(5000)}${']'.repeat(5000)}}`;
    assert.throws(() => setup().parse(nested), { status: 400 });
  });

  test('text of ours in encrypted_content survives any characters', () => {
    const text = 'ä🤔\u0000"\n';
    const input = [
      { type: 'reasoning', encrypted_content: toCarried(text) },
      { role: 'assistant', content: 'b' },
    ];
    assert.equal(messagesOf(input)[0]?.reasoning_content, text);
  });
});
