/** Field trap: who only looks keeps no model in memory and brings none there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import type { FakeNeuron } from 'testkit/fake-neuron';
import { advanceUntil, post, setUpFleet } from './fleet.test.kit.ts';

test('scrapes, listings, explanations and counts do not keep an idle model', async () => {
  const clock = new FakeClock();
  const { gateway, fleet, neurons } = await setUpFleet(
    [{ models: [{ id: 'm', status: 'loaded' as const }, { id: 'cold' }] }],
    { clock, models: { models: [{ id: 'm', ttl_secs: 100 }] } },
  );
  const [neuron] = neurons as [FakeNeuron];
  const messages = [{ role: 'user', content: 'hi' }];
  const look = async (): Promise<void> => {
    for (const path of ['/v1/models', '/v1/models/m', '/health', '/admin/fleet', '/api/tags', '/api/ps']) {
      assert.equal((await fetch(gateway.url + path)).status, 200, path);
    }
    for (const model of ['m', 'cold']) {
      assert.equal((await fetch(`${gateway.url}/admin/explain?model=${model}`)).status, 200);
      const count = await post(gateway, '/v1/messages/count_tokens', { model, messages });
      assert.equal(count.status, 200);
    }
    assert.equal((await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).status, 200);
    await fleet.pollNow('n0');
  };
  for (let looks = 0; looks < 3; looks++) {
    await look();
    await clock.advance(33_000);
  }
  assert.equal(neuron.counters.unloads, 0);
  await look();
  await advanceUntil(clock, 500, () => neuron.counters.unloads === 1);
  assert.ok(clock.monotonicMs() < 190_000, `${clock.monotonicMs()}`);
  await look();
  assert.deepEqual([neuron.counters.loads, neuron.counters.chats], [0, 0]);
});
