/** A client that is gone, and what of its request is left: nothing, at once. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { after, describe, test } from 'node:test';
import { type ChatCall, createGate, tellFrames } from 'testkit/fake-neuron';
import { ask, assertNothingHeld, loaded, metric, type Setup, setup } from './failover.test.kit.ts';

const closing: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of closing) await close();
});

function send(gateway: Setup['gateway'], body: object, headers: readonly string[] = []): Promise<Socket> {
  const bytes = Buffer.from(JSON.stringify(body));
  const socket = connect({ port: gateway.port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {});
  socket.resume();
  const head = [
    'POST /v1/chat/completions HTTP/1.1',
    'host: x',
    'content-type: application/json',
    `content-length: ${bytes.length}`,
    ...headers,
  ];
  return new Promise((resolve) => {
    socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), bytes]), () => resolve(socket));
  });
}

const leavings: Readonly<Record<string, (socket: Socket) => void>> = {
  'closes the connection': (socket) => void socket.destroy(),
  'resets the connection': (socket) => void socket.resetAndDestroy(),
  'closes its half and reads on': (socket) => void socket.end(),
};

for (const [how, leave] of Object.entries(leavings)) {
  describe(`a client that ${how}`, () => {
    for (const stream of [true, false]) {
      const kind = stream ? 'streamed' : 'whole';

      test(`frees the slot in prefill, ${kind}`, async () => {
        const { gateway, neurons, close } = await setup([{ models: [loaded()] }]);
        closing.push(close);
        neurons[0]!.onChat = () => {};
        const socket = await send(gateway, ask({ stream }));
        await neurons[0]!.until(() => neurons[0]!.counters.chats === 1);
        leave(socket);
        await neurons[0]!.until(() => neurons[0]!.counters.aborted === 1);
        socket.destroy();
        while (gateway.fleet.nodes()[0]!.leaseCount > 0)
          await new Promise((resolve) => setImmediate(resolve));
      });

      test(`stops waiting for a load, ${kind}`, async () => {
        const { gateway, neurons, close } = await setup([{ models: [{ id: 'm' }] }]);
        closing.push(close);
        const gate = createGate();
        neurons[0]!.onLoad = async () => {
          await gate.opened;
          return undefined;
        };
        const socket = await send(gateway, ask({ stream }));
        await neurons[0]!.until(() => neurons[0]!.counters.loads === 1);
        assert.equal(gateway.fleet.waitingCount, 1);
        leave(socket);
        while (gateway.fleet.waitingCount > 0) await new Promise((resolve) => setImmediate(resolve));
        gate.open();
        socket.destroy();
        assertNothingHeld(gateway);
      });
    }

    test('frees the slot in the middle of the stream', async () => {
      const { gateway, neurons, close } = await setup([{ models: [loaded()] }]);
      closing.push(close);
      neurons[0]!.onChat = ({ response }) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: {"choices":[]}\n\n');
      };
      const socket = await send(gateway, ask({ stream: true }));
      await new Promise<void>((resolve) => socket.once('data', () => resolve()));
      leave(socket);
      await neurons[0]!.until(() => neurons[0]!.counters.aborted === 1);
      socket.destroy();
    });
  });
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('leaving while a broken stream is to go on elsewhere frees both nodes', async () => {
  const { gateway, neurons, close } = await setup([{ models: [loaded()] }, { models: [loaded()] }]);
  closing.push(close);
  const going = new Promise<ChatCall>((resolve) => {
    for (const neuron of neurons) {
      neuron.onChat = (call) => {
        if (call.headers['x-cortex-tokens'] === 'continue') return resolve(call);
        const [first = ''] = tellFrames(call, ['one', ' two']);
        call.response.writeHead(200, { 'content-type': 'text/event-stream' });
        call.response.write(first, () => call.response.destroy());
      };
    }
  });
  const socket = await send(gateway, ask({ stream: true }));
  const { aborted } = await going;
  socket.destroy();
  await aborted;
  while (gateway.fleet.nodes().some(({ leaseCount }) => leaseCount > 0)) await turn();
  assertNothingHeld(gateway);
});

test('of two that wait for one answer the first may leave, and the last takes the waiting with it', async () => {
  const { gateway, neurons, close } = await setup([{ models: [{ id: 'm' }] }]);
  closing.push(close);
  const gate = createGate();
  neurons[0]!.onLoad = async () => {
    await gate.opened;
    return undefined;
  };
  const session = ['x-session-id: s'];
  const first = await send(gateway, ask({ stream: true }), session);
  await neurons[0]!.until(() => neurons[0]!.counters.loads === 1);
  const second = await send(gateway, ask({ stream: true }), session);
  while ((await metric(gateway, 'cortex_attached_requests_total')) < 1);
  first.destroy();
  await metric(gateway, 'cortex_attached_requests_total');
  assert.equal(gateway.fleet.waitingCount, 1);
  second.destroy();
  while (gateway.fleet.waitingCount > 0) await turn();
  gate.open();
  assertNothingHeld(gateway);
});
