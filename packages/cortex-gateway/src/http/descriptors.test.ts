/** Field trap: what is open grows with the hours. Sockets of requests that left, broke or were refused are gone. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { Agent, type ClientRequest, request } from 'node:http';
import { after, test } from 'node:test';
import { answerWords } from 'testkit/fake-neuron';
import { ask, loaded, type Setup, setup } from './failover.test.kit.ts';

const burst = 60;
/** What a pool may keep for the next requests. */
const pooledMax = 2 * burst;
const openCount = (): number => readdirSync('/proc/self/fd').length;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

let made: Setup;
after(() => made?.close());

test('bursts of clients that leave and of answers that break leave no descriptor open', {
  skip: process.platform !== 'linux',
}, async () => {
  made = await setup([{ models: [loaded()] }], {
    gateway: { rest_after_failures: 0 },
    failover: { attempts: 1 },
  });
  const [neuron] = made.neurons;
  neuron!.onChat = (call) => {
    const kind = JSON.parse(call.body.toString()).user;
    if (kind === 'whole') answerWords(call, ['x']);
    else if (kind === 'broken') call.response.destroy();
    // what is left runs until its client leaves
  };
  await round();
  const first = openCount();
  for (let i = 0; i < 6; i++) await round();
  // each of the six rounds had more sockets than that
  const grown = openCount() - first;
  assert.ok(grown < burst, `${grown} more descriptors after six rounds of ${3 * burst} requests`);
  assert.ok(first < pooledMax + 100, `${first} descriptors after one round`);
});

async function round(): Promise<void> {
  const agent = new Agent({ keepAlive: false });
  const leaving: ClientRequest[] = [];
  const ended: Promise<void>[] = [];
  const { neurons, gateway } = made;
  const before = neurons[0]!.counters.chats;
  for (let i = 0; i < burst; i++) {
    for (const user of ['whole', 'broken', 'left']) {
      const sent = request(`${gateway.url}/v1/chat/completions`, { method: 'POST', agent });
      const end = new Promise<void>((resolve) => sent.once('close', resolve));
      sent.once('response', (response) => response.resume());
      sent.on('error', () => {});
      sent.end(JSON.stringify(ask({ user })));
      ended.push(end);
      if (user === 'left') leaving.push(sent);
    }
  }
  await neurons[0]!.until(() => neurons[0]!.counters.chats === before + 3 * burst);
  for (const sent of leaving) sent.destroy();
  await Promise.all(ended);
  while (gateway.fleet.nodes().some((node) => node.leaseCount > 0)) await turn();
}
