import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { AppError } from '../wire/errors.ts';
import { type Exchange, HttpServer } from './http-server.ts';
import { silentLog } from './log.ts';

let server: HttpServer;
let base = '';
let port = 0;
const held: { resolve: (aborted: boolean) => void }[] = [];
const ended: number[] = [];

before(async () => {
  server = new HttpServer({
    log: silentLog,
    bodyBytesMax: 1000,
    envelopeOf: (path) =>
      path.startsWith('/anthropic') ? 'anthropic' : path.startsWith('/flat') ? 'flat' : 'openai',
    onEnd: (_exchange, status) => ended.push(status),
    routes: [
      { method: 'POST', path: '/echo', handler: async (x: Exchange) => x.sendJson(200, await x.json()) },
      {
        method: 'GET',
        path: '/:style/fail',
        handler: () => {
          throw new AppError('overloaded', 'busy', { retryAfterSecs: 1.2 });
        },
      },
      {
        method: 'GET',
        path: '/bug',
        handler: () => {
          throw new TypeError('secret');
        },
      },
      {
        method: 'GET',
        path: '/hold',
        handler: (x: Exchange) => {
          x.response.writeHead(200);
          x.response.write('first');
          x.signal.addEventListener('abort', () => held.pop()?.resolve(true));
        },
      },
    ],
  });
  port = await server.listen('127.0.0.1', 0);
  base = `http://127.0.0.1:${port}`;
});
after(() => server.close());

test('JSON is read without a content-type', async () => {
  const response = await fetch(`${base}/echo`, { method: 'POST', body: Buffer.from('{"a":1}') });
  assert.deepEqual(await response.json(), { a: 1 });
  assert.match(response.headers.get('x-request-id') ?? '', /^req_/);
});

test('the request id of a client comes back, a hostile one does not', async () => {
  const kept = await fetch(`${base}/bug`, { headers: { 'x-request-id': 'abc-1' } });
  assert.equal(kept.headers.get('x-request-id'), 'abc-1');
  const replaced = await fetch(`${base}/bug`, { headers: { 'x-request-id': 'a b<script>' } });
  assert.match(replaced.headers.get('x-request-id') ?? '', /^req_/);
});

test('compressed bodies are read, and their expansion is limited', async () => {
  for (const [encoding, compress] of [
    ['gzip', gzipSync],
    ['br', brotliCompressSync],
    ['deflate', deflateSync],
  ] as const) {
    const post = (text: string) =>
      fetch(`${base}/echo`, {
        method: 'POST',
        body: compress(text),
        headers: { 'content-encoding': encoding },
      });
    assert.deepEqual(await (await post('{"b":2}')).json(), { b: 2 }, encoding);
    assert.equal((await post(JSON.stringify('x'.repeat(5000)))).status, 413, encoding);
  }
  const lie = await fetch(`${base}/echo`, {
    method: 'POST',
    body: 'not gzip',
    headers: { 'content-encoding': 'gzip' },
  });
  assert.equal(lie.status, 400);
});

test('too large, malformed and empty bodies get 413 and 400', async () => {
  const post = async (body: string) => (await fetch(`${base}/echo`, { method: 'POST', body })).status;
  assert.equal(await post(JSON.stringify('x'.repeat(2000))), 413);
  assert.equal(await post('{"a":'), 400);
  assert.equal(await post(''), 400);
});

test('an error takes the envelope of its path and keeps Retry-After', async () => {
  const anthropic = await fetch(`${base}/anthropic/fail`);
  assert.equal(anthropic.status, 503);
  assert.equal(anthropic.headers.get('retry-after'), '2');
  assert.equal(((await anthropic.json()) as { error: { type: string } }).error.type, 'overloaded_error');
  assert.equal(((await (await fetch(`${base}/flat/fail`)).json()) as { error: string }).error, 'busy');
});

test('a bug becomes a 500 without its message', async () => {
  const response = await fetch(`${base}/bug`);
  assert.equal(response.status, 500);
  assert.doesNotMatch(await response.text(), /secret/);
});

test('a client that leaves aborts the exchange', async () => {
  const aborted = new Promise<boolean>((resolve) => held.push({ resolve }));
  const request = httpRequest(`${base}/hold`);
  request.on('error', () => {});
  request.end();
  const [response] = await once(request, 'response');
  await once(response, 'data');
  request.destroy();
  assert.equal(await aborted, true);
});

test('an upgrade is answered 426, garbage 400', async () => {
  const say = async (text: string): Promise<string> => {
    const socket = connect(port, '127.0.0.1');
    socket.write(text);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString();
  };
  const upgrade =
    'GET /v1/responses HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n';
  assert.match(await say(upgrade), /^HTTP\/1.1 426 /);
  assert.match(await say('\0\0garbage\r\n\r\n'), /^HTTP\/1.1 400 /);
});

test('a port in use is explained', async () => {
  const second = new HttpServer({ log: silentLog, bodyBytesMax: 1, envelopeOf: () => 'openai', routes: [] });
  await assert.rejects(second.listen('127.0.0.1', port), /in use; stop the program/);
});
