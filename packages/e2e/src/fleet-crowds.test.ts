/** Many at once, and two that exclude each other, on real neurons with real weights. */
import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { answers, readStream } from './fleet-streams.ts';
import { type LocalFleet, startLocalFleet } from './local-fleet.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const counters = [
  /^cortex_cold_starts_total/,
  /^cortex_evictions_total/,
  /^cortex_request_errors_total/,
] as const;
const countsOf = (fleet: LocalFleet): Promise<number[]> =>
  Promise.all(counters.map((each) => fleet.metric(each)));

describe('two models of equal rank and room for one', () => {
  let fleet: LocalFleet;
  before(async () => {
    fleet = await startLocalFleet({ rooms: [1.5], models: ['one', 'two'] });
  });
  after(() => fleet.close());

  test('alternate twenty times: each comes back, each swap is one load and one eviction', async () => {
    await answers(fleet, 'two');
    const [loads = 0, evictions = 0, errors] = await countsOf(fleet);
    for (let i = 0; i < 20; i++) for (const model of ['one', 'two']) await answers(fleet, model);
    assert.deepEqual(await countsOf(fleet), [loads + 40, evictions + 40, errors]);
    assert.deepEqual(fleet.loadedOn('node1'), ['two']);
    assert.equal(fleet.held, 0);
  });

  test('asked for at once they do not race for the memory: both are answered, one after the other', async () => {
    await answers(fleet, 'two');
    await fleet.gateway.fleet.operations.unload('two', null);
    const [loads = 0, evictions = 0, errors] = await countsOf(fleet);
    await Promise.all(['one', 'two', 'one', 'two'].map((model) => answers(fleet, model)));
    assert.deepEqual(await countsOf(fleet), [loads + 2, evictions + 1, errors]);
    assert.equal(fleet.loadedOn('node1').length, 1);
  });

  test('a thousand clients that wait and leave: every counter comes back to zero, the running answer is whole', async () => {
    const [there, other] = ['one', 'two'] as const;
    await answers(fleet, there);
    const reader = readStream(await fleet.openStream(there, 2500));
    await reader.started;
    const leave = new AbortController();
    setMaxListeners(0, leave.signal);
    let ended = 0;
    const crowd = Array.from({ length: 1000 }, async () => {
      await fleet
        .open(other, { stream: true }, leave.signal)
        .then((answer) => answer.text())
        .catch(() => {});
      ended++;
    });
    while (fleet.gateway.fleet.waitingCount + ended < 1000) await turn();
    leave.abort();
    await Promise.all(crowd);
    assert.equal((await reader.ended).kind, 'whole');
    while (fleet.held > 0) await turn();
    await fleet.until('node1', ({ models, pending }) => {
      const rows = [...models.values()];
      return pending.length === 0 && rows.every((row) => row.foreignLoad === 0 && !row.draining);
    });
    const health = (await (await fetch(`${fleet.node('node1').url}/health`)).json()) as {
      models: { in_flight: number; queue_depth: number }[];
    };
    for (const row of health.models) assert.deepEqual([row.in_flight, row.queue_depth], [0, 0]);
    for (const model of ['one', 'two']) await answersSoon(fleet, model);
  });
});

/** A client that does as a 503 says: behind the crowd a load can be refused for a moment. */
async function answersSoon(fleet: LocalFleet, model: string): Promise<void> {
  for (;;) {
    const thrown = await answers(fleet, model).then(
      () => null,
      (error: Error) => error,
    );
    if (thrown === null) return;
    if (!thrown.message.includes('was not evicted; try again later')) throw thrown;
    await turn();
  }
}

test('fifty first requests over three nodes make one load', async () => {
  const fleet = await startLocalFleet({ rooms: [1.5, 1.5, 1.5], models: ['one'] });
  try {
    await Promise.all(Array.from({ length: 50 }, () => answers(fleet, 'one')));
    assert.deepEqual(await countsOf(fleet), [1, 0, 0]);
    assert.equal(['node1', 'node2', 'node3'].flatMap((name) => fleet.loadedOn(name)).length, 1);
    assert.equal(fleet.held, 0);
  } finally {
    await fleet.close();
  }
});
