/** LangChain through gateway and neuron: its OpenAI client in both dialects, and its Anthropic one. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ChatAnthropic } from '@langchain/anthropic';
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import { AIMessageChunk, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { writeTinyEncoder } from 'neuron/engine/tiny-encoder.test.kit';
import { type Stack, startStack, tinyFile } from './stack.ts';

const question = 'What is the capital of France?';
const personSchema = {
  title: 'person',
  description: 'A person',
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer', minimum: 0, maximum: 120 } },
  required: ['name', 'age'],
  additionalProperties: false,
};
const weather = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    description: 'Get the weather of a city',
    parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
  },
};

let folder: string;
let stack: Stack;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cortex-langchain-'));
  writeTinyEncoder(join(folder, 'mean.gguf'), { pooling: 'mean' });
  stack = await startStack({
    transport: 'thread',
    dirs: [folder, join(tinyFile, '..')],
    preload: ['mean', 'cortex-tiny'],
  });
});
after(async () => {
  await stack?.close();
  rmSync(folder, { recursive: true, force: true });
});

const settings = { model: 'cortex-tiny', apiKey: 'none', temperature: 0, maxTokens: 150, maxRetries: 0 };
const openai = (useResponsesApi: boolean) =>
  new ChatOpenAI({ ...settings, useResponsesApi, configuration: { baseURL: stack.baseUrl } });
const clients: Readonly<Record<string, () => ChatOpenAI | ChatAnthropic>> = {
  'openai, chat': () => openai(false),
  'openai, responses': () => openai(true),
  anthropic: () => new ChatAnthropic({ ...settings, anthropicApiUrl: stack.gateway.url }),
};

for (const [name, open] of Object.entries(clients)) {
  describe(name, () => {
    test('invoke: the answer and what it took', async () => {
      const answer = await open().invoke(question);
      assert.match(answer.text, /Paris/);
      assert.ok((answer.usage_metadata?.output_tokens ?? 0) > 0);
    });

    test('stream: the pieces make the whole', async () => {
      const pieces: string[] = [];
      for await (const chunk of await open().stream(question)) pieces.push(chunk.text);
      assert.match(pieces.join(''), /Paris/);
      assert.ok(pieces.length > 1);
    });

    test('a bound tool is called, and its result is answered', async () => {
      const model = (open() as BaseChatModel).bindTools!([weather]);
      const asked = new HumanMessage('What is the weather in Paris?');
      const call = await model.invoke([asked]);
      const [first] = call.tool_calls ?? [];
      assert.equal(first?.name, 'get_weather');
      assert.deepEqual(first?.args, { location: 'Paris' });
      const result = new ToolMessage({ tool_call_id: first?.id ?? '', content: '21 degrees and clear' });
      const answer = await model.invoke([asked, call, result]);
      assert.ok(answer.text.length > 0);
    });

    test('a streamed call is whole when its pieces are put together', async () => {
      const model = (open() as BaseChatModel).bindTools!([weather]);
      let whole: AIMessageChunk | undefined;
      for await (const chunk of await model.stream('What is the weather in Paris?')) {
        assert.ok(chunk instanceof AIMessageChunk);
        whole = whole === undefined ? chunk : whole.concat(chunk);
      }
      assert.deepEqual(
        whole?.tool_calls?.map((call) => [call.name, call.args]),
        [['get_weather', { location: 'Paris' }]],
      );
    });

    // its client for Responses does not send "any"
    for (const choice of name === 'openai, responses' ? ['get_weather'] : ['get_weather', 'any']) {
      test(`a tool that has to be called is called: ${choice}`, async () => {
        const model = (open() as BaseChatModel).bindTools!([weather], { tool_choice: choice });
        const { tool_calls: calls = [] } = await model.invoke('Hello!');
        assert.equal(calls[0]?.name, 'get_weather');
      });
    }

    for (const method of ['jsonSchema', 'functionCalling'] as const) {
      test(`withStructuredOutput, ${method}: an object of the schema`, async () => {
        const model = open().withStructuredOutput<Person>(personSchema, { method, name: 'person' });
        const { name: called, age } = await model.invoke('Name a person and an age.');
        assert.equal(typeof called, 'string');
        assert.ok(Number.isInteger(age) && age <= 120);
      });
    }
  });
}

interface Person {
  readonly name: string;
  readonly age: number;
}

test('embeddings: vectors of length 1, the same for the same text', async () => {
  const embeddings = new OpenAIEmbeddings({
    model: 'mean',
    apiKey: 'none',
    maxRetries: 0,
    configuration: { baseURL: stack.baseUrl },
  });
  const one = await embeddings.embedQuery('the cat sat');
  const [first] = await embeddings.embedDocuments(['the cat sat', 'a dog ran']);
  assert.ok(Math.abs(Math.hypot(...one) - 1) < 1e-3);
  assert.ok((first ?? []).every((value, at) => Math.abs(value - (one[at] ?? 0)) < 1e-5));
});
