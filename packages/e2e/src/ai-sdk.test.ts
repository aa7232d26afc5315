/** The Vercel AI SDK through gateway and neuron, with each of its providers that speaks one of our dialects. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import {
  embed,
  embedMany,
  generateObject,
  generateText,
  jsonSchema,
  type LanguageModel,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from 'ai';
import { writeTinyEncoder } from 'neuron/engine/tiny-encoder.test.kit';
import { type Stack, startStack, tinyFile } from './stack.ts';

const settings = { temperature: 0, maxRetries: 0 } as const;
const question = 'What is the capital of France?';
let folder: string;
let stack: Stack;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cortex-ai-sdk-'));
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

function compatible() {
  return createOpenAICompatible({
    name: 'cortex',
    baseURL: stack.baseUrl,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
}

const providers: Readonly<Record<string, () => LanguageModel>> = {
  'openai-compatible': () => compatible()('cortex-tiny'),
  'openai, chat': () => createOpenAI({ baseURL: stack.baseUrl, apiKey: 'none' }).chat('cortex-tiny'),
  'openai, responses': () =>
    createOpenAI({ baseURL: stack.baseUrl, apiKey: 'none' }).responses('cortex-tiny'),
  anthropic: () => createAnthropic({ baseURL: stack.baseUrl, apiKey: 'none' })('cortex-tiny'),
};

const weather = (asked: string[]) =>
  tool({
    description: 'Get the weather of a city',
    inputSchema: jsonSchema<{ location: string }>({
      type: 'object',
      properties: { location: { type: 'string' } },
      required: ['location'],
    }),
    execute: async ({ location }) => {
      asked.push(location);
      return { temperature: 21, sky: 'clear' };
    },
  });

const person = jsonSchema<{ name: string; age: number }>({
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer', minimum: 0, maximum: 120 } },
  required: ['name', 'age'],
  additionalProperties: false,
});

for (const [name, open] of Object.entries(providers)) {
  describe(name, () => {
    test('generateText: the answer and what it took', async () => {
      const { text, finishReason, usage } = await generateText({
        ...settings,
        model: open(),
        prompt: question,
        maxOutputTokens: 60,
      });
      assert.match(text, /Paris/);
      assert.equal(finishReason, 'stop');
      assert.ok((usage.inputTokens ?? 0) > 0 && (usage.outputTokens ?? 0) > 0);
    });

    test('streamText: the pieces make the whole, and the usage comes', async () => {
      const result = streamText({
        ...settings,
        model: open(),
        prompt: question,
        maxOutputTokens: 60,
        onError: ({ error }) => assert.fail(String(error)),
      });
      const pieces: string[] = [];
      for await (const piece of result.textStream) pieces.push(piece);
      assert.match(pieces.join(''), /Paris/);
      assert.ok(pieces.length > 1);
      assert.equal(await result.finishReason, 'stop');
      assert.ok(((await result.usage).outputTokens ?? 0) > 0);
    });

    for (const streamed of [false, true]) {
      test(`a tool runs and its result is answered: ${streamed ? 'streamed' : 'whole'}`, async () => {
        const asked: string[] = [];
        const request = {
          ...settings,
          model: open(),
          prompt: 'What is the weather in Paris?',
          tools: { get_weather: weather(asked) },
          maxOutputTokens: 120,
          stopWhen: stepCountIs(2),
        };
        const result = streamed ? streamText(request) : await generateText(request);
        const steps = await result.steps;
        assert.deepEqual(asked, ['Paris']);
        assert.equal(steps[0]?.finishReason, 'tool-calls');
        assert.equal(steps.length, 2);
        assert.ok((await result.text).length > 0);
      });
    }

    test('a tool that has to be called is called', async () => {
      const result = await generateText({
        ...settings,
        model: open(),
        prompt: 'Hello!',
        tools: { get_weather: weather([]) },
        toolChoice: 'required',
        maxOutputTokens: 120,
      });
      assert.equal(result.toolCalls[0]?.toolName, 'get_weather');
    });

    test('generateObject and streamObject: an object of the schema', async () => {
      const request = {
        ...settings,
        model: open(),
        schema: person,
        prompt: 'Name a person and an age.',
        maxOutputTokens: 200,
      };
      const { object } = await generateObject(request);
      assert.equal(typeof object.name, 'string');
      assert.ok(Number.isInteger(object.age) && object.age <= 120);
      const { partialObjectStream, object: streamed } = streamObject(request);
      // nothing moves unless somebody reads
      for await (const _ of partialObjectStream);
      assert.deepEqual(Object.keys(await streamed), ['name', 'age']);
    });

    test('an unknown model is the error of the gateway, with its status', async () => {
      const model = open() as { modelId: string };
      Object.defineProperty(model, 'modelId', { value: 'nope' });
      await assert.rejects(
        generateText({ ...settings, model: model as LanguageModel, prompt: 'x' }),
        (error: { statusCode?: number }) => error.statusCode === 404,
      );
    });

    test('an abort ends the stream', async () => {
      const stop = new AbortController();
      const result = streamText({
        ...settings,
        model: open(),
        prompt: 'Tell me a long story.',
        maxOutputTokens: 1500,
        abortSignal: stop.signal,
      });
      const kinds: string[] = [];
      for await (const part of result.fullStream) {
        kinds.push(part.type);
        if (part.type === 'text-delta') stop.abort();
      }
      assert.equal(kinds.at(-1), 'abort');
    });
  });
}

test('embed and embedMany: the same vector for the same text, of length 1', async () => {
  for (const model of [
    compatible().embeddingModel('mean'),
    createOpenAI({ baseURL: stack.baseUrl, apiKey: 'none' }).embedding('mean'),
  ]) {
    const { embedding } = await embed({ model, value: 'the cat sat', maxRetries: 0 });
    const { embeddings } = await embedMany({ model, values: ['the cat sat', 'a dog ran'], maxRetries: 0 });
    // a batch adds in another order than one text alone
    assert.ok(embedding.every((value, at) => Math.abs(value - (embeddings[0]?.[at] ?? 0)) < 1e-5));
    assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-3);
    assert.equal(embeddings.length, 2);
  }
});
