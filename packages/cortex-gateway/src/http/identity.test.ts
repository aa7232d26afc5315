/** Who answers, and whether it has what it says: field traps T21 and "a neuron that lies about being loaded". */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import { createGate, FakeNeuron, type FakeNeuronOptions } from 'testkit/fake-neuron';
import { type Gateway, startGateway } from '../gateway.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function neuron(options: FakeNeuronOptions, port = 0): Promise<FakeNeuron> {
  const fake = new FakeNeuron(options);
  await fake.listen(port);
  cleanups.push(() => fake.close());
  return fake;
}

async function gateway(fakes: readonly FakeNeuron[], clock?: FakeClock): Promise<Gateway> {
  const started = await startGateway(
    cortexConfigSchema.parse({
      gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
      neurons: fakes.map((fake, i) => ({ name: `n${i}`, endpoint: fake.url })),
      ...(clock === undefined ? {} : { failover: { give_up_secs: 0 } }),
    }),
    modelsConfigSchema.parse({}),
    { log: silentLog, ...(clock === undefined ? {} : { clock }) },
  );
  cleanups.push(() => started.close());
  return started;
}

async function ask(to: Gateway, model: string): Promise<{ status: number; text: string; route: string }> {
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'hi' }] });
  const answer = await fetch(`${to.url}/v1/chat/completions`, { method: 'POST', body });
  return {
    status: answer.status,
    text: await answer.text(),
    route: answer.headers.get('x-cortex-route') ?? '',
  };
}

const loaded = (id: string) => ({ id, status: 'loaded' as const });

function refuse(status: number, code: string) {
  return (call: { readonly response: import('node:http').ServerResponse }): void => {
    call.response.writeHead(status, { 'content-type': 'application/json' });
    call.response.end(JSON.stringify({ error: { message: code, type: 'server_error', code } }));
  };
}

function lie(fake: FakeNeuron, status: number, code: string): void {
  fake.onChat = refuse(status, code);
  fake.onLoad = (spec) => ({ status: 400, body: { error: `model '${spec.model_id}' already loaded` } });
}

describe('a neuron that lies about being loaded', () => {
  for (const [status, code] of [
    [404, 'model_not_loaded'],
    [503, 'model_recovering'],
    [503, 'model_loading'],
  ] as const) {
    test(`${status} ${code}: believed for one request, which another replica serves`, async () => {
      const liar = await neuron({ models: [loaded('m')] });
      const honest = await neuron({ models: [loaded('m')] });
      lie(liar, status, code);
      const to = await gateway([liar, honest]);
      for (let i = 0; i < 10; i++) assert.equal((await ask(to, 'm')).status, 200);
      await to.fleet.pollNow('n0');
      assert.equal((await ask(to, 'm')).status, 200);
      assert.equal(liar.counters.chats, 1);
    });
  }

  test('404 with nobody else there: one client is told to come again, and the liar is not asked again', async () => {
    const liar = await neuron({ models: [loaded('m')] });
    lie(liar, 404, 'model_not_loaded');
    const to = await gateway([liar]);
    const first = await ask(to, 'm');
    assert.ok(first.status === 502 || first.status === 503, `${first.status} ${first.text}`);
    assert.match(first.text, /does not stay loaded|says that it has loaded/);
    await to.fleet.pollNow('n0');
    const second = await ask(to, 'm');
    assert.equal(second.status, 503, second.text);
    assert.match(second.text, /says that it has loaded \\"m\\", and answers model_not_loaded/);
    assert.equal(liar.counters.chats, 1);
    const health = (await (await fetch(`${to.url}/health`)).json()) as { status: string };
    assert.equal(health.status, 'impaired');
  });

  test('a load that another node can do is done there', async () => {
    const liar = await neuron({ models: [loaded('m')] });
    const other = await neuron({ models: [{ id: 'm' }] });
    lie(liar, 404, 'model_not_loaded');
    const to = await gateway([liar, other]);
    const answer = await ask(to, 'm');
    assert.equal(answer.status, 200, answer.text);
    assert.match(answer.route, /node=n1/);
    assert.equal(other.counters.loads, 1);
  });

  test('it is tried again after a while that doubles, and trusted after one good answer', async () => {
    const clock = new FakeClock();
    const liar = await neuron({ models: [loaded('m')] });
    const answerWell = liar.onChat;
    lie(liar, 503, 'model_recovering');
    const to = await gateway([liar], clock);
    for (const [seconds, chats] of [
      [0, 1],
      [1.9, 1],
      [0.2, 2],
      [2.1, 2],
      [2, 3],
    ] as const) {
      await clock.advance(seconds * 1000);
      assert.equal((await ask(to, 'm')).status, 503);
      assert.equal(liar.counters.chats, chats, `after ${seconds} s more`);
    }
    liar.onChat = answerWell;
    await clock.advance(8100);
    assert.equal((await ask(to, 'm')).status, 200);
    liar.onChat = refuse(503, 'model_recovering');
    assert.equal((await ask(to, 'm')).status, 503);
    await clock.advance(2100);
    liar.onChat = answerWell;
    assert.equal((await ask(to, 'm')).status, 200);
  });

  test('an honest neuron that somebody else told to unload gets the model loaded again at once', async () => {
    const fake = await neuron({ models: [loaded('m')] });
    const to = await gateway([fake]);
    fake.models.get('m')!.status = 'available';
    const answer = await ask(to, 'm');
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(fake.events, ['chat m', 'load m', 'chat m']);
  });
});

describe('another neuron at the same address', () => {
  async function swap(old: FakeNeuron, next: FakeNeuronOptions): Promise<FakeNeuron> {
    const { port } = old;
    await old.close();
    return await neuron(next, port);
  }

  /** The first poll may meet the end of the connections to the old one. */
  async function poll(to: Gateway): Promise<void> {
    for (let i = 0; i < 2; i++) await to.fleet.pollNow('n0');
  }

  test('is asked for what it has before anything is sent to it', async () => {
    const old = await neuron({ name: 'old', devices: [1000], models: [loaded('a')] });
    const to = await gateway([old]);
    const next = await swap(old, { name: 'next', devices: [7000], models: [loaded('b')] });
    await poll(to);
    const [node] = to.fleet.view().nodes;
    assert.deepEqual([...node!.models.keys()], ['b']);
    assert.deepEqual(
      node!.devices.map((device) => device.totalMb),
      [7000],
    );
    assert.equal((await ask(to, 'b')).status, 200);
    const gone = await ask(to, 'a');
    assert.equal(gone.status, 404, gone.text);
    assert.equal(next.counters.chats, 1);
  });

  test('a request that meets it before the poll does is refused by it, and ends as the model was never there', async () => {
    const old = await neuron({ models: [loaded('a')] });
    const to = await gateway([old]);
    const next = await swap(old, { models: [loaded('b')] });
    const gone = await ask(to, 'a');
    assert.equal(gone.status, 404, gone.text);
    await poll(to);
    assert.deepEqual([...to.fleet.view().nodes[0]!.models.keys()], ['b']);
    assert.deepEqual(
      next.events.filter((event) => event.startsWith('load')),
      [],
    );
  });

  test('an answer of it estranges the node: requests wait until it was read anew', async () => {
    const old = await neuron({ models: [loaded('a')] });
    const to = await gateway([old]);
    // with the same model, so that only the answer's header gives it away
    const next = await swap(old, { models: [loaded('a'), loaded('b')] });
    const before = next.counters.models;
    assert.equal((await ask(to, 'a')).status, 200);
    assert.equal((await ask(to, 'b')).status, 200);
    assert.ok(next.counters.models > before && next.counters.discovery > 0);
  });

  test('requests that come while it is read anew wait, and are then answered', async () => {
    const old = await neuron({ models: [loaded('a')] });
    const to = await gateway([old]);
    const next = await swap(old, { models: [loaded('a')] });
    assert.equal((await ask(to, 'a')).status, 200);
    const more = await Promise.all(Array.from({ length: 5 }, () => ask(to, 'a')));
    assert.deepEqual(new Set(more.map(({ status }) => status)), new Set([200]));
    assert.equal(to.fleet.waitingCount, 0);
    assert.equal(next.counters.discovery, 1);
  });

  test('two neurons that take turns at one address count as one that does not answer', async () => {
    const fake = await neuron({ models: [loaded('a')] });
    const to = await gateway([fake]);
    let turn = 0;
    Object.defineProperty(fake, 'instance', { get: () => `turn-${turn++}` });
    for (let i = 0; i < 3; i++) await to.fleet.pollNow('n0');
    assert.equal(to.fleet.facts.isHealthy('n0'), false);
  });

  test('a neuron too old to say who it is serves as before', async () => {
    const fake = await neuron({ models: [loaded('a')] });
    fake.instance = null;
    const to = await gateway([fake]);
    await to.fleet.pollNow('n0');
    assert.equal((await ask(to, 'a')).status, 200);
  });

  test('a restart in the middle of an answer leaves no lease behind', async () => {
    const old = await neuron({ models: [loaded('a')] });
    const gate = createGate();
    old.onChat = async (call) => {
      call.response.writeHead(200, { 'content-type': 'application/json' });
      call.response.write(' ');
      await gate.opened;
    };
    const to = await gateway([old]);
    const running = ask(to, 'a').catch((cause: unknown) => ({ status: 0, text: String(cause) }));
    await old.until(() => old.counters.chats === 1);
    await swap(old, { models: [loaded('a')] });
    gate.open();
    assert.notEqual((await running).status, 200);
    await to.fleet.pollNow('n0');
    assert.equal((await ask(to, 'a')).status, 200);
    assert.equal(to.fleet.view().nodes[0]!.models.get('a')!.leases, 0);
  });
});

test('requests go to the configured address: what a neuron calls itself is not asked for', async () => {
  const fake = await neuron({ models: [loaded('a'), { id: 'b' }] });
  const to = await gateway([fake]);
  for (const model of ['a', 'b']) assert.equal((await ask(to, model)).status, 200);
  assert.deepEqual(
    [...fake.paths].filter((path) => path.includes('endpoint')),
    [],
  );
});
