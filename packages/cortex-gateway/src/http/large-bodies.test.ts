/** A body of 64 MiB is taken, one of more is refused, and neither is held several times over. */
import assert from 'node:assert/strict';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { answerWords, createGate } from 'testkit/fake-neuron';
import { loaded, type Setup, setup } from './failover.test.kit.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const mib = 1024 * 1024;
const piece = Buffer.alloc(mib, 'word ');
const closing: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of closing) await close();
});

async function start(): Promise<Setup> {
  const made = await setup([{ models: [loaded()] }]);
  closing.push(made.close);
  return made;
}

const head = '{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"';
const tail = '"}]}';

/** A text of so many bytes in all, a piece at a time: the client holds one. */
async function* bodyOf(bytes: number): AsyncGenerator<Buffer, void, void> {
  yield Buffer.from(head);
  for (let left = bytes - head.length - tail.length; left > 0; left -= mib) {
    yield left >= mib ? piece : piece.subarray(0, left);
  }
  yield Buffer.from(tail);
}

async function send(url: string, bytes: number): Promise<{ status: number; text: string }> {
  const sent = httpRequest(url, { method: 'POST', agent: false });
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve);
    sent.on('error', reject);
  });
  void (async () => {
    for await (const chunk of bodyOf(bytes)) {
      if (sent.destroyed) return;
      if (!sent.write(chunk))
        await new Promise<void>((resolve) => {
          const onMove = (): void => {
            sent.off('drain', onMove);
            sent.off('close', onMove);
            resolve();
          };
          sent.on('drain', onMove);
          sent.on('close', onMove);
        });
    }
    sent.end();
  })();
  const answer = await answered;
  let text = '';
  for await (const chunk of answer) text += chunk;
  sent.destroy();
  return { status: answer.statusCode ?? 0, text };
}

/** Bytes of buffers and objects that are in use. */
function usedBytes(): number {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

for (const path of ['/v1/chat/completions', '/v1/messages']) {
  test(`64 MiB to ${path} are taken, and held once while the answer is awaited`, async () => {
    const { gateway, neurons } = await start();
    const neuron = neurons[0]!;
    const [arrived, gate] = [createGate(), createGate()];
    let received = 0;
    neuron.onChat = async (call) => {
      received = call.body.length;
      // the neuron's own copy is none of the gateway's
      neuron.chats.length = 0;
      const { response } = call;
      arrived.open();
      await gate.opened;
      answerWords({ ...call, body: Buffer.from('{"model":"m"}'), response }, ['ok']);
    };
    const before = usedBytes();
    const answer = send(gateway.url + path, 64 * mib);
    await Promise.race([arrived.opened, answer.then(({ status, text }) => assert.equal(status, 200, text))]);
    assert.ok(received > 63 * mib);
    // the fake's body and the gateway's, and of Messages the chat body that is on its way
    let held = usedBytes() - before;
    for (let tries = 0; held > 200 * mib && tries < 50; tries++) {
      await new Promise(setImmediate);
      held = usedBytes() - before;
    }
    gate.open();
    const { status, text } = await answer;
    assert.equal(status, 200, text.slice(0, 300));
    assert.ok(held <= 200 * mib, `${Math.round(held / mib)} MiB are held`);
  });
}

test('65 MiB are refused with 413 in the envelope of each dialect, and nothing of them stays', async () => {
  const { gateway, neurons } = await start();
  const before = usedBytes();
  for (const [path, said] of [
    ['/v1/chat/completions', /^\{"error":\{.*"code":"request_too_large"/],
    ['/v1/responses', /^\{"error":\{.*"code":"request_too_large"/],
    ['/v1/messages', /^\{"type":"error","error":\{"type":"request_too_large"/],
    ['/api/chat', /^\{"error":"[^"]*"/],
  ] as const) {
    const { status, text } = await send(gateway.url + path, 65 * mib);
    assert.equal(status, 413, path);
    assert.match(text, said);
  }
  assert.equal(neurons[0]!.counters.chats, 0);
  assert.ok(usedBytes() - before < 65 * mib);
});
