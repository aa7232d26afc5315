/**
 * What is wrong with a request, over every door of the gateway before a real neuron: the vendor's status and
 * envelope, with the path of the field. Never a 500. What is answered with 200 is what agents cannot help:
 * history whose calls and results do not match, and what a list says twice.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Stack, startStack } from './stack.ts';

type Json = Readonly<Record<string, unknown>>;
type Style = 'openai' | 'anthropic' | 'flat';
/** What is changed in a good body, the status, and the path that the refusal names; null = none. */
type Fault = readonly [name: string, change: Json, status: number, path: string | null];

interface Door {
  readonly path: string;
  readonly style: Style;
  /** Answered with 200. */
  readonly good: Json;
  /** The model here cannot do it, and that is all that is wrong. */
  readonly needsOther?: boolean;
  readonly faults: readonly Fault[];
}

const model = 'cortex-tiny';
const user = { role: 'user', content: 'hi' };
const schema = { type: 'object', properties: {} };
const badSchema = { type: 'hologram' };
const range = (count: number): readonly number[] => Array.from({ length: count }, (_, at) => at);
/** JSON cannot be written from it without a deep stack. */
const deep = Symbol('a list in a list, 100,000 times');

const chatTool = (name: unknown) => ({ type: 'function', function: { name, parameters: schema } });
const chatCall = (id: string, name = 'f') => ({ id, type: 'function', function: { name, arguments: '{}' } });
const chatFaults: readonly Fault[] = [
  ['messages missing', { messages: undefined }, 400, 'messages'],
  ['messages a text', { messages: 'hi' }, 400, 'messages'],
  ['messages empty', { messages: [] }, 400, 'messages'],
  ['a message null', { messages: [null] }, 400, 'messages.0'],
  ['a message without a role', { messages: [{ content: 'hi' }] }, 400, 'messages.0.role'],
  ['an unknown role', { messages: [{ role: 'robot', content: 'hi' }] }, 400, 'messages.0.role'],
  ['content a number', { messages: [{ role: 'user', content: 5 }] }, 400, 'messages.0.content'],
  ['content empty', { messages: [{ role: 'user', content: [] }] }, 200, null],
  [
    'an unknown part',
    { messages: [{ role: 'user', content: [{ type: 'hologram' }] }] },
    400,
    'messages.0.content.0.type',
  ],
  [
    'an image without an address',
    { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
    400,
    'messages.0.content.0',
  ],
  [
    'a result without a call',
    { messages: [user, { role: 'tool', tool_call_id: 'a', content: 'x' }] },
    200,
    null,
  ],
  [
    'two calls of one id',
    { messages: [user, { role: 'assistant', tool_calls: [chatCall('a'), chatCall('a')] }] },
    200,
    null,
  ],
  ['tools a text', { tools: 'f' }, 400, 'tools'],
  ['a tool null', { tools: [null] }, 400, 'tools.0'],
  ['a tool without a name', { tools: [{ type: 'function', function: {} }] }, 400, 'tools.0.function.name'],
  ['two tools of one name', { tools: [chatTool('f'), chatTool('f')] }, 400, 'tools.1.function.name'],
  ['10,000 tools', { tools: range(10_000).map((at) => chatTool(`f${at}`)) }, 400, 'tools'],
  ['a choice of no tool', { tools: [chatTool('f')], tool_choice: chatTool('g') }, 400, 'tool_choice'],
  ['temperature a text', { temperature: 'hot' }, 400, 'temperature'],
  ['max_tokens negative', { max_tokens: -1 }, 400, 'max_tokens'],
  ['stop a number', { stop: 5 }, 400, 'stop'],
  ['stream a text', { stream: 'yes' }, 400, 'stream'],
  ['10,000 stops', { stop: range(10_000).map(String) }, 400, 'stop'],
  ['n a text', { n: 'two' }, 400, 'n'],
  ['a format that is none', { response_format: { type: 'xml' } }, 400, 'response_format.type'],
  ['messages too deep', { messages: deep }, 400, null],
];

const toolUse = (id: string) => ({ type: 'tool_use', id, name: 'f', input: {} });
const result = (id: string) => ({ type: 'tool_result', tool_use_id: id, content: 'x' });
const messagesTool = (name: unknown) => ({ name, input_schema: schema });
const messagesFaults: readonly Fault[] = [
  ['messages missing', { messages: undefined }, 400, 'messages'],
  ['messages a text', { messages: 'hi' }, 400, 'messages'],
  ['messages empty', { messages: [] }, 400, 'messages'],
  ['a message null', { messages: [null] }, 400, 'messages.0'],
  ['a message without a role', { messages: [{ content: 'hi' }] }, 400, 'messages.0.role'],
  ['an unknown role', { messages: [{ role: 'robot', content: 'hi' }] }, 400, 'messages.0.role'],
  ['content a number', { messages: [{ role: 'user', content: 5 }] }, 400, 'messages.0.content'],
  ['content missing', { messages: [{ role: 'user' }] }, 400, 'messages.0.content'],
  ['content empty', { messages: [{ role: 'user', content: '' }] }, 400, 'messages.0.content'],
  [
    'an unknown block',
    { messages: [{ role: 'user', content: [{ type: 'hologram' }] }] },
    400,
    'messages.0.content.0.type',
  ],
  [
    'a text without its text',
    { messages: [{ role: 'user', content: [{ type: 'text' }] }] },
    400,
    'messages.0.content.0.text',
  ],
  ['a result without a call', { messages: [{ role: 'user', content: [result('a')] }] }, 200, null],
  [
    'two calls of one id',
    { messages: [user, { role: 'assistant', content: [toolUse('a'), toolUse('a')] }] },
    400,
    'messages.1.content.1.id',
  ],
  [
    'two results of one id',
    {
      messages: [
        user,
        { role: 'assistant', content: [toolUse('a')] },
        { role: 'user', content: [result('a'), result('a')] },
      ],
    },
    400,
    'messages.2.content.1.tool_use_id',
  ],
  ['system a number', { system: 5 }, 400, 'system'],
  ['tools a text', { tools: 'f' }, 400, 'tools'],
  ['a tool null', { tools: [null] }, 400, 'tools.0'],
  ['a tool without a name', { tools: [{ input_schema: schema }] }, 400, 'tools.0.name'],
  ['two tools of one name', { tools: [messagesTool('f'), messagesTool('f')] }, 400, 'tools'],
  ['10,000 tools', { tools: range(10_000).map((at) => messagesTool(`f${at}`)) }, 400, 'tools'],
  [
    'a choice of no tool',
    { tools: [messagesTool('f')], tool_choice: { type: 'tool', name: 'g' } },
    400,
    'tool_choice.name',
  ],
  ['thinking a text', { thinking: 'much' }, 400, 'thinking'],
  ['temperature a text', { temperature: 'hot' }, 400, 'temperature'],
  ['10,000 stops', { stop_sequences: range(10_000).map(String) }, 400, 'stop_sequences'],
  ['messages too deep', { messages: deep }, 400, null],
];

const call = (id: string) => ({ type: 'function_call', call_id: id, name: 'f', arguments: '{}' });
const output = (id: string) => ({ type: 'function_call_output', call_id: id, output: 'x' });
const responsesTool = (name: unknown) => ({ type: 'function', name, parameters: schema });
const responsesFaults: readonly Fault[] = [
  ['input missing', { input: undefined }, 400, 'input'],
  ['input a number', { input: 5 }, 400, 'input'],
  ['input empty', { input: [] }, 400, 'input'],
  ['an item null', { input: [null] }, 400, 'input[0]'],
  ['an unknown role', { input: [{ role: 'robot', content: 'hi' }] }, 400, 'input[0].role'],
  ['an unknown item', { input: [{ type: 'hologram' }] }, 400, 'input[0].type'],
  ['content a number', { input: [{ role: 'user', content: 5 }] }, 400, 'input[0].content'],
  ['content missing', { input: [{ role: 'user' }] }, 400, 'input[0].content'],
  [
    'an unknown part',
    { input: [{ role: 'user', content: [{ type: 'hologram' }] }] },
    400,
    'input[0].content[0].type',
  ],
  ['a result without a call', { input: [user, output('a')] }, 400, 'input[1].call_id'],
  ['two calls of one id', { input: [user, call('a'), call('a')] }, 400, 'input[2].call_id'],
  ['a reference to nothing', { input: [{ type: 'item_reference', id: 'x' }] }, 404, 'input[0].id'],
  ['a response that is gone', { previous_response_id: 'resp_x' }, 400, 'previous_response_id'],
  ['tools a text', { tools: 'f' }, 400, 'tools'],
  ['a tool null', { tools: [null] }, 400, 'tools[0]'],
  ['a tool without a name', { tools: [{ type: 'function' }] }, 400, 'tools[0].name'],
  ['two tools of one name', { tools: [responsesTool('f'), responsesTool('f')] }, 200, null],
  ['10,000 tools', { tools: range(10_000).map((at) => responsesTool(`f${at}`)) }, 400, 'tools'],
  [
    'a choice of no tool',
    { tools: [responsesTool('f')], tool_choice: { type: 'function', name: 'g' } },
    400,
    'tool_choice',
  ],
  ['temperature a text', { temperature: 'hot' }, 400, 'temperature'],
  ['instructions a number', { instructions: 5 }, 400, 'instructions'],
  ['metadata a text', { metadata: 'x' }, 400, 'metadata'],
  ['input too deep', { input: deep }, 400, null],
];

const ollamaTool = (name: unknown) => ({ type: 'function', function: { name, parameters: schema } });
const ollamaCommon: readonly Fault[] = [
  ['options a text', { options: 'hot' }, 400, 'options'],
  ['temperature a text', { options: { temperature: 'hot' } }, 400, 'options.temperature'],
  ['temperature negative', { options: { temperature: -1 } }, 400, 'options.temperature'],
  ['stop a number', { options: { stop: 5 } }, 400, 'options.stop'],
  ['10,000 stops', { options: { stop: range(10_000).map(String) } }, 400, 'options.stop'],
  ['a schema that is none', { format: badSchema }, 400, 'format.type'],
  ['format a word', { format: 'xml' }, 400, 'format'],
  ['think a number', { think: 5 }, 400, 'think'],
  ['stream a text', { stream: 'yes' }, 400, 'stream'],
];

const doors: readonly Door[] = [
  {
    ...{ path: '/v1/chat/completions', style: 'openai' },
    good: { messages: [user], max_tokens: 1 },
    faults: chatFaults,
  },
  {
    ...{ path: '/v1/chat/completions/input_tokens', style: 'openai' },
    good: { messages: [user] },
    faults: chatFaults.filter(([name]) => /^(messages|a message|content|tools|10,000 tools)/.test(name)),
  },
  {
    ...{ path: '/v1/completions', style: 'openai' },
    good: { prompt: 'hi', max_tokens: 1 },
    faults: [
      ['prompt a boolean', { prompt: true }, 400, 'prompt'],
      ['prompt an object', { prompt: {} }, 400, 'prompt'],
      ['prompt mixed', { prompt: ['a', 1] }, 400, 'prompt'],
      ['10,000 prompts', { prompt: range(10_000).map(String) }, 400, 'prompt'],
      ['max_tokens a text', { max_tokens: 'x' }, 400, 'max_tokens'],
      ['temperature a text', { temperature: 'hot' }, 400, 'temperature'],
      ['prompt too deep', { prompt: deep }, 400, null],
    ],
  },
  {
    ...{ path: '/v1/embeddings', style: 'openai' },
    ...{ good: { input: 'hi' }, needsOther: true },
    faults: [
      ['input missing', { input: undefined }, 400, 'input'],
      ['input empty', { input: [] }, 400, 'input'],
      ['input a boolean', { input: true }, 400, 'input'],
      ['an unknown encoding', { encoding_format: 'x' }, 400, 'encoding_format'],
      ['input too deep', { input: deep }, 400, null],
    ],
  },
  {
    ...{ path: '/v1/rerank', style: 'openai' },
    ...{ good: { query: 'a', documents: ['b'] }, needsOther: true },
    faults: [
      ['query missing', { query: undefined }, 400, 'query'],
      ['documents missing', { documents: undefined }, 400, 'documents'],
      ['documents a text', { documents: 'x' }, 400, 'documents'],
      ['documents too deep', { documents: deep }, 400, null],
    ],
  },
  {
    ...{ path: '/v1/messages', style: 'anthropic' },
    good: { max_tokens: 1, messages: [user] },
    faults: [
      ...messagesFaults,
      ['max_tokens missing', { max_tokens: undefined }, 400, 'max_tokens'],
      ['max_tokens a text', { max_tokens: '1' }, 400, 'max_tokens'],
      [
        'a schema that is none',
        { output_config: { format: { type: 'json_schema', schema: badSchema } } },
        400,
        'output_config.format.schema.type',
      ],
      ['max_tokens nothing', { max_tokens: 0 }, 400, 'max_tokens'],
      ['stream a text', { stream: 'yes' }, 400, 'stream'],
    ],
  },
  {
    ...{ path: '/v1/messages/count_tokens', style: 'anthropic' },
    good: { messages: [user] },
    faults: messagesFaults,
  },
  {
    ...{ path: '/v1/responses', style: 'openai' },
    good: { input: 'hi', max_output_tokens: 1, store: false },
    faults: [
      ...responsesFaults,
      ['max_output_tokens a text', { max_output_tokens: '1' }, 400, 'max_output_tokens'],
      ['stream a text', { stream: 'yes' }, 400, 'stream'],
      [
        'a schema that is none',
        { text: { format: { type: 'json_schema', name: 'a', schema: badSchema } } },
        400,
        'text.format.schema.type',
      ],
      ['store a text', { store: 'yes' }, 400, 'store'],
    ],
  },
  {
    ...{ path: '/v1/responses/input_tokens', style: 'openai' },
    good: { input: 'hi' },
    faults: responsesFaults,
  },
  {
    ...{ path: '/v1/responses/compact', style: 'openai' },
    good: { input: 'hi', max_output_tokens: 4 },
    faults: responsesFaults.filter(([name]) => !/tool/.test(name)),
  },
  {
    ...{ path: '/api/chat', style: 'flat' },
    good: { messages: [user], stream: false, options: { num_predict: 1 } },
    faults: [
      ...ollamaCommon,
      ['messages a text', { messages: 'hi' }, 400, 'messages'],
      ['a message null', { messages: [null] }, 400, 'messages.0'],
      ['a message without a role', { messages: [{ content: 'hi' }] }, 400, 'messages.0.role'],
      ['an unknown role', { messages: [{ role: 'robot', content: 'hi' }] }, 400, 'messages.0.role'],
      ['content a number', { messages: [{ role: 'user', content: 5 }] }, 400, 'messages.0.content'],
      ['an image that is none', { messages: [{ ...user, images: ['?'] }] }, 400, 'messages.0.images.0'],
      ['a result without a call', { messages: [user, { role: 'tool', content: 'x' }] }, 200, null],
      ['tools a text', { tools: 'f' }, 400, 'tools'],
      ['a tool null', { tools: [null] }, 400, 'tools.0'],
      ['a tool without a name', { tools: [{ function: {} }] }, 400, 'tools.0.function.name'],
      ['two tools of one name', { tools: [ollamaTool('f'), ollamaTool('f')] }, 400, 'tools.1.function.name'],
      ['10,000 tools', { tools: range(10_000).map((at) => ollamaTool(`f${at}`)) }, 400, 'tools'],
      ['messages too deep', { messages: deep }, 400, null],
    ],
  },
  {
    ...{ path: '/api/generate', style: 'flat' },
    good: { prompt: 'hi', stream: false, options: { num_predict: 1 } },
    faults: [
      ...ollamaCommon,
      ['prompt a number', { prompt: 5 }, 400, 'prompt'],
      ['system a number', { system: 5 }, 400, 'system'],
      ['images a text', { images: 'x' }, 400, 'images'],
      ['prompt too deep', { prompt: deep }, 400, null],
    ],
  },
  {
    ...{ path: '/api/embed', style: 'flat' },
    ...{ good: { input: 'hi' }, needsOther: true },
    faults: [
      ['input a number', { input: 5 }, 400, 'input'],
      ['input too deep', { input: deep }, 400, null],
    ],
  },
  {
    ...{ path: '/api/embeddings', style: 'flat' },
    ...{ good: { prompt: 'hi' }, needsOther: true },
    faults: [['prompt a number', { prompt: 5 }, 400, 'prompt']],
  },
  { ...{ path: '/api/show', style: 'flat' }, good: {}, faults: [] },
];

/** Bodies that are none, whatever the door. */
const noBodies: readonly (readonly [string, string | Buffer, number])[] = [
  ['nothing', '', 400],
  ['half of one', '{"model":"cortex', 400],
  ['a list', '[]', 400],
  ['null', 'null', 400],
  ['a text', '"hi"', 400],
  ['bytes that are no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]), 400],
  ['a form', 'model=cortex-tiny&stream=true', 400],
];

let stack: Stack;
before(async () => {
  stack = await startStack({ transport: 'thread', context: 512 });
});
after(() => stack?.close());

function toBody(door: Door, change: Json): string {
  const deepest = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  const text = JSON.stringify({ model, ...door.good, ...change }, (_, value: unknown) =>
    value === deep ? 'DEEP' : value,
  );
  return text.replace('"DEEP"', deepest);
}

async function send(door: Door, body: string | Buffer, headers: Record<string, string> = {}) {
  const type = { 'content-type': 'application/json' };
  const response = await fetch(stack.gateway.url + door.path, {
    ...{ method: 'POST', body: new Uint8Array(Buffer.from(body)), headers: { ...type, ...headers } },
  });
  return { status: response.status, text: await response.text() };
}

/** Fails where it is not the envelope of the door. */
function messageOf(door: Door, text: string): { readonly message: string; readonly param: unknown } {
  const {
    type,
    error,
    request_id: requestId,
    code,
  } = JSON.parse(text) as {
    readonly type?: string;
    readonly error: string | { readonly message: string; readonly param?: unknown; readonly type: string };
    readonly request_id?: string;
    readonly code?: string;
  };
  if (typeof error === 'string') {
    assert.deepEqual([door.style, typeof code], ['flat', 'string'], text);
    return { message: error, param: null };
  }
  assert.deepEqual([typeof error.message, typeof error.type], ['string', 'string'], text);
  assert.equal(door.style, type === 'error' && requestId !== undefined ? 'anthropic' : 'openai', text);
  return { message: error.message, param: error.param };
}

function assertNames(door: Door, text: string, path: string): void {
  const { message, param } = messageOf(door, text);
  if (door.style === 'openai') assert.equal(param, path, text);
  else assert.match(message, new RegExp(`^"?${path.replaceAll('.', '\\.')}\\b`), text);
}

for (const door of doors) {
  describe(`POST ${door.path}`, () => {
    test('a good request is answered, whatever its content-type says', async () => {
      for (const type of ['application/json', 'text/plain', 'application/x-www-form-urlencoded']) {
        const { status, text } = await send(door, toBody(door, {}), { 'content-type': type });
        assert.equal(status, door.needsOther ? 400 : 200, text);
        if (door.needsOther)
          assert.match(messageOf(door, text).message, /makes no embeddings|is no reranker/);
      }
    });

    test('an encoding that nobody reads', async () => {
      const { status, text } = await send(door, toBody(door, {}), { 'content-encoding': 'rot13' });
      assert.equal(status, 415, text);
      messageOf(door, text);
    });

    for (const [name, body, wanted] of noBodies) {
      test(`a body that is ${name}`, async () => {
        const { status, text } = await send(door, body);
        assert.equal(status, wanted, text);
        messageOf(door, text);
      });
    }

    for (const [name, value, wanted] of [
      ['missing', undefined, 400],
      ['empty', '', 400],
      ['a number', 5, 400],
      ['of nobody', 'nobody/has-it', 404],
    ] as const) {
      test(`model ${name}`, async () => {
        const { status, text } = await send(door, toBody(door, { model: value }));
        assert.equal(status, wanted, text);
        if (wanted === 400) assertNames(door, text, 'model');
        else messageOf(door, text);
      });
    }

    for (const [name, change, wanted, path] of door.faults) {
      test(name, async () => {
        const { status, text } = await send(door, toBody(door, change));
        assert.equal(status, wanted, text.slice(0, 500));
        if (status !== 200) messageOf(door, text);
        if (path !== null) assertNames(door, text, path);
      });
    }
  });
}

/** A request that says much: each of its fields is set to values of other types. */
const rich: Readonly<Record<string, Json>> = {
  '/v1/chat/completions': {
    messages: [
      { role: 'system', content: 's' },
      { role: 'user', content: [{ type: 'text', text: 'hi' }], name: 'n' },
      { role: 'assistant', content: null, reasoning_content: 'r', tool_calls: [chatCall('a')] },
      { role: 'tool', tool_call_id: 'a', content: 'x' },
      user,
    ],
    tools: [chatTool('f')],
    ...{ tool_choice: 'auto', parallel_tool_calls: true, response_format: { type: 'text' }, stop: ['x'] },
    ...{ temperature: 0.5, top_p: 0.5, top_k: 4, seed: 1, n: 1, logprobs: false, logit_bias: { 1: 1 } },
    ...{ max_tokens: 1, max_completion_tokens: 1, stream: false, stream_options: null, user: 'u' },
    ...{ reasoning_effort: 'low', chat_template_kwargs: {}, metadata: { a: 'b' } },
  },
  '/v1/completions': {
    ...{ prompt: ['hi'], suffix: null, max_tokens: 1, temperature: 0.5, stop: ['x'], echo: false, n: 1 },
    ...{ logprobs: 1, seed: 1, stream: false, best_of: 1, user: 'u' },
  },
  '/v1/messages': {
    ...{ max_tokens: 1, system: [{ type: 'text', text: 's', cache_control: { type: 'ephemeral' } }] },
    messages: [
      { role: 'user', content: [{ type: 'text', text: 'hi' }] },
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 't', signature: 's' },
          { type: 'text', text: 'a' },
          toolUse('a'),
        ],
      },
      {
        role: 'user',
        content: [
          { ...result('a'), content: [{ type: 'text', text: 'x' }], is_error: false },
          { type: 'document', source: { type: 'text', media_type: 'text/plain', data: 'd' }, title: 't' },
        ],
      },
    ],
    ...{ tools: [messagesTool('f')], tool_choice: { type: 'auto', disable_parallel_tool_use: true } },
    ...{
      thinking: { type: 'enabled', budget_tokens: 1024 },
      output_config: { effort: 'low', format: { type: 'json_schema', schema } },
    },
    ...{ stop_sequences: ['x'], temperature: 0.5, top_p: 0.5, top_k: 4, metadata: { user_id: 'u' } },
    ...{ stream: false, service_tier: 'auto', context_management: { edits: [{ type: 'x' }] } },
  },
  '/v1/responses': {
    input: [
      { role: 'user', content: [{ type: 'input_text', text: 'hi' }] },
      {
        type: 'reasoning',
        id: 'rs_1',
        summary: [{ type: 'summary_text', text: 's' }],
        encrypted_content: 'e',
      },
      call('a'),
      output('a'),
      { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'a', annotations: [] }] },
      { role: 'user', content: 'hi' },
    ],
    tools: [responsesTool('f'), { type: 'custom', name: 'c', format: { type: 'text' } }],
    ...{
      instructions: 'i',
      tool_choice: 'auto',
      parallel_tool_calls: true,
      truncation: 'auto',
      store: false,
    },
    text: { format: { type: 'json_schema', name: 'a', schema }, verbosity: 'low' },
    ...{ reasoning: { effort: 'low', summary: 'auto' } },
    ...{ max_output_tokens: 1, temperature: 0.5, top_p: 0.5, metadata: { a: 'b' }, include: ['x'] },
    ...{ stream: false, user: 'u', prompt_cache_key: 'k', service_tier: 'auto', top_logprobs: 0 },
  },
  '/api/chat': {
    messages: [
      { role: 'system', content: 's' },
      user,
      {
        role: 'assistant',
        content: '',
        thinking: 't',
        tool_calls: [{ function: { name: 'f', arguments: {} } }],
      },
      { role: 'tool', tool_name: 'f', content: 'x' },
    ],
    ...{ tools: [ollamaTool('f')], format: schema, think: true, stream: false, keep_alive: '5m' },
    options: { num_predict: 1, temperature: 0.5, top_k: 4, seed: 1, stop: ['x'], repeat_penalty: 1.1 },
  },
  '/api/generate': {
    ...{ prompt: 'hi', system: 's', suffix: '', images: [], format: 'json', think: false, stream: false },
    ...{ raw: false, template: '', context: [], keep_alive: 5, options: { num_predict: 1, stop: 'x' } },
  },
};
const otherTypes: readonly unknown[] = [null, true, 5, -0.5, 'x', [], { a: {} }, '\ud800'];

/** Every place in the value, as the keys that lead there. */
function placesIn(value: unknown, at: readonly string[] = []): readonly (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [at];
  return [at, ...Object.entries(value).flatMap(([key, each]) => placesIn(each, [...at, key]))];
}

function withAt(value: unknown, [key, ...rest]: readonly string[], other: unknown): unknown {
  if (key === undefined) return other;
  if (Array.isArray(value))
    return value.map((each, at) => (String(at) === key ? withAt(each, rest, other) : each));
  const fields = value as Json;
  return { ...fields, [key]: withAt(fields[key], rest, other) };
}

for (const [path, body] of Object.entries(rich)) {
  const door = doors.find((each) => each.path === path);
  test(`POST ${path}: no field of another type is a 500, and what is refused is named`, async () => {
    assert.ok(door !== undefined);
    const { status, text } = await send(door, toBody(door, body));
    assert.equal(status, 200, text);
    for (const place of placesIn(body).slice(1)) {
      for (const other of otherTypes) {
        const where = `${place.join('.')} = ${JSON.stringify(other)}`;
        const answer = await send(door, JSON.stringify({ model, ...(withAt(body, place, other) as Json) }));
        if (answer.status === 200) continue;
        assert.ok(answer.status < 500, `${where}: ${answer.text}`);
        const { message, param } = messageOf(door, answer.text);
        const named = /^"?(\w+)/.exec(typeof param === 'string' ? param : message)?.[1] ?? '';
        assert.ok(named in body, `${where}: ${answer.text}`);
      }
    }
  });
}
