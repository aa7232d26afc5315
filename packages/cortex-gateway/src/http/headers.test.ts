/** Which headers cross the gateway, on real sockets. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { answerWords } from 'testkit/fake-neuron';
import { ask, loaded, post, type Setup, setup } from './failover.test.kit.ts';

const chat = '/v1/chat/completions';
let made: Setup;
before(async () => {
  const key = { key: 'client-key', account_id: 'alice', key_id: 'laptop' };
  made = await setup([{ models: [loaded()] }], {
    gateway: { neuron_key: 'neuron-key' },
    entitlements: { keys: [key] },
  });
});
after(() => made.close());

test('the neuron gets the gateway’s key and who asks, never the client’s secrets', async () => {
  const [neuron] = made.neurons;
  neuron!.onChat = (call) => answerWords(call, ['x']);
  const secrets = {
    authorization: 'Bearer client-key',
    'x-api-key': 'client-key',
    'api-key': 'client-key',
    cookie: 'session=secret',
    'proxy-authorization': 'Basic secret',
    'x-forwarded-for': '10.0.0.1',
    'x-cortex-account-id': 'somebody-else',
    'x-cortex-tokens': 'continue',
    'x-stainless-lang': 'js',
    'sec-fetch-mode': 'cors',
    'accept-encoding': 'gzip',
    'x-trace': 'kept',
  };
  await (await post(made.gateway, chat, ask(), { headers: secrets })).text();
  const { headers, body } = neuron!.chats.at(-1)!;
  assert.equal(headers.authorization, 'Bearer neuron-key');
  assert.equal(headers['x-cortex-account-id'], 'alice');
  assert.equal(headers['x-cortex-key-id'], 'laptop');
  assert.equal(headers['x-trace'], 'kept');
  assert.equal(headers['content-type'], 'application/json');
  assert.equal(headers['content-length'], String(body.length));
  assert.equal(headers['transfer-encoding'], undefined);
  assert.doesNotMatch(JSON.stringify(headers), /client-key|secret|somebody-else|continue|10\.0\.0\.1/);
  for (const name of ['x-stainless-lang', 'sec-fetch-mode', 'accept-encoding']) {
    assert.equal(headers[name], undefined, name);
  }
});

test('a rewritten body goes with its own length, whatever length the client said', async () => {
  const [neuron] = made.neurons;
  neuron!.onChat = (call) => answerWords(call, ['x']);
  const anthropic = { model: 'm', max_tokens: 5, messages: [{ role: 'user', content: '日本 ✨' }] };
  assert.equal((await post(made.gateway, '/v1/messages', anthropic)).status, 200);
  const { headers, body } = neuron!.chats.at(-1)!;
  assert.equal(headers['content-length'], String(body.length));
  assert.equal(JSON.parse(body.toString()).model, 'm');
});

test('the client gets one length or one encoding, and nothing of the neuron’s connection', async () => {
  const [neuron] = made.neurons;
  const body = '{"id":"x","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}';
  for (const length of [true, false]) {
    neuron!.onChat = ({ response }) => {
      response.writeHead(200, {
        'content-type': 'application/json; charset=utf-8',
        server: 'neuron',
        'set-cookie': 'a=b',
        connection: 'close, x-hop',
        'x-hop': 'secret',
        'x-cortex-continued': '3',
        'access-control-allow-origin': 'http://other',
        'x-kept': 'yes',
        ...(length ? { 'content-length': body.length } : {}),
      });
      response.end(body);
    };
    const raw = await rawAnswer(ask());
    const [head = '', rest] = raw.split('\r\n\r\n');
    const names = head
      .split('\r\n')
      .slice(1)
      .map((line) => line.slice(0, line.indexOf(':')).toLowerCase());
    assert.equal(new Set(names).size, names.length, head);
    assert.match(head, /content-type: application\/json; charset=utf-8/);
    assert.match(head, /x-kept: yes/);
    assert.equal(names.filter((name) => /^(content-length|transfer-encoding)$/.test(name)).length, 1);
    assert.doesNotMatch(head, /server:|set-cookie|x-hop|x-cortex-continued|http:\/\/other/);
    assert.equal(rest, body);
  }
});

test('an idle connection outlives the pools of clients and of this gateway', async () => {
  // the gateway's own client keeps sockets for 30 s, Go and Python clients for 30 to 60: whoever asks must close first
  const answer = await fetch(`${made.gateway.url}/health`);
  await answer.text();
  const secs = Number(/timeout=(\d+)/.exec(answer.headers.get('keep-alive') ?? '')?.[1]);
  assert.ok(secs >= 65, `keep-alive: ${answer.headers.get('keep-alive')}`);
});

test('ten requests over one connection are ten answers', async () => {
  const [neuron] = made.neurons;
  neuron!.onChat = (call) => answerWords(call, ['x']);
  const one = ask();
  const answers = await rawAnswer(...Array.from({ length: 10 }, () => one));
  assert.equal(answers.match(/HTTP\/1\.1 200 OK/g)?.length, 10);
});

/** The bytes of the answers to these requests, one after the other on one connection. */
function rawAnswer(...bodies: readonly object[]): Promise<string> {
  const requests = bodies.map((each, at) => {
    const body = JSON.stringify(each);
    const connection = at === bodies.length - 1 ? 'close' : 'keep-alive';
    const head = [`POST ${chat} HTTP/1.1`, 'host: x', `connection: ${connection}`];
    return `${[...head, `content-length: ${Buffer.byteLength(body)}`].join('\r\n')}\r\n\r\n${body}`;
  });
  const socket = connect(made.gateway.port, '127.0.0.1');
  return new Promise((resolve, reject) => {
    let text = '';
    socket.on('data', (bytes) => {
      text += bytes.toString();
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(text));
    socket.write(requests.join(''));
  });
}
