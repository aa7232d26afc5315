import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { it, type TestContext } from 'node:test';
import { type Exchange, HttpServer } from 'cortex-core/daemon/http-server';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import { FakeClock } from 'testkit/clock';
import { SseStream } from './sse-stream.ts';

interface Opened {
  readonly stream: SseStream;
  readonly exchange: Exchange;
  readonly clock: FakeClock;
  /** The answer's bytes, once the server has ended it. */
  readonly received: Promise<string>;
}

async function openStream(context: TestContext, reads: boolean): Promise<Opened> {
  const clock = new FakeClock();
  let give: (exchange: Exchange) => void = () => {};
  const arrived = new Promise<Exchange>((resolve) => {
    give = resolve;
  });
  const server = new HttpServer({
    routes: [{ method: 'GET', path: '/', handler: (exchange) => give(exchange) }],
    log: silentLog,
    bodyBytesMax: 1024,
    envelopeOf: () => 'openai',
  });
  const port = await server.listen('127.0.0.1', 0);
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  const received = new Promise<string>((resolve) => {
    let text = '';
    socket.on('close', () => resolve(text));
    if (reads) {
      socket.on('data', (bytes) => {
        text += bytes.toString();
      });
    } else socket.pause();
  });
  socket.write('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  context.after(async () => {
    socket.destroy();
    await server.close();
  });
  const exchange = await arrived;
  return { stream: new SseStream(exchange, clock), exchange, clock, received };
}

it('SseStream holds headers back for a moment, then breaks the silence every few seconds', async (context) => {
  const { stream, clock, received } = await openStream(context, true);
  await clock.advance(199);
  assert.equal(stream.isOpen, false);
  await clock.advance(1);
  assert.equal(stream.isOpen, true);
  await clock.advance(5000);
  stream.sendStep([{ n: 1 }], []);
  stream.end();
  stream.end();
  stream.sendStep([{ n: 2 }], []);
  const text = await received;
  assert.equal(text.match(/: keep-alive\n\n/g)?.length, 2, text);
  assert.ok(text.includes('data: {"n":1}\n\n') && text.includes('data: [DONE]\n\n'), text);
  assert.ok(!text.includes('"n":2'), text);
  assert.equal(clock.pending, 0);
});

it('SseStream ends a failed answer with the error and without [DONE]', async (context) => {
  const { stream, clock, received } = await openStream(context, true);
  stream.sendStep([{ n: 1 }], []);
  stream.fail(new AppError('device_gone', 'the device went away'));
  stream.end();
  const text = await received;
  assert.match(text, /data: \{"n":1\}[\s\S]*"code":"device_gone"/);
  assert.ok(!text.includes('[DONE]'), text);
  assert.equal(clock.pending, 0);
});

it('SseStream does not wait for ever for a client that never reads the end', async (context) => {
  const { stream, exchange, clock } = await openStream(context, false);
  const { response } = exchange;
  for (let pieces = 0; response.writableLength < 1024 * 1024; pieces++) {
    assert.ok(pieces < 4096, 'the kernel takes it all');
    stream.sendStep(['x'.repeat(64 * 1024)], []);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const closed = new Promise((resolve) => response.once('close', resolve));
  stream.end();
  assert.equal(response.destroyed, false);
  await clock.advance(60_000);
  await closed;
  assert.equal(clock.pending, 0);
});
