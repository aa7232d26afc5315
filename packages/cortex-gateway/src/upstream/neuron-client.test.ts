import assert from 'node:assert/strict';
import { createServer, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { NeuronClient } from './neuron-client.ts';

/** The clock of undici's own limits, which it lets tests move. */
const undiciClock = createRequire(import.meta.url)('undici/lib/util/timers.js') as {
  tick(ms: number): void;
};

test('no limit of the HTTP client itself ends a long prefill or a long pause: its own are 300 s', async () => {
  let answered = (_: ServerResponse): void => {};
  const asked = new Promise<ServerResponse>((resolve) => {
    answered = resolve;
  });
  const server = createServer((_, response) => answered(response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  const client = new NeuronClient({ name: 'n', endpoint, key: () => null, clock: new FakeClock() });
  const pass = (): void => {
    for (let i = 0; i < 3; i++) undiciClock.tick(700_000);
  };
  try {
    const opening = client.open({
      ...{ path: '/v1/chat/completions', body: Buffer.from('{}'), headers: {} },
      signal: new AbortController().signal,
      idleMs: 3_600_000,
    });
    opening.catch(() => {});
    const response = await asked;
    pass();
    response.writeHead(200);
    response.write('a');
    const { status, chunks } = await opening;
    const pieces = chunks[Symbol.asyncIterator]();
    assert.equal(String((await pieces.next()).value), 'a');
    const last = pieces.next();
    last.catch(() => {});
    pass();
    response.end('b');
    assert.deepEqual([status, String((await last).value)], [200, 'b']);
  } finally {
    await client.close();
    server.closeAllConnections();
    server.close();
  }
});
