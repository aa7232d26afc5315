import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { type Stack, startStack, tokensWhenIdle } from './stack.ts';

const question = 'What is the capital of France?';
let stack: Stack;
let openai: OpenAI;
let anthropic: Anthropic;

before(async () => {
  stack = await startStack({ transport: 'thread' });
  openai = new OpenAI({ baseURL: stack.baseUrl, apiKey: 'none', maxRetries: 0 });
  anthropic = new Anthropic({ baseURL: stack.gateway.url, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

test('openai: a completion', async () => {
  const answer = await openai.chat.completions.create({
    model: 'cortex-tiny',
    temperature: 0,
    messages: [{ role: 'user', content: question }],
  });
  assert.match(answer.choices[0]!.message.content ?? '', /Paris/);
  assert.ok(answer.usage!.total_tokens > 0);
});

test('openai: the streaming helper', async () => {
  const stream = openai.chat.completions.stream({
    model: 'cortex-tiny',
    temperature: 0,
    messages: [{ role: 'user', content: question }],
    stream_options: { include_usage: true },
  });
  let text = '';
  stream.on('content', (delta) => {
    text += delta;
  });
  const final = await stream.finalChatCompletion();
  assert.match(text, /Paris/);
  assert.equal(final.choices[0]!.message.content, text);
  assert.ok(final.usage!.completion_tokens > 0);
});

/** An answer that ends with the context only, if nobody ends it before. */
const endless = {
  type: 'object',
  properties: { a: { type: 'array', items: { type: 'string' }, minItems: 5000 } },
  required: ['a'],
};

for (const kind of ['chat', 'responses'] as const) {
  test(`openai: an abort ends a stream of ${kind}, and the neuron stops`, async () => {
    const before = await tokensWhenIdle(stack);
    const model = 'cortex-tiny';
    const stream =
      kind === 'chat'
        ? await openai.chat.completions.create({
            ...{ model, messages: [{ role: 'user', content: question }], stream: true },
            response_format: { type: 'json_schema', json_schema: { name: 'n', schema: endless } },
          })
        : await openai.responses.create({
            ...{ model, input: question, stream: true },
            text: { format: { type: 'json_schema', name: 'n', schema: endless } },
          });
    let seen = 0;
    for await (const _ of stream) if (++seen === 8) stream.controller.abort();
    assert.ok(seen >= 8);
    // whole it would have filled the context of 2,048
    assert.ok((await tokensWhenIdle(stack)) - before < 1000);
  });
}

test('openai: models, and one of them', async () => {
  const listed: string[] = [];
  for await (const model of openai.models.list()) listed.push(model.id);
  assert.deepEqual(listed, ['cortex-tiny']);
  assert.equal((await openai.models.retrieve('cortex-tiny')).id, 'cortex-tiny');
});

test('openai: an unknown model is a NotFoundError with its code', async () => {
  const request = openai.chat.completions.create({
    model: 'nope',
    messages: [{ role: 'user', content: 'x' }],
  });
  await assert.rejects(request, (error: unknown) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    assert.ok(error.requestID);
    return true;
  });
});

test('anthropic: a message', async () => {
  const message = await anthropic.messages.create({
    model: 'cortex-tiny',
    max_tokens: 100,
    messages: [{ role: 'user', content: question }],
  });
  assert.equal(message.role, 'assistant');
  assert.equal(message.content[0]?.type, 'text');
  assert.equal(message.stop_reason, 'end_turn');
  assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
});

test('anthropic: the streaming helper, with a system prompt', async () => {
  const stream = anthropic.messages.stream({
    model: 'cortex-tiny',
    max_tokens: 100,
    system: 'You are a helpful assistant.',
    messages: [{ role: 'user', content: question }],
  });
  let text = '';
  stream.on('text', (delta) => {
    text += delta;
  });
  const final = await stream.finalMessage();
  assert.ok(text.length > 0);
  const block = final.content[0]!;
  assert.equal(block.type === 'text' ? block.text : '', text);
  assert.ok(final.usage.output_tokens > 0);
});

test('anthropic: an unknown model is a NotFoundError in its own envelope', async () => {
  const request = anthropic.messages.create({
    model: 'nope',
    max_tokens: 1,
    messages: [{ role: 'user', content: 'x' }],
  });
  await assert.rejects(request, (error: unknown) => {
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.equal((error.error as { error: { type: string } }).error.type, 'not_found_error');
    return true;
  });
});
