/** What agents live on, through gateway and neuron with OpenAI's own client: calls, results, forced shapes. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import type { ChatCompletionMessageParam, ChatCompletionTool } from 'openai/resources/chat/completions';
import { postJson, type Stack, startStack } from './stack.ts';

const model = 'cortex-tiny';
const question: ChatCompletionMessageParam = { role: 'user', content: 'What is the weather in Paris?' };
const tools: ChatCompletionTool[] = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'Get the weather of a city',
      parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
    },
  },
  {
    type: 'function',
    function: {
      name: 'get_time',
      description: 'Get the time of a city',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    },
  },
];
const offered = tools.map((tool) => (tool.type === 'function' ? tool.function.name : ''));

let stack: Stack;
let openai: OpenAI;
before(async () => {
  stack = await startStack({ transport: 'thread' });
  openai = new OpenAI({ baseURL: stack.baseUrl, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

type Call = OpenAI.ChatCompletionMessageFunctionToolCall;

function callOf(message: OpenAI.ChatCompletionMessage): Call {
  const [call] = message.tool_calls ?? [];
  assert.ok(call?.type === 'function', JSON.stringify(message));
  return call;
}

describe('a question that needs a tool', () => {
  const ask = (stream: boolean, messages: ChatCompletionMessageParam[]): Promise<OpenAI.ChatCompletion> => {
    const request = { model, temperature: 0, max_tokens: 120, messages, tools };
    return stream
      ? openai.chat.completions.stream(request).finalChatCompletion()
      : openai.chat.completions.create(request);
  };

  for (const stream of [false, true]) {
    test(`ask, call, result, answer: ${stream ? 'streamed' : 'whole'}`, async () => {
      const [first] = (await ask(stream, [question])).choices;
      assert.equal(first!.finish_reason, 'tool_calls');
      const call = callOf(first!.message);
      assert.equal(call.function.name, 'get_weather');
      assert.deepEqual(JSON.parse(call.function.arguments), { location: 'Paris' });
      const result = { role: 'tool' as const, tool_call_id: call.id, content: '{"weather": "sunny"}' };
      const [second] = (await ask(stream, [question, first!.message, result])).choices;
      assert.equal(second!.finish_reason, 'stop');
      assert.match(second!.message.content ?? '', /sunny/);
    });
  }

  test('the name comes before the arguments, each piece under its index', async () => {
    const stream = await openai.chat.completions.create({
      model,
      temperature: 0,
      messages: [question],
      tools,
      stream: true,
    });
    const pieces: { name?: string | undefined; text: string }[] = [];
    for await (const chunk of stream) {
      for (const call of chunk.choices[0]?.delta.tool_calls ?? []) {
        assert.equal(call.index, 0);
        pieces.push({ name: call.function?.name, text: call.function?.arguments ?? '' });
      }
    }
    assert.equal(pieces[0]?.name, 'get_weather');
    assert.equal(pieces[0]?.text, '');
    assert.ok(pieces.length > 3, 'arguments come in pieces');
    assert.deepEqual(JSON.parse(pieces.map((piece) => piece.text).join('')), { location: 'Paris' });
  });
});

describe('tool_choice', () => {
  const hello: ChatCompletionMessageParam = { role: 'user', content: 'Say hello.' };
  const ask = async (more: object): Promise<OpenAI.ChatCompletion.Choice> => {
    const base = { model, temperature: 1, max_tokens: 200, messages: [hello], tools };
    return (await openai.chat.completions.create({ ...base, ...more })).choices[0]!;
  };

  test('required makes a call of a model that would only talk, at any draw', async () => {
    let whole = 0;
    for (let seed = 0; seed < 8; seed++) {
      const { message, finish_reason: reason } = await ask({
        tool_choice: 'required',
        parallel_tool_calls: false,
        seed,
      });
      assert.equal(message.content ?? '', '');
      // some draws of this small model name a city that does not end within the tokens
      if (reason === 'length') continue;
      whole++;
      assert.equal(reason, 'tool_calls');
      assert.equal(message.tool_calls?.length, 1);
      const call = callOf(message);
      assert.ok(offered.includes(call.function.name));
      const [value] = Object.values(JSON.parse(call.function.arguments) as Record<string, unknown>);
      assert.equal(typeof value, 'string');
    }
    assert.ok(whole >= 4, `${whole} calls`);
  });

  test('a named function is the one that is called', async () => {
    for (let seed = 0; seed < 3; seed++) {
      const choice = { type: 'function', function: { name: 'get_time' } };
      const { message } = await ask({ tool_choice: choice, parallel_tool_calls: false, seed });
      const call = callOf(message);
      assert.equal(call.function.name, 'get_time');
      assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['city']);
    }
  });

  test('none leaves calls out, and the tools unseen', async () => {
    const { message } = await ask({ tool_choice: 'none', messages: [question], temperature: 0 });
    assert.equal(message.tool_calls, undefined);
    const plain = await ask({ messages: [question], temperature: 0, tools: undefined });
    assert.equal(message.content, plain.message.content);
  });

  test('a name that was not offered is refused', async () => {
    const choice = { type: 'function', function: { name: 'nope' } };
    await assert.rejects(ask({ tool_choice: choice }), (error: unknown) => {
      return error instanceof OpenAI.BadRequestError && error.param === 'tool_choice';
    });
  });
});

describe('response_format', () => {
  const schema = {
    type: 'object',
    properties: {
      city: { type: 'string', maxLength: 20 },
      size: { enum: ['small', 'large'] },
      rank: { type: 'integer', minimum: 1, maximum: 99 },
    },
    required: ['city', 'size', 'rank'],
    additionalProperties: false,
  };
  const format = { type: 'json_schema' as const, json_schema: { name: 'city', strict: true, schema } };

  test('json_schema holds at a temperature at which the model babbles', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const { choices }: OpenAI.ChatCompletion = await openai.chat.completions.create({
        model,
        temperature: 1.5,
        seed,
        max_tokens: 400,
        messages: [{ role: 'user', content: 'Tell me about a city.' }],
        response_format: format,
      });
      const { city, size, rank, ...rest } = JSON.parse(choices[0]!.message.content ?? '');
      assert.ok(typeof city === 'string' && city.length <= 20);
      assert.ok(size === 'small' || size === 'large');
      assert.ok(Number.isInteger(rank) && rank >= 1 && rank <= 99);
      assert.deepEqual(rest, {});
      assert.equal(choices[0]!.finish_reason, 'stop');
    }
  });

  test('with tools the answer is a call or the JSON, nothing else', async () => {
    for (let seed = 0; seed < 6; seed++) {
      const { choices }: OpenAI.ChatCompletion = await openai.chat.completions.create({
        model,
        temperature: 1,
        seed,
        max_tokens: 400,
        messages: [question],
        tools,
        response_format: format,
      });
      const message: OpenAI.ChatCompletionMessage = choices[0]!.message;
      if (message.tool_calls !== undefined) assert.ok(offered.includes(callOf(message).function.name));
      else assert.equal(typeof JSON.parse(message.content ?? '').city, 'string');
    }
  });

  test('a schema that cannot be kept is refused by its keyword', async () => {
    const bad = { name: 'x', schema: { type: 'object', propertyNames: { pattern: '^(?<=a)b' } } };
    const request = openai.chat.completions.create({
      model,
      messages: [question],
      response_format: { type: 'json_schema', json_schema: bad },
    });
    await assert.rejects(request, OpenAI.BadRequestError);
  });
});

for (const stream of [false, true]) {
  test(`the client's tool runner runs to the end: ${stream ? 'streamed' : 'whole'}`, async () => {
    const asked: unknown[] = [];
    const run = {
      ...{ model, temperature: 0, max_tokens: 120, messages: [question] },
      tools: [
        {
          type: 'function' as const,
          function: {
            name: 'get_weather',
            description: 'Get the weather of a city',
            parameters: {
              type: 'object',
              properties: { location: { type: 'string' } },
              required: ['location'],
            },
            parse: JSON.parse,
            function: (input: { location: string }) => {
              asked.push(input);
              return '{"weather": "sunny"}';
            },
          },
        },
      ],
    };
    const runner = stream
      ? openai.chat.completions.runTools({ ...run, stream: true })
      : openai.chat.completions.runTools(run);
    assert.match((await runner.finalContent()) ?? '', /sunny/);
    assert.deepEqual(asked, [{ location: 'Paris' }]);
  });
}

test('parse gives an object of the schema, at any draw', async () => {
  const schema = {
    type: 'object',
    properties: { city: { type: 'string', enum: ['Paris', 'Rome'] }, big: { type: 'boolean' } },
    required: ['city', 'big'],
    additionalProperties: false,
  };
  const { choices } = await openai.chat.completions.parse({
    ...{ model, messages: [{ role: 'user', content: 'Name a city.' }] },
    response_format: { type: 'json_schema', json_schema: { name: 'city', schema, strict: true } },
  });
  const city = JSON.parse(choices[0]?.message.content ?? '') as { city: string; big: boolean };
  assert.ok(['Paris', 'Rome'].includes(city.city));
  assert.equal(typeof city.big, 'boolean');
});

test('functions, the form of before tools, come back as function_call', async () => {
  const functions = tools.map((tool) => (tool.type === 'function' ? tool.function : null));
  for (const stream of [false, true]) {
    const response = await postJson(`${stack.baseUrl}/chat/completions`, {
      model,
      temperature: 0,
      messages: [question],
      functions,
      function_call: { name: 'get_weather' },
      stream,
    });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    assert.match(text, /"function_call":\{"name":"get_weather"/);
    assert.match(text, /"finish_reason":"function_call"/);
    assert.doesNotMatch(text, /tool_calls/);
  }
});

test('the last message of the assistant is continued', async () => {
  const { choices } = await openai.chat.completions.create({
    model,
    temperature: 0,
    messages: [
      { role: 'user', content: 'What is the capital of France?' },
      { role: 'assistant', content: 'The capital of France is' },
    ],
  });
  assert.match(choices[0]!.message.content ?? '', /^ Paris/);
});

test('reasoning is told apart, counted and bounded', async () => {
  const ask = async (more: object): Promise<OpenAI.ChatCompletion & { reasoning: string }> => {
    const base = {
      model,
      temperature: 0,
      max_tokens: 200,
      messages: [{ role: 'user', content: 'What is 2 plus 3?' }],
    };
    const answer = await openai.chat.completions.create({
      ...base,
      ...more,
    } as OpenAI.ChatCompletionCreateParamsNonStreaming);
    const message = answer.choices[0]!.message as { reasoning_content?: string };
    return { ...answer, reasoning: message.reasoning_content ?? '' };
  };
  const on = await ask({ chat_template_kwargs: { enable_thinking: true } });
  assert.notEqual(on.reasoning, '');
  assert.doesNotMatch(on.choices[0]!.message.content ?? '', /think>/);
  assert.ok((on.usage?.completion_tokens_details?.reasoning_tokens ?? 0) > 0);
  const bounded = await ask({ chat_template_kwargs: { enable_thinking: true }, thinking_budget_tokens: 2 });
  assert.ok(
    (bounded.usage?.completion_tokens_details?.reasoning_tokens ?? 0) <= 6,
    JSON.stringify(bounded.usage),
  );
  assert.notEqual(bounded.choices[0]!.message.content, '');
  const off = await ask({ reasoning_effort: 'none' });
  assert.equal(off.reasoning, '');
});
