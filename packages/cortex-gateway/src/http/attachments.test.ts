/** An identical request while the first still runs. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { answerWords, type ChatCall, chatStream, createGate, type FakeNeuron } from 'testkit/fake-neuron';
import { ask, assertNothingHeld, loaded, metric, post, type Setup, setup } from './failover.test.kit.ts';

const chat = '/v1/chat/completions';
const whole = chatStream('m', ['one', ' two', ' three']);
const events = whole.split(/(?<=\n\n)/);
const session = { 'x-claude-code-session-id': 'abc' };
const closing: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of closing) await close();
});

async function start(config: Parameters<typeof setup>[1] = {}): Promise<Setup & { neuron: FakeNeuron }> {
  const made = await setup([{ models: [loaded()] }], config);
  closing.push(made.close);
  return { ...made, neuron: made.neurons[0]! };
}

/** Reads until the text has `mark`; the rest comes from `rest`. */
async function until(answer: Response, mark: string): Promise<{ text: string; rest: () => Promise<string> }> {
  const reader = answer.body!.getReader();
  const decoder = new TextDecoder();
  let text = '';
  const more = async (): Promise<boolean> => {
    const { done, value } = await reader.read();
    if (!done) text += decoder.decode(value, { stream: true });
    return !done;
  };
  while (!text.includes(mark)) assert.ok(await more(), text);
  return {
    text,
    rest: async () => {
      while (await more());
      return text;
    },
  };
}

/** Sends two events, and the others when the gate opens. */
function halves(neuron: FakeNeuron, gate: { readonly opened: Promise<void> }): void {
  neuron.onChat = async ({ response }: ChatCall) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(events.slice(0, 2).join(''));
    await gate.opened;
    response.end(events.slice(2).join(''));
  };
}

async function attached(gateway: Setup['gateway'], count: number): Promise<void> {
  while ((await metric(gateway, 'cortex_attached_requests_total')) < count);
}

describe('an identical request of the same session', () => {
  test('joins nothing that was refused before it began', async () => {
    const { gateway } = await start();
    const refused = await post(gateway, chat, ask(), {
      headers: { ...session, 'x-cortex-priority': 'high' },
    });
    assert.equal(refused.status, 400);
    assert.equal((await post(gateway, chat, ask(), { headers: session })).status, 200);
    assertNothingHeld(gateway);
  });

  test('goes on when the first reads no more and leaves', async () => {
    const { gateway, neuron } = await start({ failover: { attach_mb: 64, attach_total_mb: 64 } });
    const big = 'x'.repeat(1024 * 1024);
    const text = chatStream(
      'm',
      Array.from({ length: 24 }, () => big),
    );
    neuron.onChat = ({ response }: ChatCall) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(text);
    };
    const leave = new AbortController();
    const first = await post(gateway, chat, ask({ stream: true }), {
      headers: session,
      signal: leave.signal,
    });
    assert.equal(first.status, 200);
    const second = await post(gateway, chat, ask({ stream: true }), { headers: session });
    await attached(gateway, 1);
    leave.abort();
    assert.equal(await second.text(), text);
    assertNothingHeld(gateway);
  });

  test('who joins late may lag by all it got at once, however much is kept', async () => {
    const { gateway, neuron } = await start({ failover: { attach_mb: 64, attach_total_mb: 64 } });
    const big = 'x'.repeat(1024 * 1024);
    const text = chatStream(
      'm',
      Array.from({ length: 24 }, () => big),
    );
    const end = text.lastIndexOf(big);
    const [written, gate] = [createGate(), createGate()];
    neuron.onChat = async ({ response }: ChatCall) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(text.slice(0, end), () => written.open());
      await gate.opened;
      response.end(text.slice(end));
    };
    const send = (): Promise<Response> => post(gateway, chat, ask({ stream: true }), { headers: session });
    const first = (await send()).text();
    await written.opened;
    const late = await send();
    await attached(gateway, 1);
    gate.open();
    assert.ok((await first) === text);
    assert.ok((await late.text()) === text);
  });

  test('gets the running answer from its beginning, and the model works once', async () => {
    const { gateway, neuron } = await start();
    const gate = createGate();
    halves(neuron, gate);
    const request = ask({ stream: true });
    const first = await until(await post(gateway, chat, request, { headers: session }), 'one');
    const second = await post(gateway, chat, request, { headers: session });
    assert.match((await until(second, 'one')).text, /^data/);
    const third = await post(gateway, chat, request, { headers: session });
    gate.open();
    assert.equal(await first.rest(), whole);
    assert.equal(await third.text(), whole);
    assert.match(third.headers.get('x-cortex-route') ?? '', /node=n0/);
    assert.equal(neuron.counters.chats, 1);
    assert.equal(await metric(gateway, 'cortex_attached_requests_total'), 2);
    assert.equal(await metric(gateway, 'cortex_requests_total{model="m",node="n0"}'), 1);
    assertNothingHeld(gateway);
    // what has ended is asked anew
    await (await post(gateway, chat, request, { headers: session })).text();
    assert.equal(neuron.counters.chats, 2);
  });

  test('keeps the answer alive when the first client gives up, and the last to leave ends it', async () => {
    const { gateway, neuron } = await start();
    const gate = createGate();
    halves(neuron, gate);
    const stop = [new AbortController(), new AbortController(), new AbortController()];
    const send = (at: number): Promise<Response> =>
      post(gateway, chat, ask({ stream: true }), { headers: session, signal: stop[at]!.signal });
    await until(await send(0), 'one');
    const second = await until(await send(1), 'one');
    stop[0]!.abort();
    const third = await until(await send(2), 'one');
    stop[2]!.abort();
    third.rest().catch(() => {});
    gate.open();
    assert.equal(await second.rest(), whole);
    assert.equal(neuron.counters.aborted, 0);

    halves(neuron, createGate());
    const [fourth, fifth] = [new AbortController(), new AbortController()];
    for (const { signal } of [fourth, fifth]) {
      await until(await post(gateway, chat, ask({ stream: true }), { headers: session, signal }), 'one');
    }
    fourth.abort();
    fifth.abort();
    await neuron.until(() => neuron.counters.aborted === 1);
    assert.equal(neuron.counters.chats, 2);
  });

  test('waits with it for a whole answer, or for the same refusal', async () => {
    const { gateway, neuron } = await start();
    for (const isRefused of [false, true]) {
      const gate = createGate();
      neuron.onChat = async (call) => {
        await gate.opened;
        if (!isRefused) return answerWords(call, ['whole']);
        call.response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '3' });
        call.response.end('{"error":{"message":"full","code":"overloaded"}}');
      };
      const before = await metric(gateway, 'cortex_attached_requests_total');
      const headers = { session_id: 's' };
      const first = post(gateway, chat, ask(), { headers });
      await neuron.until(() => neuron.counters.chats === (isRefused ? 2 : 1));
      const second = post(gateway, chat, ask(), { headers });
      await attached(gateway, before + 1);
      gate.open();
      const [one, two] = await Promise.all([first, second]);
      assert.equal(one.status, isRefused ? 503 : 200);
      assert.equal(two.status, one.status);
      assert.equal(two.headers.get('retry-after'), one.headers.get('retry-after'));
      assert.equal(await two.text(), await one.text());
    }
  });

  test('an error before the answer reaches both, each under its own request id', async () => {
    const { gateway, neuron } = await start();
    const gate = createGate();
    neuron.onChat = async ({ response }) => {
      await gate.opened;
      response.destroy();
    };
    const send = (id: string): Promise<Response> =>
      post(gateway, chat, ask(), { headers: { ...session, 'x-request-id': id } });
    const first = send('a');
    await neuron.until(() => neuron.counters.chats === 1);
    const second = send('b');
    await attached(gateway, 1);
    gate.open();
    for (const [answer, id] of [
      [await first, 'a'],
      [await second, 'b'],
    ] as const) {
      assert.equal(answer.status, 502);
      assert.equal(answer.headers.get('x-request-id'), id);
    }
  });

  test('a retry that says so needs no session: SDKs count', async () => {
    const { gateway, neuron } = await start();
    const gate = createGate();
    halves(neuron, gate);
    const send = (count: string): Promise<Response> =>
      post(gateway, chat, ask({ stream: true }), { headers: { 'x-stainless-retry-count': count } });
    const first = await until(await send('0'), 'one');
    const retry = await until(await send('1'), 'one');
    const other = await until(await send('0'), 'one');
    assert.equal(neuron.counters.chats, 2);
    gate.open();
    for (const each of [first, retry, other]) assert.equal(await each.rest(), whole);
  });
});

test('every header that names a conversation to the router names it to a resend', async () => {
  const { gateway, neuron } = await start();
  const gate = createGate();
  halves(neuron, gate);
  const names = [
    'conversation_id',
    'x-conversation-id',
    'session-id',
    'x-session-affinity',
    'idempotency-key',
  ];
  const running = names.map(async (name) => {
    const headers = { [name]: `of ${name}` };
    const first = await until(await post(gateway, chat, ask({ stream: true }), { headers }), 'one');
    const second = await post(gateway, chat, ask({ stream: true }), { headers });
    return async () => assert.deepEqual([await first.rest(), await second.text()], [whole, whole], name);
  });
  const ends = await Promise.all(running);
  assert.equal(neuron.counters.chats, names.length);
  gate.open();
  for (const end of ends) await end();
});

test('two idempotency keys of one session are two requests', async () => {
  const { gateway, neuron } = await start();
  const gate = createGate();
  halves(neuron, gate);
  const both = ['1', '2'].map((key) =>
    post(gateway, chat, ask({ stream: true }), { headers: { ...session, 'idempotency-key': key } }),
  );
  await neuron.until(() => neuron.counters.chats === 2);
  gate.open();
  for (const each of both) assert.equal(await (await each).text(), whole);
});

describe('a request that runs for itself', () => {
  const cases: readonly (readonly [string, object, object, object, object])[] = [
    ['without a session', {}, {}, {}, {}],
    ['of another session', session, { 'x-claude-code-session-id': 'other' }, {}, {}],
    ['with another key', { ...session, 'x-api-key': '1' }, { ...session, 'x-api-key': '2' }, {}, {}],
    ['with another body', session, session, {}, { max_tokens: 9 }],
    ['of several choices', session, session, { n: 2 }, { n: 2 }],
    ['that asks for it', session, { ...session, 'x-cortex-attach': 'off' }, {}, {}],
  ];
  for (const [name, headers, others, body, other] of cases) {
    test(name, async () => {
      const { gateway, neuron } = await start();
      const gate = createGate();
      halves(neuron, gate);
      await until(
        await post(gateway, chat, ask({ stream: true, ...body }), { headers: { ...headers } }),
        'one',
      );
      const second = post(gateway, chat, ask({ stream: true, ...other }), { headers: { ...others } });
      await neuron.until(() => neuron.counters.chats === 2);
      gate.open();
      await (await second).text();
      assert.equal(await metric(gateway, 'cortex_attached_requests_total'), 0);
    });
  }

  test('where the answer is longer than what is kept, or the switch is off', async () => {
    for (const attach_mb of [0, 0.0001]) {
      const { gateway, neuron } = await start({ failover: { attach_mb } });
      const gate = createGate();
      halves(neuron, gate);
      const first = await until(
        await post(gateway, chat, ask({ stream: true }), { headers: session }),
        'one',
      );
      const second = post(gateway, chat, ask({ stream: true }), { headers: session });
      await neuron.until(() => neuron.counters.chats === 2);
      gate.open();
      assert.equal(await first.rest(), whole);
      assert.equal(await (await second).text(), whole);
    }
  });
});
