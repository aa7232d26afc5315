/** Embeddings and reranking through gateway and neuron, on tiny models with real graphs. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { writeTinyEncoder } from 'neuron/engine/tiny-encoder.test.kit';
import OpenAI from 'openai';
import { postJson, type Stack, startStack, tinyFile } from './stack.ts';

const texts = ['the cat sat on the mat', 'a dog ran over the moon', 'paris is the capital of france'];
let folder: string;
let stack: Stack;
let openai: OpenAI;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cortex-encoders-'));
  for (const pooling of ['mean', 'cls', 'rank'] as const)
    writeTinyEncoder(join(folder, `${pooling}.gguf`), { pooling });
  stack = await startStack({
    transport: 'thread',
    dirs: [folder, join(tinyFile, '..')],
    preload: ['mean', 'cls', 'rank', 'cortex-tiny'],
    context: 64,
  });
  openai = new OpenAI({ baseURL: stack.baseUrl, apiKey: 'none', maxRetries: 0 });
});
after(async () => {
  await stack?.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Reply {
  readonly status: number;
  readonly body: Record<string, never> & { error: { code: string; param: string; message: string } };
}

async function post(path: string, body: unknown): Promise<Reply> {
  const response = await postJson(`${stack.baseUrl}${path}`, body);
  return { status: response.status, body: (await response.json()) as Reply['body'] };
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, at) => sum + value * (b[at] ?? 0), 0);
}

async function embed(input: string | string[], more: object = {}): Promise<number[][]> {
  const answer = await openai.embeddings.create({ model: 'mean', input, encoding_format: 'float', ...more });
  assert.deepEqual(
    answer.data.map((each) => each.index),
    answer.data.map((_, at) => at),
  );
  return answer.data.map((each) => each.embedding);
}

describe('embeddings', () => {
  test('a vector of length 1 per input, in order, the same alone and in a batch', async () => {
    const all = await embed(texts);
    assert.equal(all.length, 3);
    for (const [at, vector] of all.entries()) {
      assert.ok(Math.abs(dot(vector, vector) - 1) < 1e-5);
      const [alone] = await embed(texts[at]!);
      assert.ok(dot(vector, alone!) > 0.9999);
    }
    assert.ok(dot(all[0]!, all[1]!) < 0.9999, 'different texts differ');
  });

  test('more inputs than one batch of the device', async () => {
    const many = await embed(Array.from({ length: 150 }, (_, at) => texts[at % 3]!));
    assert.equal(many.length, 150);
    assert.ok(dot(many[149]!, many[2]!) > 0.9999);
  });

  test('base64, which the client asks for by itself, is the same numbers', async () => {
    const answer = await openai.embeddings.create({ model: 'mean', input: texts[0]! });
    const [plain] = await embed(texts[0]!);
    const decoded = answer.data[0]!.embedding;
    assert.equal(decoded.length, plain!.length);
    for (const [at, value] of decoded.entries()) assert.ok(Math.abs(value - plain![at]!) < 1e-6);
    assert.ok(answer.usage.prompt_tokens > 0);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens);
  });

  test('dimensions cut and scale to length 1 again', async () => {
    const [whole] = await embed(texts[0]!);
    const [cut] = await embed(texts[0]!, { dimensions: 8 });
    assert.equal(cut!.length, 8);
    assert.ok(Math.abs(dot(cut!, cut!) - 1) < 1e-5);
    assert.ok(Math.abs(cut![0]! / cut![1]! - whole![0]! / whole![1]!) < 1e-3);
  });

  test('tokens instead of text', async () => {
    const { body: tokenized } = await post('/embeddings', {
      model: 'mean',
      input: [
        [2, 5, 7, 3],
        [2, 6, 3],
      ],
    });
    assert.equal((tokenized as unknown as { data: unknown[] }).data.length, 2);
  });

  test('what cannot be is refused by the field', async () => {
    for (const [body, code, param] of [
      [{ input: texts, dimensions: 33 }, 'invalid_request', 'dimensions'],
      [{ input: texts, encoding_format: 'hex' }, 'invalid_request', 'encoding_format'],
      [{ input: '' }, 'invalid_request', 'input'],
      [{ input: ['a', ''] }, 'invalid_request', 'input.1'],
      [{ input: [[1, 99_999]] }, 'invalid_request', 'input.0'],
      [{ input: ['a', 'cat '.repeat(100)] }, 'context_length_exceeded', 'input.1'],
      [{ input: texts, model: 'cortex-tiny' }, 'wrong_modality', 'model'],
      [{ input: texts, model: 'rank' }, 'wrong_modality', 'model'],
    ] as const) {
      const { status, body: reply } = await post('/embeddings', { model: 'mean', ...body });
      assert.equal(status, 400, JSON.stringify(reply));
      assert.equal(reply.error.code, code);
      assert.equal(reply.error.param, param);
    }
  });

  test('a model that makes vectors generates no text', async () => {
    const chat = await post('/chat/completions', {
      model: 'mean',
      messages: [{ role: 'user', content: 'x' }],
    });
    assert.equal(chat.body.error.code, 'wrong_modality');
    assert.match(chat.body.error.message, /\/v1\/embeddings/);
  });
});

describe('rerank', () => {
  interface Ranked {
    readonly results: { index: number; relevance_score: number; document?: { text: string } }[];
    readonly usage: { total_tokens: number };
  }
  const rank = async (more: object): Promise<Ranked> => {
    const { status, body } = await post('/rerank', {
      model: 'rank',
      query: 'who sat on the mat',
      documents: texts,
      ...more,
    });
    assert.equal(status, 200, JSON.stringify(body));
    return body as unknown as Ranked;
  };

  test('every document with a score between 0 and 1, best first', async () => {
    const { results, usage } = await rank({});
    assert.deepEqual(results.map((each) => each.index).sort(), [0, 1, 2]);
    for (const [at, { relevance_score: score, document }] of results.entries()) {
      assert.ok(score >= 0 && score <= 1);
      assert.ok(score <= (results[at - 1]?.relevance_score ?? 1));
      assert.equal(document, undefined);
    }
    assert.ok(usage.total_tokens > 10);
  });

  test('top_n, documents as objects, and back on request', async () => {
    const all = await rank({});
    const objects = texts.map((text) => ({ text }));
    const { results } = await rank({ documents: objects, top_n: 2, return_documents: true });
    assert.deepEqual(
      results.map((each) => [each.index, each.document?.text]),
      all.results.slice(0, 2).map((each) => [each.index, texts[each.index]]),
    );
  });

  test('a model that is no reranker, a document that is too long', async () => {
    const wrong = await post('/rerank', { model: 'mean', query: 'a', documents: ['b'] });
    assert.equal(wrong.body.error.code, 'wrong_modality');
    const long = await post('/rerank', { model: 'rank', query: 'a', documents: ['b', 'cat '.repeat(100)] });
    assert.equal(long.body.error.code, 'context_length_exceeded');
    assert.equal(long.body.error.param, 'documents.1');
  });
});

test('the list of models says what each can do', async () => {
  const listed = new Map<string, unknown>();
  for await (const model of openai.models.list()) {
    listed.set(model.id, (model as unknown as { capabilities: unknown }).capabilities);
  }
  assert.deepEqual(listed.get('mean'), ['embeddings']);
  assert.deepEqual(listed.get('rank'), ['rerank']);
  assert.deepEqual(listed.get('cortex-tiny'), ['text', 'tools', 'reasoning']);
});
