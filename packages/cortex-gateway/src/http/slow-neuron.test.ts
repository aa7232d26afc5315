/** A neuron that answers at one byte a second: an honest one on a poor line, and one that never says anything. */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { chatStream } from 'testkit/fake-neuron';
import { ask, assertNothingHeld, loaded, post, type Setup, setup } from './failover.test.kit.ts';

const chat = '/v1/chat/completions';
const closing: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of closing) await close();
});

async function start(...args: Parameters<typeof setup>): Promise<Setup> {
  const made = await setup(...args);
  closing.push(made.close);
  return made;
}

/** A byte a second until the gateway hangs up. */
function drip(clock: FakeClock, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const next = (): void => {
    if (response.destroyed) return;
    response.write('d');
    clock.setTimer(1000, next);
  };
  next();
}

test('bytes that never make an event are silence: they end at the idle limit, and nobody else waits', async () => {
  const clock = new FakeClock();
  const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }], {}, clock);
  neurons[0]!.onChat = ({ response }) => drip(clock, response);
  const call = post(gateway, chat, ask({ stream: true })).then((answer) => answer.text());
  await neurons[0]!.until(() => neurons[0]!.counters.chats === 1);
  assert.match(await (await post(gateway, chat, ask())).text(), /world/, 'the other node is not disturbed');
  // the idle limit is five minutes
  for (let secs = 0; secs < 3000 && neurons[0]!.counters.aborted === 0; secs++) {
    await clock.advance(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(neurons[0]!.counters.aborted, 1, 'it was waited for to no end');
  const text = await call;
  assert.match(text, /"message":"n0 sent no event for 300 s; try again"[^\n]*"code":"upstream_timeout"/);
  assert.doesNotMatch(text, /\[DONE\]/);
  assertNothingHeld(gateway);
});

test('an answer of one byte a second comes whole, however long that takes', async () => {
  const clock = new FakeClock();
  const { gateway, neurons } = await start([{ models: [loaded()] }], {}, clock);
  const whole = chatStream('m', ['slow', ' but', ' whole']);
  const events = whole.split(/(?<=\n\n)/);
  let response: ServerResponse | null = null;
  const dripEvent = async (text: string): Promise<void> => {
    for (const byte of text) {
      response!.write(byte);
      await clock.advance(1000);
    }
  };
  neurons[0]!.onChat = (call) => {
    response = call.response.writeHead(200, { 'content-type': 'text/event-stream' });
    void dripEvent(events[0] ?? '');
  };
  const answer = await post(gateway, chat, ask({ stream: true }));
  let text = '';
  let sent = 1;
  for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
    text += Buffer.from(chunk).toString();
    if (text !== events.slice(0, sent).join('')) continue;
    if (sent < events.length) void dripEvent(events[sent++] ?? '');
    else response!.end();
  }
  assert.equal(text, whole);
  assert.ok(clock.monotonicMs() > 300_000);
});
