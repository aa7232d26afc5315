/** Requests whose client went away, in every state that a request has, and requests that a shutdown meets. */
import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import type { Neuron } from '../neuron.ts';
import { ScriptedDevice } from './scripted-device.test.kit.ts';
import { chat, openChat, startTiny, until } from './scripted-neuron.test.kit.ts';

const slots = 2;

let neuron: Neuron;
let device: ScriptedDevice;

afterEach(() => neuron.close());

async function start(over: Readonly<Record<string, unknown>>, scripted: boolean): Promise<void> {
  device = new ScriptedDevice();
  const sizes = { engine: { threads: 1, slots, context: 2048 }, cpu: { memory_mb: 2000 } };
  neuron = await startTiny(scripted ? device : null, { ...sizes, ...over });
}

const post = (body: unknown) => openChat(neuron, body);

async function textOf(response: Promise<IncomingMessage>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of await response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function load() {
  const [first] = neuron.registry.loads();
  assert.ok(first);
  return first;
}

function counts(): readonly number[] {
  return [load().in_flight, load().queue_depth];
}

/** The whole request in one write; the caller says how the connection ends. */
function openSocket(body: unknown) {
  const socket = connect({ port: neuron.port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {});
  socket.resume();
  const text = JSON.stringify(body);
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${Buffer.byteLength(text)}`;
  socket.write(`${head}\r\n\r\n${text}`);
  return socket;
}

describe('1,000 clients that leave', () => {
  const states = ['queued', 'prefill', 'mid-stream', 'non-streamed', 'half-closed'] as const;
  const perState = 200;

  for (const state of states) {
    it(`${perState} of them ${state}: the counters are zero again and a slot is free`, async () => {
      await start({ admission: { max_queue_depth: 100, max_per_principal: 0 } }, true);
      for (let left = perState; left > 0; left -= state === 'queued' ? 100 : slots) await leave(state);
      await until(() => counts().every((count) => count === 0));
      const next = post(chat);
      const generation = await device.next();
      generation.emit('still here');
      generation.finish();
      assert.match(await textOf(next.response), /still here/);
      assert.deepEqual(counts(), [0, 0]);
      const ran = state === 'queued' ? (perState / 100) * slots : perState;
      assert.equal(device.generations.length, ran + 1, 'nobody who left the queue reached the device');
    });
  }

  /** As many as fit at once come, reach the state, and go. */
  async function leave(state: (typeof states)[number]): Promise<void> {
    const body = { ...chat, stream: state === 'prefill' || state === 'mid-stream' || state === 'queued' };
    if (state === 'half-closed') {
      const sockets = Array.from({ length: slots }, () => openSocket(body));
      const reached = await Promise.all(sockets.map(() => device.next()));
      // The client says that it is done and would still read: HTTP/1.1 servers take it for gone.
      for (const socket of sockets) socket.end();
      await Promise.all(reached.map(({ cancelled }) => cancelled));
      return;
    }
    const running = Array.from({ length: slots }, () => post(body));
    const reached = await Promise.all(running.map(() => device.next()));
    if (state === 'queued') {
      const waiting = Array.from({ length: 100 }, () => post(body));
      await until(() => load().queue_depth === 100);
      for (const { client } of waiting) client.destroy();
      await until(() => load().queue_depth === 0);
      for (const generation of reached) generation.finish();
      await Promise.all(running.map(({ response }) => textOf(response)));
      return;
    }
    if (state !== 'prefill') for (const generation of reached) generation.emit('some text ');
    if (state === 'mid-stream') {
      const first = running.map(async ({ response }) => (await response).once('data', () => {}));
      await Promise.all(first);
    }
    for (const { client } of running) client.destroy();
    await Promise.all(reached.map(({ cancelled }) => cancelled));
  }
});

for (const worker of ['thread', 'process'] as const) {
  describe(`clients that leave a neuron whose owner is a ${worker}`, () => {
    it('free the engine too, wherever their request was', async () => {
      await start(
        { device_worker: worker, admission: { max_queue_depth: 100, max_per_principal: 0 } },
        false,
      );
      const endless = { ...chat, ignore_eos: true, max_tokens: 2000, temperature: 0 };
      const long = [{ role: 'user', content: 'river stone '.repeat(280) }];
      for (let round = 0; round < 5; round++) {
        const streams = [1, 2].map(() => post({ ...endless, stream: true }));
        await Promise.all(streams.map(async ({ response }) => (await response).once('data', () => {})));
        const queued = Array.from({ length: 10 }, () => post({ ...endless, stream: true }));
        await until(() => load().queue_depth === 10);
        for (const { client } of [...queued, ...streams]) client.destroy();
        await until(() => counts().every((count) => count === 0));
        const reading = [1, 2].map(() => post({ ...endless, messages: long, stream: true }));
        await until(() => load().in_flight === 2);
        for (const { client } of reading) client.destroy();
        await until(() => counts().every((count) => count === 0));
        const sockets = [1, 2].map(() => openSocket(endless));
        await until(() => load().in_flight === 2);
        sockets[0]?.end();
        sockets[1]?.destroy();
        await until(() => counts().every((count) => count === 0));
      }
      // More than the engine has slots: every one of them must be free, not only the permits.
      const answers = Array.from({ length: 2 * slots }, () =>
        post({ ...chat, temperature: 0, max_tokens: 8 }),
      );
      const texts = await Promise.all(answers.map(({ response }) => textOf(response)));
      for (const text of texts) assert.match(text, /"finish_reason":"(stop|length)"/);
      assert.deepEqual(counts(), [0, 0]);
    });
  });
}

describe('a shutdown', () => {
  it('lets running requests end, and sends away who waits or comes, with a time to retry', async () => {
    await start({ admission: { max_in_flight: 1 } }, true);
    const running = post({ ...chat, stream: true });
    const generation = await device.next();
    generation.emit('first ');
    const waiting = post(chat);
    await until(() => load().queue_depth === 1);
    const closed = neuron.close();
    const refused = await waiting.response;
    assert.equal(refused.statusCode, 503);
    assert.equal(refused.headers['retry-after'], '15');
    assert.match(await textOf(waiting.response), /"code":"shutting_down"/);
    generation.emit('last');
    generation.finish();
    const text = await textOf(running.response);
    assert.match(text, /first.* last.*\[DONE\]\n\n$/s);
    await closed;
  });

  it('is a 503 and not a missing model to a connection that stays open', async () => {
    await start({ admission: { max_in_flight: 2 } }, true);
    // Its head is here and its body is not: the connection is no idle one that the server would close.
    const late = connect(neuron.port, '127.0.0.1');
    late.on('error', () => {});
    const answer = new Promise<string>((resolve) => {
      let text = '';
      late.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        if (text.includes('"code"')) resolve(text);
      });
      late.on('close', () => resolve(text));
    });
    const body = JSON.stringify(chat);
    late.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n`);
    const running = post({ ...chat, stream: true });
    const generation = await device.next();
    const closed = neuron.close();
    await until(() => !neuron.registry.isLoaded('cortex-tiny'));
    late.write(body);
    const text = await answer;
    assert.match(text, /^HTTP\/1\.1 503 /);
    assert.match(text, /retry-after: 15\r\n/i);
    assert.match(text, /connection: close\r\n/i);
    assert.match(text, /"code":"shutting_down"/);
    generation.emit('whole');
    generation.finish();
    assert.match(await textOf(running.response), /whole.*\[DONE\]/s);
    await closed;
    late.destroy();
  });
});
