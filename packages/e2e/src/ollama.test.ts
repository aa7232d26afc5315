/** The official ollama client against real weights. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Ollama } from 'ollama';
import { type Stack, startStack } from './stack.ts';

const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const model = 'cortex-tiny:latest';
let stack: Stack;
let client: Ollama;

before(async () => {
  stack = await startStack({ transport: 'thread', context: 512 });
  client = new Ollama({ host: stack.gateway.url });
});
after(() => stack?.close());

test('lists, shows and tells what runs', async () => {
  const { models } = await client.list();
  assert.deepEqual(
    models.map(({ name }) => name),
    [model],
  );
  const shown = await client.show({ model });
  assert.ok(shown.capabilities.includes('completion'));
  assert.equal((shown.model_info as unknown as Record<string, unknown>)['gguf.context_length'], 512);
  assert.equal((await client.ps()).models[0]?.name, model);
});

test('a chat is the same streamed and whole, with the counts of its tokens', async () => {
  const options = { temperature: 0, num_predict: 24 };
  const whole = await client.chat({ model, messages, options });
  assert.match(whole.message.content, /Paris/);
  assert.deepEqual([whole.done, whole.done_reason], [true, 'stop']);
  assert.ok(whole.prompt_eval_count > 0 && whole.eval_count > 0 && whole.total_duration > 0);
  let text = '';
  let last: { readonly done: boolean; readonly prompt_eval_count: number } | null = null;
  for await (const part of await client.chat({ model, messages, options, stream: true })) {
    assert.notEqual(last?.done, true);
    text += part.message.content;
    last = part;
  }
  assert.equal(text, whole.message.content);
  assert.deepEqual([last?.done, last?.prompt_eval_count], [true, whole.prompt_eval_count]);
});

test('num_predict ends an answer for its length; num_ctx loads nothing anew', async () => {
  const answer = await client.chat({ model, messages, options: { num_predict: 1, num_ctx: 4096 } });
  assert.deepEqual([answer.done_reason, answer.eval_count], ['length', 1]);
  assert.equal(stack.gateway.fleet.view().nodes[0]?.models.get('cortex-tiny')?.limit?.context, 512);
});

test('a schema binds the answer', async () => {
  const format = { type: 'object', properties: { city: { enum: ['Paris', 'Rome'] } }, required: ['city'] };
  const { message } = await client.chat({ model, messages, format, options: { temperature: 0 } });
  assert.match(JSON.parse(message.content).city, /^(Paris|Rome)$/);
});

test('generate: with the template, and raw', async () => {
  const prompt = 'What is the capital of France?';
  const { response } = await client.generate({ model, prompt, options: { temperature: 0 } });
  assert.match(response ?? '', /Paris/);
  const question = '<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n';
  let raw = '';
  const options = { num_predict: 24, temperature: 0 };
  for await (const part of await client.generate({
    model,
    prompt: question,
    raw: true,
    stream: true,
    options,
  })) {
    raw += part.response;
  }
  assert.match(raw, /Paris/);
});

test('an abort ends the stream, an unknown model is an error with its text', async () => {
  // longer than what is on its way when the abort comes
  const story = [{ role: 'user', content: 'Tell me a long story.' }];
  const options = { num_predict: 1500, temperature: 0 };
  const stream = await client.chat({ model, messages: story, stream: true, options });
  await assert.rejects(
    (async () => {
      for await (const _ of stream) stream.abort();
    })(),
    { name: 'AbortError' },
  );
  await assert.rejects(client.chat({ model: 'nobody', messages }), /nobody.*not found/);
  await assert.rejects(client.pull({ model: 'nobody' }), /not done here/);
});
