/** Connections to a neuron: kept, found closed, not made in time, left in every state. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { systemClock } from 'cortex-core/daemon/clock';
import { NeuronClient } from './neuron-client.ts';

const closing: (() => void)[] = [];
after(() => {
  for (const close of closing) close();
});

interface Peer {
  readonly endpoint: string;
  /** Requests, each with the number of its connection, in the order they came. */
  readonly seen: (readonly [string, number])[];
  readonly sockets: Socket[];
}

/** `answer`: what is written for a request; null = the connection is destroyed. */
async function peer(answer: (line: string, connection: number) => string | null): Promise<Peer> {
  const seen: [string, number][] = [];
  const sockets: Socket[] = [];
  const server: Server = createServer((socket) => {
    const connection = sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      const line = bytes.toString('latin1').split(' HTTP/')[0] ?? '';
      if (!/^(?:GET|POST) /.test(line)) return;
      seen.push([line, connection]);
      const text = answer(line, connection);
      if (text === null) socket.destroy();
      else socket.write(text);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { endpoint: `http://127.0.0.1:${(server.address() as { port: number }).port}`, seen, sockets };
}

function clientOf(endpoint: string, connectTimeoutMs = 5000): NeuronClient {
  const client = new NeuronClient({
    ...{ name: 'n', endpoint, connectTimeoutMs },
    key: () => null,
    clock: systemClock,
  });
  closing.push(() => void client.close());
  return client;
}

const ok = (more = '') => `HTTP/1.1 200 OK\r\ncontent-length: 2\r\n${more}\r\n{}`;
const chunked = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n';
const open = (client: NeuronClient, signal = new AbortController().signal) =>
  client.open({ path: '/x', body: Buffer.from('{}'), headers: {}, signal, idleMs: 60_000 });

test('a kept connection that turns out to be closed costs a poll nothing; a POST is not sent twice', async () => {
  const { endpoint, seen } = await peer((line, connection) =>
    connection === 1 && seen.length > 1 ? null : ok(line.startsWith('POST') ? 'x: y\r\n' : ''),
  );
  const client = clientOf(`${endpoint}/base/`);
  for (let poll = 0; poll < 2; poll++) assert.deepEqual(await client.getJson('/a', 5000), {});
  assert.deepEqual(seen, [
    ['GET /base/a', 1],
    ['GET /base/a', 1],
    ['GET /base/a', 2],
  ]);

  const second = await peer((line) => (line.startsWith('POST') ? null : ok()));
  const other = clientOf(second.endpoint);
  await other.getJson('/a', 5000);
  await assert.rejects(open(other), { code: 'upstream_connection_error' });
  assert.deepEqual(second.seen, [
    ['GET /a', 1],
    ['POST /x', 1],
  ]);
});

test('a connection is not used when the other side is about to close it', async () => {
  for (const [secs, connections] of [
    [1, 2],
    [60, 1],
  ]) {
    const { endpoint, sockets } = await peer(() =>
      ok(`keep-alive: timeout=${secs}\r\nconnection: keep-alive\r\n`),
    );
    const client = clientOf(endpoint);
    for (let poll = 0; poll < 2; poll++) await client.getJson('/a', 5000);
    assert.equal(sockets.length, connections, `${secs} s`);
  }
});

test('a kept connection is not used when its time went by in a loop that was held up', async () => {
  const { endpoint, sockets } = await peer(() => ok('keep-alive: timeout=4\r\nconnection: keep-alive\r\n'));
  const client = clientOf(endpoint);
  await client.getJson('/a', 5000);
  await new Promise(setImmediate);
  const until = performance.now() + 2100;
  while (performance.now() < until);
  await client.getJson('/a', 5000);
  assert.equal(sockets.length, 2);
});

test('a connection that is never made is given up', async () => {
  const { endpoint } = await peer(() => '');
  // a handshake that nobody answers
  const client = clientOf(endpoint.replace('http:', 'https:'), 30);
  await assert.rejects(open(client), { code: 'upstream_connection_error' });
});

test('who leaves frees the connection: before the head, in the body, and with what it left for a reason', async () => {
  for (const head of ['', chunked, `${chunked}2\r\nhi\r\n`]) {
    const { endpoint, seen, sockets } = await peer(() => head);
    const client = clientOf(endpoint);
    const leave = new AbortController();
    const reason = new Error('gone');
    const answer = open(client, leave.signal);
    if (head === '') {
      answer.catch(() => {});
      while (seen.length === 0) await new Promise(setImmediate);
      leave.abort(reason);
      await assert.rejects(answer, reason);
    } else {
      const chunks = (await answer).chunks[Symbol.asyncIterator]();
      if (head !== chunked) assert.equal(String((await chunks.next()).value), 'hi');
      const next = chunks.next();
      leave.abort(reason);
      await assert.rejects(next, reason);
      await assert.rejects(chunks.next(), reason);
    }
    const [socket] = sockets;
    if (socket !== undefined && !socket.destroyed) await once(socket, 'close');
  }
  const aborted = AbortSignal.abort(new Error('before'));
  const { endpoint, seen } = await peer(() => ok());
  await assert.rejects(open(clientOf(endpoint), aborted), /before/);
  assert.equal(seen.length, 0);
});

test('what came before a break is read before the break is told', async () => {
  const { endpoint, sockets } = await peer(() => `${chunked}3\r\none\r\n`);
  const { chunks } = await open(clientOf(endpoint));
  const iterator = chunks[Symbol.asyncIterator]();
  assert.equal(String((await iterator.next()).value), 'one');
  sockets[0]?.write('3\r\ntwo\r\n', () => sockets[0]?.destroy());
  assert.equal(String((await iterator.next()).value), 'two');
  await assert.rejects(iterator.next(), { code: 'upstream_connection_error', message: /broke off/ });
});

test('a reader that stops early ends the request, and an end is an end however often it is read', async () => {
  const { endpoint, sockets } = await peer(() => `${chunked}2\r\nhi\r\n`);
  for await (const _ of (await open(clientOf(endpoint))).chunks) break;
  const [socket] = sockets;
  if (socket !== undefined && !socket.destroyed) await once(socket, 'close');

  const whole = await peer(() => ok());
  const client = clientOf(whole.endpoint);
  const answer = await open(client);
  const iterator = answer.chunks[Symbol.asyncIterator]();
  assert.equal(String((await iterator.next()).value), '{}');
  for (let i = 0; i < 2; i++) assert.equal((await iterator.next()).done, true);
  answer.abort();
  // the connection is another request's by now
  await client.getJson('/a', 5000);
  assert.equal(whole.sockets.length, 1);
});

test('a closed client takes no request', async () => {
  const { endpoint } = await peer(() => ok());
  const client = clientOf(endpoint);
  await client.close();
  await assert.rejects(open(client), { code: 'upstream_connection_error' });
});
