import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { anthropicMessages } from './anthropic.ts';
import { chatCount, messagesCount } from './counts.ts';
import { ollamaChat, ollamaEmbed, ollamaEmbeddings, ollamaGenerate } from './ollama/ollama.ts';
import { openAiChat, openAiCompletions, openAiEmbeddings, rerank } from './openai.ts';
import { parseObject } from './request-body.ts';

test('a body that nests without end is refused before it is built, with its field', () => {
  const body = Buffer.from(`{"model":"m","messages":${'['.repeat(1_000_000)}`);
  assert.throws(
    () => parseObject(body),
    (error: AppError) => error.status === 400 && error.param === 'messages',
  );
  assert.deepEqual(parseObject(Buffer.from('{"a":[[[1]]]}')), { a: [[[1]]] });
});

test('a body of more values than one may hold is refused at every door, with its field', () => {
  const many = JSON.stringify(Array(500_001).fill(0));
  const text = '"model":"m","max_tokens":9,"messages":[],"prompt":"p","input":"i","query":"q","documents":[]';
  const body = Buffer.from(`{${text},"many":${many}}`);
  const ollama = [ollamaChat, ollamaGenerate, ollamaEmbed, ollamaEmbeddings].map((door) =>
    door((name) => name),
  );
  const openAi = [openAiChat, openAiCompletions, openAiEmbeddings, rerank];
  for (const [at, { parse }] of [
    ...openAi,
    ...ollama,
    anthropicMessages,
    chatCount,
    messagesCount,
  ].entries()) {
    assert.throws(
      () => parse(body, {}),
      (error: AppError) => error.code === 'invalid_request' && error.param === 'many',
      `door ${at}`,
    );
  }
});
