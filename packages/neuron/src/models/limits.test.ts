import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { limitSchema } from 'cortex-core/wire/neuron';
import { deriveLimit } from './limits.ts';

describe('deriveLimit()', () => {
  const sources = { context: 32_768, outputTokensMax: 8192, readRate: 0, prefillSecsMax: 600 };

  it('advertises the loaded context before anything was measured', () => {
    assert.deepEqual(deriveLimit(sources), { context: 32_768, input: 32_767, output: 8192 });
  });

  it('advertises no input that takes longer to read than the limit, and says the same context', () => {
    const slow = deriveLimit({ ...sources, readRate: 20 });
    assert.deepEqual(slow, { context: 32_768, input: 11_776, output: 8192 });
    assert.equal(deriveLimit({ ...sources, readRate: 1000 }).input, 32_767);
  });

  it('is a valid limit at every extreme', () => {
    for (const context of [1, 2, 16, 256, 1_000_000]) {
      for (const readRate of [0, 1e-9, 1, 1e9]) {
        const limit = deriveLimit({ ...sources, context, readRate });
        limitSchema.parse(limit);
        assert.ok((limit.input ?? 0) <= context && limit.output <= context);
      }
    }
  });
});
