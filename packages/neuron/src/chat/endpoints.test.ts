/** The small pure pieces behind completions, embeddings, rerank and n. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ModelFacts } from 'cortex-core/wire/inference';
import { capabilitiesOf } from './capabilities.ts';
import { families, readFixture, templateOf } from './conversations.test.kit.ts';
import { toEmbedding, toUnitVector } from './embedding-answer.ts';
import { findInfillTokens, toInfillPrompt } from './infill.ts';
import { toRelevance, toRerankPieces } from './rerank-input.ts';
import { sumUsages } from './usage.ts';

describe('infill', () => {
  const idsOf =
    (...texts: string[]) =>
    async (text: string) => {
      const at = texts.indexOf(text);
      return at === -1 ? null : at + 10;
    };

  it('takes the tokens of each family, prefix first or suffix first', async () => {
    const qwen = await findInfillTokens({}, idsOf('<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>'));
    assert.deepEqual(qwen, { prefix: 10, suffix: 11, middle: 12, order: 'prefix_first' });
    const codestral = await findInfillTokens({}, idsOf('[PREFIX]', '[SUFFIX]'));
    assert.deepEqual(codestral, { prefix: 10, suffix: 11, middle: null, order: 'suffix_first' });
  });

  it('believes the metadata before the spelling, and says when there are none', async () => {
    const keys = { fim_pre: 1, fim_suf: 2, fim_mid: 3 };
    const metadata = Object.fromEntries(
      Object.entries(keys).map(([key, id]) => [`tokenizer.ggml.${key}_token_id`, String(id)]),
    );
    assert.deepEqual(await findInfillTokens(metadata, idsOf()), {
      prefix: 1,
      suffix: 2,
      middle: 3,
      order: 'prefix_first',
    });
    assert.equal(await findInfillTokens({}, idsOf('<|fim_prefix|>', '<|fim_suffix|>')), null);
  });

  it('puts the texts between their tokens', () => {
    const [begin, before, after] = [Int32Array.of(0), Int32Array.of(7), Int32Array.of(8)];
    const first = { prefix: 1, suffix: 2, middle: 3, order: 'prefix_first' } as const;
    assert.deepEqual([...toInfillPrompt(first, begin, before, after)], [0, 1, 7, 2, 8, 3]);
    const second = { prefix: 1, suffix: 2, middle: null, order: 'suffix_first' } as const;
    assert.deepEqual([...toInfillPrompt(second, begin, before, after)], [0, 2, 8, 1, 7]);
  });
});

describe('rerank', () => {
  const facts = { bosToken: '<s>', eosToken: '</s>', sepToken: '</s>', namedTemplates: {}, metadata: {} };
  const shown = (over: object) =>
    toRerankPieces({ ...facts, ...over } as unknown as ModelFacts, 'Q', 'D')
      .map(({ text }) => text)
      .join(' ');

  it('joins query and document as each kind of model read them in training', () => {
    assert.equal(shown({}), '<s> Q </s> </s> D </s>');
    const bert = { 'tokenizer.ggml.model': 'bert' };
    assert.equal(
      shown({ bosToken: '[CLS]', eosToken: '[SEP]', sepToken: '[SEP]', metadata: bert }),
      '[CLS] Q [SEP] D [SEP]',
    );
    assert.equal(shown({ sepToken: null }), '<s> Q </s> D </s>');
    assert.equal(shown({ bosToken: null, eosToken: null }), 'Q </s> D </s>');
  });

  it('fills a template of the model, and a document that looks like one stays text', () => {
    const template = '<|q|>{query}<|d|>{document}<|e|>';
    const pieces = toRerankPieces(
      { ...facts, namedTemplates: { rerank: template } } as unknown as ModelFacts,
      'Q',
      '{query}',
    );
    assert.deepEqual(
      pieces.map(({ kind, text }) => `${kind[0]}:${text}`),
      ['s:<|q|>', 't:Q', 's:<|d|>', 't:{query}', 's:<|e|>'],
    );
  });

  it('makes a probability of a logit, once', () => {
    assert.equal(toRelevance(0, { architecture: 'bert' } as ModelFacts), 0.5);
    assert.ok(toRelevance(-8, { architecture: 'bert' } as ModelFacts) < 0.001);
    assert.equal(toRelevance(0.9, { architecture: 'qwen3' } as ModelFacts), 0.9);
  });
});

describe('embeddings', () => {
  it('have length 1, also when cut, and a zero vector stays one', () => {
    assert.deepEqual([...toUnitVector(Float32Array.of(3, 4, 12), 2)], [...Float32Array.of(0.6, 0.8)]);
    assert.deepEqual([...toUnitVector(Float32Array.of(0, 0), 2)], [0, 0]);
  });

  it('are little-endian floats in base64', () => {
    const { embedding } = toEmbedding(0, Float32Array.of(1, -2), 'base64');
    const bytes = Buffer.from(embedding as string, 'base64');
    assert.deepEqual([bytes.readFloatLE(0), bytes.readFloatLE(4)], [1, -2]);
  });
});

describe('sumUsages()', () => {
  it('counts a prompt once for its choices, and every token made', () => {
    const usage = (prompt: number, completion: number, cached: number) => ({
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: cached },
      completion_tokens_details: { reasoning_tokens: 1 },
    });
    assert.deepEqual(sumUsages([usage(5, 1, 0), usage(5, 2, 5), usage(7, 3, 2), usage(7, 4, 7)], 2), {
      prompt_tokens: 12,
      completion_tokens: 10,
      total_tokens: 22,
      prompt_tokens_details: { cached_tokens: 2 },
      completion_tokens_details: { reasoning_tokens: 4 },
    });
  });
});

describe('capabilitiesOf()', () => {
  it('reads them from the template', () => {
    const of = (family: string) => {
      const template = templateOf(readFixture(`templates/${family}.jinja`)).look();
      return capabilitiesOf({ pooling: 'none', template, infill: false }).capabilities;
    };
    assert.deepEqual(of('qwen2.5'), ['text', 'tools']);
    assert.deepEqual(of('phi-3.5'), ['text']);
    assert.deepEqual(of('gemma'), ['text']);
    for (const family of [
      'qwen3',
      'gpt-oss',
      'deepseek-r1',
      'glm-4.6',
      'seed-oss',
      'ministral-3',
      'kimi-k2',
    ]) {
      assert.ok(of(family).includes('reasoning'), family);
    }
    for (const family of families) assert.equal(of(family)[0], 'text');
  });

  it('are those of vectors and scores for models without text', () => {
    assert.deepEqual(capabilitiesOf({ pooling: 'cls', template: null, infill: false }).capabilities, [
      'embeddings',
    ]);
    assert.deepEqual(capabilitiesOf({ pooling: 'rank', template: null, infill: false }).capabilities, [
      'rerank',
    ]);
  });
});
