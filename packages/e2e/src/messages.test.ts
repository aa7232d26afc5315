/** The Messages API as agents use it, through gateway and neuron with Anthropic's own client and real weights. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';
import { agentTurns } from 'cortex-gateway/dialects/agent-transcript.test.kit';
import { anthropicMessages } from 'cortex-gateway/dialects/anthropic';
import { AnthropicGrammar } from 'cortex-gateway/dialects/wire-grammar/anthropic-grammar';
import { postJson, type Stack, startStack, tokensWhenIdle } from './stack.ts';

const model = 'cortex-tiny';
/** The client's types no longer have it; the API does. */
const greedy = { temperature: 0 } as object;
const weather = { role: 'user' as const, content: 'What is the weather in Paris?' };
const getWeather: Anthropic.Tool = {
  name: 'get_weather',
  description: 'Get the weather of a city',
  input_schema: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
};

let stack: Stack;
let client: Anthropic;
before(async () => {
  stack = await startStack({ transport: 'thread', context: 16_384 });
  client = new Anthropic({ baseURL: stack.gateway.url, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

const create = (more: Partial<Anthropic.MessageCreateParamsNonStreaming>): Promise<Anthropic.Message> =>
  client.messages.create({ model, max_tokens: 120, messages: [weather], ...greedy, ...more });
const stream = (more: Partial<Anthropic.MessageCreateParamsNonStreaming>) =>
  client.messages.stream({ model, max_tokens: 120, messages: [weather], ...greedy, ...more });
const toolUseOf = (message: Anthropic.Message): Anthropic.ToolUseBlock => {
  const block = message.content.find((each) => each.type === 'tool_use');
  assert.ok(block, JSON.stringify(message));
  return block;
};
const textOf = (message: Anthropic.Message): string =>
  message.content.map((block) => (block.type === 'text' ? block.text : '')).join('');

describe('tools', () => {
  for (const isStreamed of [false, true]) {
    test(`ask, tool_use, tool_result, answer: ${isStreamed ? 'streamed' : 'whole'}`, async () => {
      const ask = (messages: Anthropic.MessageParam[]): Promise<Anthropic.Message> => {
        const request = { messages, tools: [getWeather] };
        return isStreamed ? stream(request).finalMessage() : create(request);
      };
      const first = await ask([weather]);
      assert.equal(first.stop_reason, 'tool_use');
      const use = toolUseOf(first);
      assert.deepEqual([use.name, use.input], ['get_weather', { location: 'Paris' }]);
      const result: Anthropic.ToolResultBlockParam = {
        type: 'tool_result',
        tool_use_id: use.id,
        content: [{ type: 'text', text: '{"weather": "sunny"}' }],
      };
      const second = await ask([
        weather,
        { role: 'assistant', content: first.content },
        { role: 'user', content: [result] },
      ]);
      assert.equal(second.stop_reason, 'end_turn');
      assert.match(textOf(second), /sunny/);
      // the second turn begins with the tokens of the first
      assert.ok((second.usage.cache_read_input_tokens ?? 0) > first.usage.input_tokens / 2);
    });
  }

  for (const isStreamed of [false, true]) {
    test(`the client's tool runner runs to the end: ${isStreamed ? 'streamed' : 'whole'}`, async () => {
      const asked: unknown[] = [];
      const runner = client.beta.messages.toolRunner({
        ...{ model, max_tokens: 120, messages: [weather], stream: isStreamed, ...greedy },
        tools: [
          betaTool({
            name: 'get_weather',
            description: 'Get the weather of a city',
            inputSchema: {
              type: 'object',
              properties: { location: { type: 'string' } },
              required: ['location'],
            } as const,
            run: (input) => {
              asked.push(input);
              return '{"weather": "sunny"}';
            },
          }),
        ],
      });
      const final = await runner.runUntilDone();
      assert.deepEqual(asked, [{ location: 'Paris' }]);
      // the runner would keep its conversation on the server, and sends it whole when that is refused
      assert.match(final.content.map((block) => (block.type === 'text' ? block.text : '')).join(''), /sunny/);
    });
  }

  test('any and a named tool force a call of a model that would only talk; none forbids it', async () => {
    const hello: Anthropic.MessageParam[] = [{ role: 'user', content: 'Say hello.' }];
    for (const tool_choice of [
      { type: 'any', disable_parallel_tool_use: true },
      { type: 'tool', name: 'get_weather', disable_parallel_tool_use: true },
    ] as const) {
      const forced = await create({ messages: hello, tools: [getWeather], tool_choice });
      assert.equal(forced.content.filter(({ type }) => type === 'tool_use').length, 1);
      assert.equal(typeof (toolUseOf(forced).input as { location: string }).location, 'string');
    }
    const free = await create({ tools: [getWeather], tool_choice: { type: 'none' } });
    assert.ok(free.content.every(({ type }) => type === 'text'));
  });
});

describe('thinking', () => {
  const sum = { messages: [{ role: 'user' as const, content: 'What is 2 plus 3?' }], max_tokens: 1200 };

  test('comes as its own block with a signature, is counted, and survives the way back', async () => {
    const seen: string[] = [];
    const running = stream({ ...sum, thinking: { type: 'enabled', budget_tokens: 1024 } });
    running.on('thinking', (delta) => void seen.push(delta));
    const message = await running.finalMessage();
    const [block] = message.content;
    assert.ok(block?.type === 'thinking' && block.signature !== '');
    assert.equal(block.thinking, seen.join(''));
    assert.doesNotMatch(textOf(message), /think>/);
    const details = (message.usage as { output_tokens_details?: { thinking_tokens: number } })
      .output_tokens_details;
    assert.ok((details?.thinking_tokens ?? 0) > 0);
    const again = await create({
      messages: [
        ...sum.messages,
        { role: 'assistant', content: message.content },
        { role: 'user', content: 'Sure?' },
      ],
    });
    assert.equal(again.type, 'message');
  });

  test('is left out when disabled', async () => {
    const message = await create({ ...sum, thinking: { type: 'disabled' } });
    assert.deepEqual(
      message.content.map(({ type }) => type),
      ['text'],
    );
  });
});

describe('the end of an answer', () => {
  const capital = { messages: [{ role: 'user' as const, content: 'What is the capital of France?' }] };

  test('is told: max_tokens, stop_sequence with the text, end_turn', async () => {
    assert.equal((await create({ ...capital, max_tokens: 1 })).stop_reason, 'max_tokens');
    const stopped = await create({ ...capital, stop_sequences: ['zzz', 'Paris'] });
    assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ['stop_sequence', 'Paris']);
    assert.doesNotMatch(textOf(stopped), /Paris/);
    assert.equal((await create(capital)).stop_reason, 'end_turn');
  });

  test('is a full context where that was it, and not max_tokens', async () => {
    const small = await startStack({ transport: 'thread', context: 256 });
    try {
      const narrow = new Anthropic({ baseURL: small.gateway.url, apiKey: 'none', maxRetries: 0 });
      const request = {
        ...{ model, max_tokens: 8000, ...greedy },
        messages: [
          { role: 'user' as const, content: 'Write a list of cities, one after the other, without end.' },
        ],
        output_config: {
          format: {
            type: 'json_schema' as const,
            schema: { type: 'array', items: { type: 'string', minLength: 20 }, minItems: 500 },
          },
        },
      };
      const whole = await narrow.messages.create(request);
      assert.equal(whole.stop_reason, 'model_context_window_exceeded');
      const streamed = await narrow.messages.stream(request).finalMessage();
      assert.equal(streamed.stop_reason, 'model_context_window_exceeded');
    } finally {
      await small.close();
    }
  });

  test('of a prefilled answer is the continuation alone', async () => {
    const messages = [
      ...capital.messages,
      { role: 'assistant' as const, content: 'The capital of France is' },
    ];
    assert.match(textOf(await create({ messages })), /^ Paris/);
  });

  test('fits the schema that was asked for', async () => {
    const schema = {
      type: 'object',
      properties: { city: { type: 'string', maxLength: 20 }, size: { enum: ['small', 'large'] } },
      required: ['city', 'size'],
      additionalProperties: false,
    };
    const message = await create({
      ...{ messages: [{ role: 'user', content: 'Tell me about a city.' }], max_tokens: 300 },
      output_config: { format: { type: 'json_schema', schema } },
    });
    assert.deepEqual(Object.keys(JSON.parse(textOf(message))), ['city', 'size']);
  });
});

describe('a stream', () => {
  test('begins with the real size of the prompt, keeps the grammar, and says the same as the whole', async () => {
    const body = { model, max_tokens: 60, messages: [weather], tools: [getWeather], ...greedy };
    const counted = (await create({ tools: [getWeather], max_tokens: 60 })).usage;
    const total = counted.input_tokens + (counted.cache_read_input_tokens ?? 0);
    const answer = await postJson(`${stack.baseUrl}/messages?beta=true`, { ...body, stream: true });
    const bytes = Buffer.from(await answer.arrayBuffer());
    const grammar = new AnthropicGrammar();
    grammar.push(bytes);
    assert.equal(grammar.end(), null);
    const start = JSON.parse(/data: (.*"message_start".*)\n/.exec(bytes.toString())?.[1] ?? '{}');
    const { input_tokens: fresh, cache_read_input_tokens: cached } = start.message.usage;
    assert.equal(fresh + cached, total);
    assert.ok(cached > 0, 'the same prompt was read a moment ago');
  });

  test('that the client aborts stops the generation', async () => {
    const before = await tokensWhenIdle(stack);
    const running = stream({
      messages: [{ role: 'user', content: 'Write a list of cities.' }],
      max_tokens: 8000,
      output_config: {
        format: { type: 'json_schema', schema: { type: 'array', items: { type: 'string' }, minItems: 5000 } },
      },
    });
    await new Promise<void>((resolve) => {
      running.once('text', () => resolve());
    });
    running.abort();
    await assert.rejects(running.finalMessage(), Anthropic.APIUserAbortError);
    // whole it would have had 8,000
    assert.ok((await tokensWhenIdle(stack)) - before < 4000);
  });
});

test("an agent's next turn shares 99 % of its tokens, and the neuron reads only what is new", async () => {
  const turns = agentTurns(4).messages.map((body) => Buffer.from(JSON.stringify({ ...body, model })));
  const tokensOf = async (body: Buffer): Promise<number[]> => {
    const { toUpstream } = anthropicMessages.parse(body, { prefixHygiene: true });
    const chat = JSON.parse(Buffer.from(toUpstream({ wireId: model })).toString());
    const answer = await postJson(`${stack.neuron.url}/tokenize`, { ...chat, add_generation_prompt: false });
    return ((await answer.json()) as { tokens: number[] }).tokens;
  };
  const prompts = await Promise.all(turns.map(tokensOf));
  for (const [at, prompt] of prompts.slice(1).entries()) {
    const before = prompts[at]!;
    const differs = before.findIndex((token, index) => prompt[index] !== token);
    const share = (differs === -1 ? before.length : differs) / before.length;
    assert.ok(share >= 0.99, `turn ${at + 1} shares ${share} of ${before.length} tokens`);
  }
  let read = 0;
  for (const body of turns.slice(0, 2)) {
    const request = { ...JSON.parse(body.toString()), max_tokens: 1, stream: false };
    const answer = await postJson(`${stack.baseUrl}/messages`, request);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('x-cortex-route') ?? '', /prefix=normalized/);
    const { usage } = (await answer.json()) as { usage: Record<string, number> };
    if (read > 0) assert.ok(usage.cache_read_input_tokens! >= read * 0.98, JSON.stringify(usage));
    read = usage.input_tokens! + usage.cache_read_input_tokens!;
  }
});
