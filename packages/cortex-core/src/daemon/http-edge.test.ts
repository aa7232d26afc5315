/** The wire as bad and unusual clients use it: raw sockets against the server. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { type Exchange, HttpServer } from './http-server.ts';
import { silentLog } from './log.ts';

let server: HttpServer;
let port = 0;
let continued = 0;

before(async () => {
  server = new HttpServer({
    log: silentLog,
    bodyBytesMax: 1000,
    headersTimeoutMs: 200,
    slowBodyMs: 200,
    envelopeOf: (path) => (path.startsWith('/flat') ? 'flat' : 'openai'),
    prepare: (exchange) => exchange.response.setHeader('x-always', '1'),
    authorize: (exchange) => {
      if (exchange.path === '/denied') throw new Error('denied');
    },
    routes: [
      { method: 'GET', path: '/hello', handler: (x: Exchange) => x.sendJson(200, { hello: x.path }) },
      { method: 'POST', path: '/flat/echo', handler: async (x: Exchange) => x.sendJson(200, await x.json()) },
      { method: 'POST', path: '/echo', handler: async (x: Exchange) => x.sendJson(200, await x.json()) },
      { method: 'POST', path: '/unread', handler: (x: Exchange) => x.sendJson(200, { read: false }) },
    ],
  });
  port = await server.listen('127.0.0.1', 0);
});
after(() => server.close());

/** Sends the text and gives everything that came until the server closed, or `until` has been seen. */
function talk(text: string, until?: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let all = '';
    socket.on('data', (chunk: Buffer) => {
      all += chunk.toString();
      if (until?.test(all)) socket.destroy();
    });
    socket.on('close', () => resolve(all));
    socket.on('error', reject);
  });
}

const post = (headers: string, body = ''): string =>
  `POST /echo HTTP/1.1\r\nHost: x\r\n${headers}\r\n\r\n${body}`;

const smuggled: readonly (readonly [string, string])[] = [
  [
    'a length and chunks',
    post('Content-Length: 4\r\nTransfer-Encoding: chunked', '0\r\n\r\nGET /x HTTP/1.1\r\n\r\n'),
  ],
  ['two lengths', post('Content-Length: 2\r\nContent-Length: 3', '{}x')],
  ['a length that is no number', post('Content-Length: +2', '{}')],
  ['chunks behind another coding', post('Transfer-Encoding: chunked, identity', '0\r\n\r\n')],
  ['a space before the colon', post('Content-Length : 2', '{}')],
  ['a folded header', post('X-A: 1\r\n Content-Length: 2', '{}')],
  ['no host', 'GET /hello HTTP/1.1\r\n\r\n'],
  ['no HTTP', 'hello\r\n\r\n'],
];
for (const [name, text] of smuggled) {
  test(`${name}: 400, and the connection is closed`, async () => {
    const answer = await talk(text);
    assert.match(answer, /^HTTP\/1\.1 400 /);
    assert.equal(answer.match(/HTTP\/1\.1 /g)?.length, 1);
  });
}

test('headers beyond 64 KiB are 431 with a sentence', async () => {
  const answer = await talk(`GET /hello HTTP/1.1\r\nHost: x\r\nX-A: ${'a'.repeat(70_000)}\r\n\r\n`);
  assert.match(answer, /^HTTP\/1\.1 431 /);
  assert.match(answer, /"code":"headers_too_large"/);
});

test('headers that never end are 408', async () => {
  assert.match(await talk('GET /hello HTTP/1.1\r\nHost: x\r\nX-A: '), /^HTTP\/1\.1 408 .*request_timeout/s);
});

test('a body that stops is 408 in the envelope of its path', async () => {
  const answer = await talk('POST /flat/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"a":');
  assert.match(answer, /^HTTP\/1\.1 408 /);
  assert.match(answer, /"error":"the body stopped/);
});

test('a body that nobody reads does not hold its connection', async () => {
  const answer = await talk('POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{');
  assert.match(answer, /^HTTP\/1\.1 200 .*"read":false/s);
});

test('100 is sent when the body is wanted, and not before a refusal', async () => {
  const body = '{"a":1}';
  const expecting = (path: string, length: number): string =>
    `POST ${path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(expecting('/echo', body.length)));
    let all = '';
    socket.on('data', (chunk: Buffer) => {
      all += chunk.toString();
      if (/ 100 Continue\r\n\r\n$/.test(all)) {
        continued++;
        socket.write(body);
      }
      if (all.endsWith(body)) socket.destroy();
    });
    socket.on('close', () => resolve(all));
    socket.on('error', reject);
  });
  assert.equal(continued, 1);
  assert.match(answer, /HTTP\/1\.1 200 OK/);
  for (const [path, length, status] of [
    ['/nowhere', 5, 404],
    ['/echo', 5000, 413],
  ] as const) {
    const refused = await talk(expecting(path, length));
    assert.match(refused, new RegExp(`^HTTP/1\\.1 ${status} `));
  }
});

test('HTTP/1.0 closes behind its answer unless it asks to stay', async () => {
  const once = await talk('GET /hello HTTP/1.0\r\n\r\n');
  assert.match(once, /200 OK/);
  const kept = await talk('GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /hello HTTP/1.0\r\n\r\n');
  assert.equal(kept.match(/200 OK/g)?.length, 2);
});

test('two requests in one packet are answered in order, a refusal leaves the connection', async () => {
  const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`;
  const answer = await talk(get('/nowhere') + get('/hello', 'Connection: close\r\n'));
  assert.match(answer, /^HTTP\/1\.1 404 .*HTTP\/1\.1 200 /s);
});

test('a whole address as the target, slashes at the end and doubled ones find the route', async () => {
  for (const target of ['http://x:1/hello', '/hello/', '//hello', '/hello?x=1', 'http://x/hello?y']) {
    assert.match(await talk(`GET ${target} HTTP/1.0\r\n\r\n`), /200 OK/, target);
  }
});

test('HEAD has the headers of GET and no body', async () => {
  const answer = await talk('HEAD /hello HTTP/1.0\r\n\r\n');
  assert.match(answer, /content-length: 18/);
  assert.ok(answer.endsWith('\r\n\r\n'));
});

test('a wrong method says which are right, a wrong path is JSON, and both carry what every answer does', async () => {
  const wrong = await fetch(`http://127.0.0.1:${port}/hello`, { method: 'PUT' });
  assert.deepEqual(
    [wrong.status, wrong.headers.get('allow'), wrong.headers.get('x-always')],
    [405, 'GET, HEAD', '1'],
  );
  const flat = await fetch(`http://127.0.0.1:${port}/flat/echo`);
  assert.deepEqual([flat.status, flat.headers.get('allow')], [405, 'POST']);
  assert.equal(typeof ((await flat.json()) as { error: unknown }).error, 'string');
  const nowhere = await fetch(`http://127.0.0.1:${port}/nowhere`);
  assert.deepEqual([nowhere.status, nowhere.headers.get('x-always')], [404, '1']);
});

test('a refused upload is answered although its body is still coming', async () => {
  const body = JSON.stringify({ a: 'x'.repeat(500_000) });
  const response = await fetch(`http://127.0.0.1:${port}/echo`, { method: 'POST', body });
  assert.equal(response.status, 413);
  assert.match(await response.text(), /request_too_large/);
});
