import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GgmlType } from '../libllama/bindings.gen.ts';
import { loadLibrary } from '../libllama/load-library.ts';
import { blockSizes } from './gguf-header.ts';

test('every tensor type of libllama has the size that libllama gives it', () => {
  const { api } = loadLibrary({ nativeLog: false });
  const types = Object.entries(GgmlType).filter(([name]) => !/_COUNT$|_Q8_1$/.test(name));
  assert.ok(types.length > 30);
  for (const [name, type] of types) {
    const actual = [Number(api.ggml_blck_size(type)), Number(api.ggml_type_size(type))];
    assert.deepEqual(blockSizes[type], actual, name);
  }
});
