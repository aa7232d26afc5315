import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  AppError,
  deserializeError,
  errorCatalogue,
  serializeError,
  toAnthropicEnvelope,
  toAppError,
  toOpenAiEnvelope,
} from './errors.ts';

test('docs/errors.md lists the catalogue, row by row', () => {
  const page = readFileSync(new URL('../../../../docs/errors.md', import.meta.url), 'utf8');
  const rows = page
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')));
  const listed = rows.map(([, code, status, retry, openai, anthropic]) => ({
    code,
    status: Number(status),
    retryable: retry === 'yes',
    openaiType: openai,
    anthropicType: anthropic,
  }));
  const actual = Object.entries(errorCatalogue).map(([code, row]) => ({ code, ...row }));
  assert.deepEqual(listed, actual);
});

test('an error keeps code, param, hint and extras over a process boundary', () => {
  const error = new AppError('insufficient_vram', 'needs 9 MiB', {
    param: 'model',
    retryAfterSecs: 5,
    extras: { free_mb: 1 },
    cause: new Error('inner'),
  });
  const back = deserializeError(structuredClone(serializeError(error)));
  assert.equal(back.status, 503);
  assert.equal(back.retryAfterSecs, 5);
  assert.deepEqual(toOpenAiEnvelope(back), {
    error: {
      message: 'needs 9 MiB',
      type: 'server_error',
      code: 'insufficient_vram',
      param: 'model',
      free_mb: 1,
    },
  });
  assert.match(String(back.detail), /inner/);
});

test('cause and detail never reach an envelope', () => {
  const error = toAppError(new Error('secret path'));
  assert.doesNotMatch(JSON.stringify(toOpenAiEnvelope(error)), /secret/);
  assert.doesNotMatch(JSON.stringify(toAnthropicEnvelope(error, 'req_1')), /secret/);
});

test('the Anthropic envelope carries type and request id', () => {
  assert.deepEqual(toAnthropicEnvelope(new AppError('model_not_found', 'model: x'), 'req_1'), {
    type: 'error',
    error: { type: 'not_found_error', message: 'model: x', code: 'model_not_found' },
    request_id: 'req_1',
  });
});

test("each status has the type that Anthropic's clients know it by", () => {
  const known: Readonly<Record<number, readonly string[]>> = {
    400: ['invalid_request_error'],
    401: ['authentication_error'],
    403: ['permission_error'],
    404: ['not_found_error'],
    408: ['timeout_error'],
    413: ['request_too_large'],
    429: ['rate_limit_error'],
    500: ['api_error'],
    502: ['api_error'],
    // what another try cannot help is no overload
    503: ['overloaded_error', 'api_error'],
    504: ['timeout_error'],
  };
  for (const [code, { status, anthropicType, retryable }] of Object.entries(errorCatalogue)) {
    const types = known[status];
    if (types !== undefined) assert.ok(types.includes(anthropicType), `${code}: ${status} ${anthropicType}`);
    if (status === 503) assert.equal(anthropicType === 'overloaded_error', retryable, code);
  }
});
