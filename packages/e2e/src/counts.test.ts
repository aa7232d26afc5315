/** The official clients' token counts are the usage of the answers, real weights, streamed and whole. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { postJson, type Stack, startStack } from './stack.ts';

let stack: Stack;
let anthropic: Anthropic;
let openai: OpenAI;
before(async () => {
  stack = await startStack({ transport: 'thread' });
  anthropic = new Anthropic({ baseURL: stack.gateway.url, apiKey: 'none', maxRetries: 0 });
  openai = new OpenAI({ baseURL: stack.baseUrl, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

type Message = Anthropic.MessageParam;
const messages: Message[] = [{ role: 'user', content: 'What is the capital of France?' }];

function inputTokens(usage: Anthropic.Usage | undefined): number {
  return (usage?.input_tokens ?? -1) + (usage?.cache_read_input_tokens ?? 0);
}

const texts: readonly (readonly [string, Pick<Anthropic.MessageCountTokensParams, 'system'>])[] = [
  ['a question', {}],
  ['a system text', { system: 'Be brief. 東京 🌡️' }],
  ['blocks', { system: [{ type: 'text', text: 'Be brief.' }] }],
];
for (const [name, more] of texts) {
  test(`anthropic: ${name} is counted as it is answered`, async () => {
    const request = { model: 'cortex-tiny', messages, ...more };
    const { input_tokens: counted } = await anthropic.messages.countTokens(request);
    assert.ok(counted > 0);
    const whole = await anthropic.messages.create({ ...request, max_tokens: 4 });
    assert.equal(inputTokens(whole.usage), counted);
    const streamed = await anthropic.messages.stream({ ...request, max_tokens: 4 }).finalMessage();
    assert.equal(inputTokens(streamed.usage), counted);
  });
}

const tools: Anthropic.Tool[] = [
  { name: 'get_weather', input_schema: { type: 'object', properties: { location: { type: 'string' } } } },
];
const result: Message[] = [
  ...messages,
  {
    role: 'assistant',
    content: [
      { type: 'text', text: 'Let me see.' },
      { type: 'tool_use', id: 'toolu_1', name: 'get_weather', input: { location: 'Paris' } },
    ],
  },
  {
    role: 'user',
    content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: 'warm', is_error: true }],
  },
];
const billing = { type: 'text', text: 'x-anthropic-billing-header: cc_version=1; cch=123;' } as const;
const agentic: readonly (readonly [string, Omit<Anthropic.MessageCountTokensParams, 'model'>])[] = [
  ['tools', { messages, tools }],
  ['a forced tool', { messages, tools, tool_choice: { type: 'any' } }],
  ['calls and results', { messages: result, tools }],
  ['a head that is normalised', { messages, system: [billing, { type: 'text', text: 'Be brief.' }], tools }],
];
for (const [name, more] of agentic) {
  test(`anthropic: ${name}, counted as answered`, async () => {
    const request = { model: 'cortex-tiny', ...more };
    const counted = await anthropic.messages.countTokens(request);
    const whole = await anthropic.messages.create({
      ...request,
      max_tokens: 4,
    } as Anthropic.MessageCreateParamsNonStreaming);
    assert.equal(inputTokens(whole.usage), counted.input_tokens);
    const streaming = { ...request, max_tokens: 4 } as Anthropic.MessageStreamParams;
    const streamed = await anthropic.messages.stream(streaming).finalMessage();
    assert.equal(inputTokens(streamed.usage), counted.input_tokens);
  });
}

test('chat: tools are counted as they are answered, streamed and whole', async () => {
  const body = {
    model: 'cortex-tiny',
    messages,
    tools: [
      {
        type: 'function',
        function: { name: 'capital', parameters: { type: 'object', properties: { of: { type: 'string' } } } },
      },
    ],
  };
  const counted = (await (await postJson(`${stack.baseUrl}/chat/completions/input_tokens`, body)).json()) as {
    input_tokens: number;
  };
  const whole = (await (
    await postJson(`${stack.baseUrl}/chat/completions`, { ...body, max_tokens: 2 })
  ).json()) as { usage: { prompt_tokens: number } };
  const stream = { ...body, max_tokens: 2, stream: true, stream_options: { include_usage: true } };
  const streamed = await (await postJson(`${stack.baseUrl}/chat/completions`, stream)).text();
  assert.equal(whole.usage.prompt_tokens, counted.input_tokens);
  assert.match(streamed, new RegExp(`"prompt_tokens":${counted.input_tokens},`));
});

test('responses: input, instructions, tools and what is continued are counted as they are answered', async () => {
  const model = 'cortex-tiny';
  const weather = {
    ...{
      type: 'function' as const,
      name: 'get_weather',
      description: 'The weather of a city',
      strict: false,
    },
    parameters: { type: 'object', properties: { location: { type: 'string' } } },
  };
  const first = await openai.responses.create({ model, input: 'What is 2 plus 3?', max_output_tokens: 8 });
  const requests: readonly OpenAI.Responses.InputTokenCountParams[] = [
    { model, input: 'What is the capital of France?' },
    { model, input: [{ role: 'user', content: 'Hm.' }], instructions: 'Be brief. 東京' },
    { model, input: 'What is the weather in Paris?', tools: [weather], tool_choice: 'required' },
    { model, input: 'And 3 plus 4?', previous_response_id: first.id },
    {
      ...{ model, tools: [weather] },
      input: [
        { role: 'user', content: 'What is the weather in Paris?' },
        { type: 'function_call', call_id: 'call_1', name: 'get_weather', arguments: '{"location":"Paris"}' },
        { type: 'function_call_output', call_id: 'call_1', output: 'sunny' },
      ],
    },
  ];
  for (const request of requests) {
    const { input_tokens: counted, object } = await openai.responses.inputTokens.count(request);
    assert.equal(object, 'response.input_tokens');
    const asked = { ...request, max_output_tokens: 4 } as OpenAI.Responses.ResponseCreateParamsNonStreaming;
    const whole = await openai.responses.create(asked);
    assert.equal(whole.usage?.input_tokens, counted, JSON.stringify(request));
    const streamed = await openai.responses.stream({ ...asked, stream: true }).finalResponse();
    assert.equal(streamed.usage?.input_tokens, counted);
  }
});

test('an image is counted where it is answered, and refused in the same words where it is not', async () => {
  const image = { type: 'base64', media_type: 'image/png', data: 'AA==' } as const;
  const request = {
    model: 'cortex-tiny',
    messages: [{ role: 'user' as const, content: [{ type: 'image' as const, source: image }] }],
  };
  const refusals: string[] = [];
  for (const asked of [
    anthropic.messages.countTokens(request),
    anthropic.messages.create({ ...request, max_tokens: 4 }),
  ]) {
    await assert.rejects(asked, (error: unknown) => {
      assert.ok(error instanceof Anthropic.BadRequestError);
      refusals.push(String((error.error as { error: { message: string } }).error.message));
      return true;
    });
  }
  assert.equal(refusals[0], refusals[1]);
});
