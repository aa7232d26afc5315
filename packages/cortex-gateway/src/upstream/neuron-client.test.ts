import assert from 'node:assert/strict';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { NeuronClient } from './neuron-client.ts';

test('no limit of the HTTP client itself ends a long prefill or a long pause: its own are 300 s', async (t) => {
  // its timers count turns of half a second on the global setTimeout
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pass = async (secs: number): Promise<void> => {
    for (let half = 0; half < 2 * secs; half++) {
      t.mock.timers.tick(500);
      if (half % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  let answered = (_: ServerResponse): void => {};
  const asked = new Promise<ServerResponse>((resolve) => {
    answered = resolve;
  });
  const server = createServer((_, response) => answered(response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  const client = new NeuronClient({ name: 'n', endpoint, key: () => null, clock: new FakeClock() });
  try {
    const opening = client.open({
      ...{ path: '/v1/chat/completions', body: Buffer.from('{}'), headers: {} },
      signal: new AbortController().signal,
      idleMs: 3_600_000,
    });
    opening.catch(() => {});
    const response = await asked;
    await pass(700);
    response.writeHead(200);
    response.write('a');
    const { status, chunks } = await opening;
    const pieces = chunks[Symbol.asyncIterator]();
    assert.equal(String((await pieces.next()).value), 'a');
    const last = pieces.next();
    last.catch(() => {});
    await pass(700);
    response.end('b');
    assert.deepEqual([status, String((await last).value)], [200, 'b']);
  } finally {
    await client.close();
    server.closeAllConnections();
    server.close();
  }
});
