/** The official clients' model lists. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { type Stack, startStack } from './stack.ts';

let stack: Stack;
let openai: OpenAI;
let anthropic: Anthropic;
before(async () => {
  stack = await startStack({ transport: 'thread', context: 512 });
  openai = new OpenAI({ baseURL: stack.baseUrl, apiKey: 'none', maxRetries: 0 });
  anthropic = new Anthropic({ baseURL: stack.gateway.url, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

test('anthropic: every page, one model with its limits, and one that is not there', async () => {
  const listed: Anthropic.ModelInfo[] = [];
  for await (const model of anthropic.models.list({ limit: 1 })) listed.push(model);
  assert.deepEqual(
    listed.map(({ id, type }) => [id, type]),
    [['cortex-tiny', 'model']],
  );
  const one = await anthropic.models.retrieve('cortex-tiny');
  assert.deepEqual([one.max_input_tokens, one.capabilities?.image_input.supported], [511, false]);
  await assert.rejects(anthropic.models.retrieve('org/nobody'), (error: unknown) => {
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.ok(error.requestID);
    return true;
  });
});

test('openai: one model, and one that is not there', async () => {
  const one = await openai.models.retrieve('cortex-tiny');
  assert.deepEqual([one.object, one.owned_by, typeof one.created], ['model', 'cortex', 'number']);
  await assert.rejects(openai.models.retrieve('org/nobody'), OpenAI.NotFoundError);
});
