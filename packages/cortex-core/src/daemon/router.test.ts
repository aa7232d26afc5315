import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from '../wire/errors.ts';
import { matchRoute, type Route } from './router.ts';

const routes: readonly Route<string>[] = [
  { method: 'GET', path: '/', handler: () => {} },
  { method: 'GET', path: '/models', handler: () => {} },
  { method: 'GET', path: '/models/:id/endpoint', handler: () => {} },
  { method: 'GET', path: '/v1/models/:id*', handler: () => {} },
  { method: 'POST', path: '/v1/chat/completions', handler: () => {} },
];

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof AppError ? error.code : 'other';
  }
  return 'none';
}

test('an encoded slash stays inside its part', () => {
  assert.deepEqual(matchRoute(routes, 'GET', '/models/org%2Frepo/endpoint').params, { id: 'org/repo' });
});

test('a rest part takes raw and encoded slashes', () => {
  assert.deepEqual(matchRoute(routes, 'GET', '/v1/models/org/repo:q4').params, { id: 'org/repo:q4' });
  assert.deepEqual(matchRoute(routes, 'GET', '/v1/models/org%2Frepo').params, { id: 'org/repo' });
});

test('HEAD is answered by a GET route, slashes at the end are forgiven', () => {
  assert.ok(matchRoute(routes, 'HEAD', '/'));
  assert.ok(matchRoute(routes, 'POST', '/v1/chat/completions/'));
});

test('unknown paths, wrong methods and broken encoding are told apart', () => {
  assert.equal(
    codeOf(() => matchRoute(routes, 'GET', '/nope')),
    'not_found',
  );
  assert.equal(
    codeOf(() => matchRoute(routes, 'GET', '/v1/chat/completions')),
    'method_not_allowed',
  );
  assert.equal(
    codeOf(() => matchRoute(routes, 'GET', '/models/%zz/endpoint')),
    'invalid_request',
  );
});
