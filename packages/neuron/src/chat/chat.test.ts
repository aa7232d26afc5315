import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';

describe('parseBody()', () => {
  it('names the field that is wrong', () => {
    const body = { model: 'm', messages: [{ role: 'user', content: [{ type: 1 }] }] };
    assert.throws(
      () => parseBody(chatRequestSchema, body),
      (error: AppError) =>
        error.code === 'invalid_request_body' && error.param === 'messages.0.content.0.type',
    );
  });
});
