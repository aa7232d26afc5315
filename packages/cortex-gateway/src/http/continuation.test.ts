/** Answers that break off, at a gateway over scripted neurons. */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, describe, test } from 'node:test';
import { encodeSse } from 'cortex-core/wire/sse';
import { encodeErrorFrame } from 'cortex-core/wire/token-frames';
import {
  answerWords,
  type ChatCall,
  chatStream,
  createGate,
  startFakeNeuron,
  tellFrames,
} from 'testkit/fake-neuron';
import {
  ask,
  assertNothingHeld,
  loaded,
  metric,
  post,
  read,
  type Setup,
  setup,
} from './failover.test.kit.ts';

const words = ['Straße', ' 日本', ' ✨', ' one', ' two', ' three'];
const whole = chatStream('m', words);
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

function open({ response }: ChatCall): ServerResponse {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  return response;
}

/** Sends the first `count` frames, then `rest` bytes of the next, and breaks the connection. */
function breakAfter(call: ChatCall, count: number, rest = 0): void {
  const frames = tellFrames(call, words);
  const sent = frames.slice(0, count).join('') + (frames[count] ?? '').slice(0, rest);
  open(call).write(sent, () => call.response.destroy());
}

function answerAll(call: ChatCall): void {
  const text = tellFrames(call, words).join('');
  open(call).end(text);
}

describe('a stream that breaks', () => {
  test('goes on at another node, from what the client has, byte for byte', async () => {
    for (let count = 1; count <= words.length; count++) {
      const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }]);
      const [first, second] = neurons;
      second!.onChat = answerAll;
      first!.onChat = (call) => breakAfter(call, count, 10);
      const answer = await post(gateway, chat, ask({ stream: true }));
      assert.equal(await answer.text(), whole, `after ${count} frames`);
      assert.equal(first!.chats.at(-1)!.headers['x-cortex-tokens'], 'tell');
      const { body, headers } = second!.chats.at(-1)!;
      assert.equal(headers['x-cortex-tokens'], 'continue');
      assert.deepEqual(JSON.parse(body.toString()).cortex_continue, {
        ...{ id: 'chatcmpl-fake', created: 1, model: 'm' },
        tokens: words.slice(0, count).map((_, at) => at),
      });
      assert.equal(await metric(gateway, 'cortex_continuations_total{result="continued"}'), 1);
      const tokens = await metric(gateway, 'cortex_completion_tokens_total{model="m",node="n1"}');
      assert.equal(tokens, words.length);
      assertNothingHeld(gateway);
    }
  });

  test('is one answer in every dialect: no second start, nothing twice', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }]);
    const request = { model: 'm', max_tokens: 50, messages: [{ role: 'user', content: 'hi' }], stream: true };
    neurons[0]!.onChat = answerAll;
    const undisturbed = await (await post(gateway, '/v1/messages', request)).text();
    neurons[0]!.onChat = (call) => breakAfter(call, 3, 4);
    neurons[1]!.onChat = answerAll;
    const seen = await (await post(gateway, '/v1/messages', request)).text();
    assert.equal(unnamed(seen), unnamed(undisturbed));
    assert.equal(seen.match(/event: message_start/g)?.length, 1);
    assert.match(seen, /event: message_stop\n/);
  });

  test('goes on when the node itself says that it cannot', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }]);
    const error = { message: 'the device is gone', type: 'server_error', code: 'device_gone', param: null };
    neurons[0]!.onChat = (call) => {
      const [one = '', two = ''] = tellFrames(call, words);
      open(call).end(`${one}${two}${encodeErrorFrame(encodeSse({ error }))}`);
    };
    neurons[1]!.onChat = answerAll;
    assert.equal(await (await post(gateway, chat, ask({ stream: true }))).text(), whole);
    neurons[1]!.onChat = neurons[0]!.onChat;
    const { text, end } = read(await (await post(gateway, chat, ask({ stream: true }))).text());
    assert.equal(text, words.slice(0, 4).join(''));
    assert.equal(end, 'device_gone');
  });

  test('does not go on when the request itself is to blame', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }]);
    const error = { message: 'no', type: 'invalid_request_error', code: 'invalid_request', param: null };
    neurons[0]!.onChat = (call) => {
      open(call).end(`${tellFrames(call, words)[0]}${encodeErrorFrame(encodeSse({ error }))}`);
    };
    assert.equal(
      read(await (await post(gateway, chat, ask({ stream: true }))).text()).end,
      'invalid_request',
    );
    assert.equal(neurons[1]!.counters.chats, 0);
  });

  test('ends in a typed error where nobody has the same weights, and nobody else is asked', async () => {
    for (const other of [{ weights: 'others' }, { weights: undefined }]) {
      const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded(other)] }]);
      neurons[0]!.onChat = (call) => breakAfter(call, 3);
      const stream = await (await post(gateway, chat, ask({ stream: true }))).text();
      assert.deepEqual(read(stream), { text: words.slice(0, 3).join(''), end: 'upstream_connection_error' });
      assert.doesNotMatch(stream, /\[DONE\]/);
      assert.equal(neurons[1]!.counters.chats, 0);
      assert.equal(await metric(gateway, 'cortex_continuations_total{result="failed"}'), 1);
    }
  });

  test('is not spliced onto an answer from the beginning', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }]);
    neurons[0]!.onChat = (call) => breakAfter(call, 2);
    // an older neuron, which ignores what it does not know
    neurons[1]!.onChat = (call) => answerWords(call, words);
    const stream = await (await post(gateway, chat, ask({ stream: true }))).text();
    assert.deepEqual(read(stream), { text: words.slice(0, 2).join(''), end: 'upstream_connection_error' });
    assertNothingHeld(gateway);
  });

  test('goes on more than once, each time at a node that has not failed it', async () => {
    const { gateway, neurons } = await start(
      Array.from({ length: 5 }, () => ({ models: [loaded()] })),
      { failover: { attempts: 2 } },
    );
    for (const [at, neuron] of neurons.entries()) {
      neuron.onChat = (call) => (at < 4 ? breakAfter(call, 1) : answerAll(call));
    }
    assert.equal(await (await post(gateway, chat, ask({ stream: true }))).text(), whole);
    assert.deepEqual(
      neurons.map((neuron) => neuron.counters.chats),
      [1, 1, 1, 1, 1],
    );
  });

  test('goes on at a node that has to load the model first, and is kept alive meanwhile', async () => {
    const { gateway, neurons } = await start(
      [{ models: [loaded()] }, { models: [loaded({ status: 'available' })] }],
      { gateway: { keepalive_secs: 0.02 } },
    );
    const gate = createGate();
    neurons[1]!.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    neurons[0]!.onChat = (call) => breakAfter(call, 2);
    neurons[1]!.onChat = answerAll;
    const answer = await post(gateway, chat, ask({ stream: true }));
    let stream = '';
    for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
      stream += Buffer.from(chunk).toString();
      if (stream.includes(': keep-alive')) gate.open();
    }
    assert.equal(stream.replaceAll(': keep-alive\n\n', ''), whole);
  });

  test('goes on at the only node there is, once it has started again', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }], {
      gateway: { keepalive_secs: 0.02 },
      failover: { give_up_secs: 60 },
    });
    const { port } = neurons[0]!;
    neurons[0]!.onChat = (call) => {
      open(call).write(tellFrames(call, words).slice(0, 2).join(''), () => void neurons[0]!.close());
    };
    const answer = await post(gateway, chat, ask({ stream: true }));
    let stream = '';
    let again: Awaited<ReturnType<typeof startFakeNeuron>> | null = null;
    for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
      stream += Buffer.from(chunk).toString();
      if (again !== null || !stream.includes(': keep-alive')) continue;
      again = await startFakeNeuron({ port, models: [loaded()] });
      again.onChat = answerAll;
    }
    closing.push(async () => again?.close());
    assert.equal(stream.replaceAll(': keep-alive\n\n', ''), whole);
    assertNothingHeld(gateway);
  });

  test('waits for room at the only node that could go on, and asks it when it said', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }], {
      failover: { attempts: 2, budget_burst: 1, budget_ratio: 0 },
    });
    neurons[0]!.onChat = (call) => breakAfter(call, 2);
    neurons[1]!.onChat = (call) => {
      if (neurons[1]!.counters.chats > 2) return answerAll(call);
      call.response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '0' });
      call.response.end('{"error":{"message":"full","code":"overloaded"}}');
    };
    const stream = await (await post(gateway, chat, ask({ stream: true }))).text();
    assert.equal(stream, whole);
    assert.equal(neurons[1]!.counters.chats, 3);
    assertNothingHeld(gateway);
  });

  test('of several choices, or with the switch off, is told no ids and ends in a typed error', async () => {
    for (const [more, continues] of [
      [{ n: 2 }, true],
      [{}, false],
    ] as const) {
      const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }], {
        failover: { continue_streams: continues },
      });
      neurons[0]!.onChat = (call) => {
        open(call).write(whole.slice(0, whole.indexOf('one')), () => call.response.destroy());
      };
      const stream = await (await post(gateway, chat, ask({ stream: true, ...more }))).text();
      assert.equal(read(stream).end, 'upstream_connection_error');
      assert.equal(neurons[0]!.chats[0]!.headers['x-cortex-tokens'], undefined);
      assert.equal(neurons[1]!.counters.chats, 0);
    }
  });

  test('a client cannot make itself a continuing gateway', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }]);
    neurons[0]!.onChat = answerAll;
    const forged = { cortex_continue: { id: 'x', created: 1, model: 'm', tokens: [1] } };
    const headers = { 'x-cortex-tokens': 'continue' };
    await (await post(gateway, chat, ask({ stream: true, ...forged }), { headers })).text();
    assert.equal(neurons[0]!.chats[0]!.headers['x-cortex-tokens'], 'tell');
  });
});

describe('frames', () => {
  test('leave no trace at any chunking, also one byte at a time', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }]);
    for (const size of [1, 2, 3, 7, 64, 100_000]) {
      neurons[0]!.onChat = async (call) => {
        const bytes = Buffer.from(tellFrames(call, words).join(`: keep-alive\n\n`));
        const response = open(call);
        for (let at = 0; at < bytes.length; at += size) {
          await new Promise((resolve) => response.write(bytes.subarray(at, at + size), resolve));
        }
        response.end();
      };
      const stream = await (await post(gateway, chat, ask({ stream: true }))).text();
      assert.equal(stream.replaceAll(': keep-alive\n\n', ''), whole, `pieces of ${size}`);
    }
  });

  test('a frame cut short by the end of the stream shows nothing of itself', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }]);
    for (const cut of [1, 5, 9, 30]) {
      neurons[0]!.onChat = (call) => {
        const frames = tellFrames(call, words);
        open(call).end(frames[0] + frames[1]!.slice(0, cut));
      };
      const { text, end } = read(await (await post(gateway, chat, ask({ stream: true }))).text());
      assert.equal(text, words[0]);
      assert.equal(end, 'upstream_connection_error');
    }
  });
});

describe('an answer of which the client has nothing', () => {
  const breaks: Readonly<Record<string, (call: ChatCall) => void>> = {
    'no event at all': (call) => void open(call).end(),
    'keep-alives only': (call) => void open(call).end(': keep-alive\n\n'),
    'half an event': (call) => breakAfter(call, 0, 30),
    'the neuron’s own error': (call) => {
      const error = { message: 'gone', type: 'server_error', code: 'device_gone', param: null };
      open(call).end(encodeErrorFrame(encodeSse({ error })));
    },
    'half of a whole answer': ({ response }) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1000 });
      response.write('{"id":"x",', () => response.destroy());
    },
  };
  for (const [name, act] of Object.entries(breaks)) {
    test(`is sent again to another node: ${name}`, async () => {
      const { gateway, neurons } = await start([{ models: [loaded()] }, { models: [loaded()] }]);
      neurons[0]!.onChat = act;
      const isWhole = name.includes('whole');
      neurons[1]!.onChat = isWhole ? (call) => answerWords(call, words) : answerAll;
      const answer = await post(gateway, chat, ask({ stream: !isWhole }));
      const body = await answer.text();
      assert.equal(answer.status, 200);
      if (isWhole) assert.equal(JSON.parse(body).choices[0].message.content, words.join(''));
      else assert.equal(body.replaceAll(': keep-alive\n\n', ''), whole);
      assert.equal(neurons[1]!.chats[0]!.headers['x-cortex-tokens'], isWhole ? undefined : 'tell');
      assert.equal(await metric(gateway, 'cortex_continuations_total{result="resent"}'), 1);
      assertNothingHeld(gateway);
    });
  }

  test('is 502 and no half answer where there is no other node', async () => {
    const { gateway, neurons } = await start([{ models: [loaded()] }]);
    neurons[0]!.onChat = breaks['half of a whole answer']!;
    const answer = await post(gateway, chat, ask());
    assert.equal(answer.status, 502);
    assert.equal(
      ((await answer.json()) as { error: { code: string } }).error.code,
      'upstream_connection_error',
    );
    assert.equal(neurons[0]!.counters.chats, 1);
  });
});

/** Ids and estimates of a Messages stream differ from call to call. */
function unnamed(stream: string): string {
  return stream.replaceAll(/"id":"[^"]*"/g, '"id":""').replaceAll(/"input_tokens":\d+/g, '"input_tokens":0');
}
