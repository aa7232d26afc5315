import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { parseObject } from './request-body.ts';

test('a body that nests without end is refused before it is built, with its field', () => {
  const body = Buffer.from(`{"model":"m","messages":${'['.repeat(1_000_000)}`);
  assert.throws(
    () => parseObject(body),
    (error: AppError) => error.status === 400 && error.param === 'messages',
  );
  assert.deepEqual(parseObject(Buffer.from('{"a":[[[1]]]}')), { a: [[[1]]] });
});
