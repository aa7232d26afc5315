import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseListen } from './fields.ts';

for (const [text, address] of [
  ['0.0.0.0:31313', { host: '0.0.0.0', port: 31313 }],
  ['localhost:0', { host: 'localhost', port: 0 }],
  ['[::1]:80', { host: '::1', port: 80 }],
  ['::1:80', null],
  [':80', null],
  ['host', null],
  ['host:', null],
  ['host:65536', null],
  ['http://host:80', null],
] as const) {
  test(`parseListen() of ${text}`, () => assert.deepEqual(parseListen(text), address));
}
