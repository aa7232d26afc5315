import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toFilePooling } from './file-pooling.ts';
import type { GgufScalar } from './gguf-header.ts';

function poolingOf(architecture: string, keys: Readonly<Record<string, GgufScalar>> = {}) {
  const own = Object.entries(keys).map(([key, value]) => [`${architecture}.${key}`, value] as const);
  const { pooling, readsWhole } = toFilePooling({
    metadata: new Map<string, GgufScalar>([['general.architecture', architecture], ...own]),
  });
  return [pooling, readsWhole];
}

test('an encoder takes the mean unless its file says otherwise, and reads inputs whole', () => {
  assert.deepEqual(poolingOf('bert', { 'attention.causal': false }), ['mean', true]);
  assert.deepEqual(poolingOf('bert', { 'attention.causal': false, pooling_type: 2 }), ['cls', true]);
  assert.deepEqual(poolingOf('gemma-embedding'), ['mean', true]);
  assert.deepEqual(poolingOf('llama'), ['none', false]);
});

test('a causal model reads inputs whole only if its pooling needs all tokens', () => {
  assert.deepEqual(poolingOf('qwen3', { pooling_type: 3 }), ['last', false]);
  assert.deepEqual(poolingOf('qwen3', { pooling_type: 4 }), ['rank', false]);
  assert.deepEqual(poolingOf('llama', { pooling_type: 4 }), ['rank', true]);
  assert.deepEqual(poolingOf('llama', { pooling_type: 1 }), ['mean', true]);
});

test('a diffusion model is not causal and is no encoder: it is listed for text', () => {
  for (const architecture of ['dream', 'llada', 'llada-moe', 'rnd1']) {
    assert.deepEqual(poolingOf(architecture, { 'attention.causal': false }), ['none', false]);
  }
});
