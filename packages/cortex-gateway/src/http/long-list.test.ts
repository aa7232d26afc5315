import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { systemClock } from 'cortex-core/daemon/clock';
import { HttpServer } from 'cortex-core/daemon/http-server';
import { silentLog } from 'cortex-core/daemon/log';
import { sendList } from './long-list.ts';

describe('sendList()', () => {
  const items = Array.from({ length: 200 }, (_, at) => at);
  let sliceMs = 0;
  let describeItem: (at: number) => unknown = () => null;
  let done: (() => void) | null = null;
  let server: HttpServer;
  let url = '';

  before(async () => {
    server = new HttpServer({
      log: silentLog,
      bodyBytesMax: 1000,
      envelopeOf: () => 'openai',
      routes: (['GET', 'HEAD'] as const).map((method) => ({
        method,
        path: '/list',
        handler: async (exchange) => {
          const tail = { has_more: false };
          await sendList(exchange, systemClock, { object: 'list' }, items, describeItem, tail, sliceMs);
          done?.();
        },
      })),
    });
    url = `http://127.0.0.1:${await server.listen('127.0.0.1', 0)}/list`;
  });
  after(() => server.close(0));

  test('lets others have their turn between its slices, and is one JSON answer', async () => {
    sliceMs = 0;
    let turns = 0;
    let isOver = false;
    const others = (): void => {
      turns++;
      if (!isOver) setImmediate(others);
    };
    setImmediate(others);
    const seen: number[] = [];
    describeItem = (at) => {
      seen.push(turns);
      return { at, long: 'x'.repeat(10_000) };
    };
    const answer = (await (await fetch(url)).json()) as { data: { at: number }[]; has_more: boolean };
    isOver = true;
    assert.deepEqual(
      answer.data.map(({ at }) => at),
      items,
    );
    assert.equal(answer.has_more, false);
    assert.ok((seen.at(-1) ?? 0) - (seen[0] ?? 0) >= items.length / 2, `${seen.at(-1)} turns`);
    const head = await fetch(url, { method: 'HEAD' });
    assert.deepEqual([head.status, await head.text()], [200, '']);
  });

  test('that is short is sent with its length, as any other answer', async () => {
    sliceMs = 1e9;
    describeItem = (at) => ({ at });
    const answer = await fetch(url);
    const text = await answer.text();
    assert.equal(answer.headers.get('content-length'), String(text.length));
    assert.deepEqual(JSON.parse(text), {
      object: 'list',
      data: items.map((at) => ({ at })),
      has_more: false,
    });
  });

  test('ends with a client that leaves', async () => {
    sliceMs = 0;
    let made = 0;
    describeItem = (at) => {
      made++;
      return { at, long: 'x'.repeat(1_000_000) };
    };
    const ended = new Promise<void>((resolve) => {
      done = resolve;
    });
    const client = new AbortController();
    const answer = await fetch(url, { signal: client.signal });
    assert.equal(answer.status, 200);
    client.abort();
    await ended;
    assert.ok(made < items.length, `${made} were made`);
  });
});
