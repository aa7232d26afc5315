/** What admission refuses, and when it says to come back, as a client reads it. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { FakeClock } from 'testkit/clock';
import type { Neuron } from '../neuron.ts';
import { ScriptedDevice } from './scripted-device.test.kit.ts';
import { chat, startTiny, tiny, until } from './scripted-neuron.test.kit.ts';

describe('a request that may not run now', () => {
  let neuron: Neuron;
  let device: ScriptedDevice;
  let clock: FakeClock;
  afterEach(() => neuron.close());

  async function start(admission: object): Promise<void> {
    device = new ScriptedDevice();
    clock = new FakeClock();
    neuron = await startTiny(
      device,
      { default_models: [{ model_id: tiny, slots: 4 }], admission },
      { clock },
    );
  }

  const ask = (account?: string): Promise<Response> =>
    fetch(`${neuron.url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify(chat),
      headers: account === undefined ? {} : { 'x-cortex-account-id': account },
    });

  async function refusal(response: Response): Promise<readonly unknown[]> {
    const { error } = (await response.json()) as { error: { code: string } };
    return [response.status, error.code, response.headers.get('retry-after')];
  }

  /** One answer that took so long. */
  async function answerIn(secs: number): Promise<void> {
    const answer = ask();
    const generation = await device.next();
    await clock.advance(secs * 1000);
    generation.emit('x');
    generation.finish();
    assert.equal((await answer).status, 200);
  }

  async function finish(count: number): Promise<void> {
    for (const generation of device.generations.slice(-count)) {
      generation.emit('x');
      generation.finish();
    }
  }

  it('is told how long those ahead of it take, as measured', async () => {
    await start({ max_in_flight: 1, max_queue_depth: 1 });
    await answerIn(7);
    const running = ask();
    await device.next();
    const waiting = ask();
    await until(() => neuron.registry.loads()[0]?.queue_depth === 1);
    // One runs and one waits: it would be third, behind two ends.
    assert.deepEqual(await refusal(await ask()), [503, 'overloaded', '14']);
    // Who waits too long hears the same.
    const late = clock.advance(30_000);
    assert.deepEqual(await refusal(await waiting), [503, 'overloaded', '7']);
    await late;
    await finish(1);
    assert.equal((await running).status, 200);
    assert.deepEqual(neuron.registry.loads()[0]?.in_flight, 0);
  });

  it('of an account that has two already gets 429 with a time, and others run, by default', async () => {
    await start({});
    const own = [ask('a'), ask('a')];
    await device.next();
    await device.next();
    assert.deepEqual(await refusal(await ask('a')), [429, 'rate_limit_exceeded', '1']);
    const others = [ask('b'), ask()];
    await device.next();
    await device.next();
    await finish(4);
    for (const each of [...own, ...others]) assert.equal((await each).status, 200);
    const { in_flight, queue_depth } = neuron.registry.loads()[0] ?? {};
    assert.deepEqual([in_flight, queue_depth], [0, 0]);
  });
});
