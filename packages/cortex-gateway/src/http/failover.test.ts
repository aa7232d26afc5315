/** What happens before the client's first byte when nodes fail. */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, describe, test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { answerWords, chatStream, createGate, type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import { ask, assertNothingHeld, loaded, post, read, type Setup, setup } from './failover.test.kit.ts';
import { RetryBudget } from './retry-budget.ts';

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

const two = [{ models: [loaded()] }, { models: [loaded()] }];

function refuse(response: ServerResponse, status: number, retryAfter: string | null): void {
  const code = status === 429 ? 'rate_limit_exceeded' : 'overloaded';
  const body = JSON.stringify({ error: { message: `full ${status}`, type: 'x', code, param: null } });
  const headers = retryAfter === null ? {} : { 'retry-after': retryAfter };
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
}

describe('a node that refuses', () => {
  test('429 and 503 are a case for another replica, streamed and whole', async () => {
    const { gateway, neurons } = await start(two);
    for (const status of [429, 502, 503]) {
      for (const stream of [true, false]) {
        neurons[0]!.onChat = ({ response }) => refuse(response, status, '9');
        const answer = await post(gateway, chat, ask({ stream }));
        assert.equal(answer.status, 200, `${status}`);
        assert.match(await answer.text(), /world/);
        assert.match(answer.headers.get('x-cortex-route') ?? '', /node=n1/);
      }
    }
  });

  test('where all refuse the client gets the refusal with its own Retry-After, at once', async () => {
    const { gateway, neurons } = await start(two);
    for (const neuron of neurons) neuron.onChat = ({ response }) => refuse(response, 429, '17');
    const answer = await post(gateway, chat, ask({ stream: true }));
    assert.equal(answer.status, 429);
    assert.equal(answer.headers.get('retry-after'), '17');
    assert.match(await answer.text(), /full 429/);
    assert.deepEqual(
      neurons.map((neuron) => neuron.counters.chats),
      [1, 1],
    );
    assertNothingHeld(gateway);
  });

  test('a model that its node is still loading is waited for, and not loaded anywhere else', async () => {
    const { gateway, neurons } = await start([
      { models: [loaded()] },
      { models: [loaded({ status: 'available' })] },
    ]);
    const [neuron] = neurons;
    neuron!.onChat = (call) => {
      if (neuron!.counters.chats > 1) return answerWords(call, ['there']);
      call.response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '60' });
      call.response.end('{"error":{"message":"loading (100 %)","code":"model_loading"}}');
    };
    assert.match(await (await post(gateway, chat, ask())).text(), /there/);
    assert.equal(neurons[1]!.counters.loads, 0);
    assertNothingHeld(gateway);
  });

  test('a model that does not come in time is refused as its node refused it', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }], { failover: { give_up_secs: 0.1 } });
    neurons[0]!.onChat = ({ response }) => {
      response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '60' });
      response.end('{"error":{"message":"loading (9 %)","code":"model_loading"}}');
    };
    const answer = await post(gateway, chat, ask());
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get('retry-after'), '60');
    assert.match(await answer.text(), /9 %/);
  });

  test('a node that failed is not asked again when the next one turns out not to have the model', async () => {
    const { gateway, neurons } = await start(two);
    const order: FakeNeuron[] = [];
    for (const neuron of neurons) {
      neuron.onChat = (call) => {
        order.push(neuron);
        if (order.length === 1) return void call.response.destroy();
        if (order.length > 2) return answerWords(call, ['here']);
        neuron.models.get('m')!.status = 'available';
        const error = { message: 'not loaded', type: 'invalid_request_error', code: 'model_not_loaded' };
        call.response.writeHead(404, { 'content-type': 'application/json' });
        call.response.end(JSON.stringify({ error }));
      };
    }
    const answer = await post(gateway, chat, ask({ stream: true }));
    assert.equal(read(await answer.text()).text, 'here');
    const [failed, gone] = order;
    assert.notEqual(failed, gone);
    assert.deepEqual(order, [failed, gone, gone]);
    assert.equal(gone?.counters.loads, 1);
  });

  test('a fault of the request is not sent anywhere else', async () => {
    const { gateway, neurons } = await start(two);
    neurons[0]!.onChat = ({ response }) => {
      response.writeHead(400, { 'content-type': 'application/json' });
      response.end('{"error":{"message":"no","code":"invalid_request"}}');
    };
    assert.equal((await post(gateway, chat, ask())).status, 400);
    assert.equal(neurons[1]!.counters.chats, 0);
  });

  test('no more nodes are asked than the configuration allows', async () => {
    const { gateway, neurons } = await start(
      Array.from({ length: 5 }, () => ({ models: [loaded()] })),
      { failover: { attempts: 2 } },
    );
    for (const neuron of neurons) neuron.onChat = ({ response }) => void response.destroy();
    const answer = await post(gateway, chat, ask());
    assert.equal(answer.status, 502);
    assert.equal(
      neurons.reduce((sum, neuron) => sum + neuron.counters.chats, 0),
      2,
    );
  });

  test('a sick fleet is not hammered: the budget of all requests together is spent, then none goes on', async () => {
    const { gateway, neurons } = await start(two, { failover: { budget_burst: 3, budget_ratio: 0 } });
    for (const neuron of neurons) neuron.onChat = ({ response }) => refuse(response, 503, '1');
    for (let at = 0; at < 10; at++) assert.equal((await post(gateway, chat, ask())).status, 503);
    assert.equal(neurons[0]!.counters.chats + neurons[1]!.counters.chats, 13);
  });
});

describe('a node that is not there', () => {
  test('comes back within the wait: the request is served, a stream is kept alive meanwhile', async () => {
    for (const stream of [true, false]) {
      const { gateway, neurons } = await start([{ models: [loaded()] }], {
        gateway: { keepalive_secs: 0.02 },
        failover: { give_up_secs: 60 },
      });
      const { port } = neurons[0]!;
      await neurons[0]!.close();
      const call = post(gateway, chat, ask({ stream }));
      let text = '';
      let again: Awaited<ReturnType<typeof startFakeNeuron>> | null = null;
      if (stream) {
        for await (const chunk of (await call).body as unknown as AsyncIterable<Uint8Array>) {
          text += Buffer.from(chunk).toString();
          again ??= await startFakeNeuron({ port, models: [loaded()] });
        }
        assert.match(text, /^: keep-alive/);
      } else {
        again = await startFakeNeuron({ port, models: [loaded()] });
        text = await (await call).text();
      }
      closing.push(() => again!.close());
      assert.match(text, /world/);
      assertNothingHeld(gateway);
    }
  });

  test('does not come back: 502 with a reason once the wait is over, and nothing is held', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }], { failover: { give_up_secs: 0.1 } });
    await neurons[0]!.close();
    const answer = await post(gateway, chat, ask());
    assert.equal(answer.status, 502);
    assert.match(await answer.text(), /n0 cannot be reached/);
    assertNothingHeld(gateway);
  });

  test('the model is loaded elsewhere instead', async () => {
    const { gateway, neurons } = await start([
      { models: [loaded()] },
      { models: [loaded({ status: 'available' })] },
    ]);
    await neurons[0]!.close();
    const answer = await post(gateway, chat, ask({ stream: true }));
    assert.match(await answer.text(), /world/);
    assert.equal(neurons[1]!.counters.loads, 1);
    assertNothingHeld(gateway);
  });

  test('a client that leaves while the request waits takes the waiting with it', async () => {
    const { gateway, neurons } = await start(
      [{ models: [loaded()] }, { models: [loaded({ status: 'available' })] }],
      { failover: { give_up_secs: 60 } },
    );
    const gate = createGate();
    neurons[1]!.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    await neurons[0]!.close();
    const stop = new AbortController();
    const call = post(gateway, chat, ask(), { signal: stop.signal });
    call.catch(() => {});
    await neurons[1]!.until(() => neurons[1]!.counters.loads === 1);
    assert.equal(gateway.fleet.waitingCount, 1);
    stop.abort();
    while (gateway.fleet.waitingCount > 0) await new Promise((resolve) => setImmediate(resolve));
    gate.open();
    assertNothingHeld(gateway);
  });
});

describe('a node that answers slowly', () => {
  const minutes = 60_000;

  test('is let to its end, however long that takes: what counts is life, not time', async () => {
    const clock = new FakeClock();
    const { gateway, neurons } = await start([{ models: [loaded()] }], {}, clock);
    const events = chatStream('m', ['slow', ' but', ' whole']).split(/(?<=\n\n)/);
    let response: ServerResponse | null = null;
    neurons[0]!.onChat = (call) => {
      response = call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(events[0]);
    };
    const answer = await post(gateway, chat, ask({ stream: true }));
    let text = '';
    let sent = 1;
    for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      // the idle limit is five minutes; the whole answer takes half an hour
      await clock.advance(4.5 * minutes);
      if (sent < events.length) response!.write(events[sent++]);
      else response!.end();
    }
    assert.match(text, /whole.*\[DONE\]/s);
  });

  test('accepts and never says a word: another replica answers after the idle limit', async () => {
    const clock = new FakeClock();
    const { gateway, neurons } = await start(two, {}, clock);
    neurons[0]!.onChat = () => {};
    const call = post(gateway, chat, ask({ stream: true }));
    await neurons[0]!.until(() => neurons[0]!.counters.chats === 1);
    await clock.advance(5.1 * minutes);
    assert.match(await (await call).text(), /world/);
    await neurons[0]!.until(() => neurons[0]!.counters.aborted === 1);
  });

  test('a whole answer may be silent for as long as its node answers polls', async () => {
    const clock = new FakeClock();
    const { gateway, neurons } = await start([{ models: [loaded()] }], {}, clock);
    neurons[0]!.onChat = () => {};
    const call = post(gateway, chat, ask());
    await neurons[0]!.until(() => neurons[0]!.counters.chats === 1);
    await clock.advance(30 * minutes);
    answerWords(neurons[0]!.chats[0]!, ['late']);
    assert.match(await (await call).text(), /late/);
  });
});

describe('the retry budget', () => {
  test('is a fraction of the requests over time, and a burst', async () => {
    const clock = new FakeClock();
    const budget = new RetryBudget({ clock, burst: 10, ratio: 0.1 });
    const spend = (): number => {
      let count = 0;
      while (budget.withdraw()) count++;
      return count;
    };
    assert.equal(spend(), 10);
    for (let at = 0; at < 50; at++) budget.deposit();
    assert.equal(spend(), 5);
    await clock.advance(30_000);
    assert.equal(spend(), 5);
    await clock.advance(600_000);
    for (let at = 0; at < 1000; at++) budget.deposit();
    assert.equal(spend(), 10);
  });
});
