import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openAiChat, openAiCompletions, openAiEmbeddings } from './openai.ts';

const bodyOf = (fields: object) => Buffer.from(JSON.stringify({ model: 'm', ...fields }));

describe('openAiCompletions', () => {
  it('holds the longest prompt against the context, and all of them against the quota', () => {
    for (const [prompt, longest, sum, choices] of [
      ['x'.repeat(40), 10, 10, 2],
      [['x'.repeat(40), 'x'.repeat(400), ''], 100, 111, 6],
      [Array(70).fill(123456), 70, 70, 2],
      [[Array(70).fill(123456), [1]], 70, 71, 4],
      [[], 1, 0, 2],
      [null, 1, 1, 2],
    ] as const) {
      const parsed = openAiCompletions.parse(bodyOf({ prompt, n: 2 }));
      assert.deepEqual(
        [parsed.promptTokensEstimate, parsed.inputTokensEstimate, parsed.choices],
        [longest, sum, choices],
        JSON.stringify(prompt).slice(0, 60),
      );
    }
  });

  it('reckons with the 16 tokens that a neuron makes unasked, and no more choices than it takes', () => {
    const parsed = openAiCompletions.parse(bodyOf({ prompt: Array(100).fill('a'), n: 100 }));
    assert.deepEqual([parsed.maxTokens, parsed.choices], [16, 128]);
    assert.equal(openAiCompletions.parse(bodyOf({ prompt: 'a', max_tokens: 5 })).maxTokens, 5);
  });
});

describe('openAiEmbeddings', () => {
  it('generates nothing and refuses no list by its length', () => {
    const parsed = openAiEmbeddings.parse(bodyOf({ input: Array(1000).fill('word word') }));
    assert.deepEqual([parsed.promptTokensEstimate, parsed.choices], [1, 0]);
    assert.ok(parsed.inputTokensEstimate > 2000);
  });
});

describe('a stream of several choices', () => {
  const chunk = (index: number, finish: string | null) =>
    Buffer.from(
      `data: {"choices":[{"index":${index},"delta":{},"finish_reason":${JSON.stringify(finish)}}]}\n\n`,
    );
  const done = Buffer.from('data: [DONE]\n\n');
  const ended = (n: number, chunks: readonly Uint8Array[]): boolean => {
    const stream = openAiChat.parse(bodyOf({ messages: [], n, stream: true })).streamOut('r');
    for (const each of chunks) stream.push(each);
    try {
      stream.end();
      return true;
    } catch {
      return false;
    }
  };

  it('is broken off where only some have finished', () => {
    assert.equal(ended(1, [chunk(0, 'stop')]), true);
    assert.equal(ended(2, [chunk(0, 'stop'), chunk(1, null)]), false);
    assert.equal(ended(2, [chunk(0, 'stop'), chunk(1, 'length')]), true);
    assert.equal(ended(2, [chunk(0, 'stop'), done]), true);
  });
});
