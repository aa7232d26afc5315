import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import type { InnerTurn } from '../inner/inner-request.ts';
import { TurnFitter } from './truncation.ts';

describe('the next try is made with the ratio that the refusal tells', () => {
  const turns = Array.from(
    { length: 40 },
    (): InnerTurn => ({ role: 'user', parts: [{ type: 'text', text: 'x'.repeat(392) }] }),
  );
  const ask = { turns, tools: [], context: 2400, maxTokens: 400 };

  for (const words of ['resulted in 12000 tokens', 'resulted in at least 12000 tokens']) {
    test(words, () => {
      const fitter = new TurnFitter();
      const first = fitter.fit(ask).length;
      assert.equal(first, 15); // a hundred tokens each, and a third to spare of two thousand
      const message = `This model's maximum context length is 2400 tokens. However, your messages ${words}.`;
      assert.equal(fitter.learn(new AppError('context_length_exceeded', message)), true);
      // eight tokens for each that was estimated: two turns of a hundred have room
      assert.equal(fitter.fit(ask).length, 2);
    });
  }
});
