/** Field trap T9: no reading of free memory, and memory that is not back at once after an unload. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import { FakeNeuron, type FakeNeuronOptions } from 'testkit/fake-neuron';
import { type Gateway, startGateway } from '../gateway.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

const ab = { devices: [1500], models: [{ id: 'a', status: 'loaded' as const }, { id: 'b' }] };

async function setup(
  options: FakeNeuronOptions,
  prepare: (neuron: FakeNeuron) => void,
): Promise<{ readonly gateway: Gateway; readonly neuron: FakeNeuron; readonly clock: FakeClock }> {
  const clock = new FakeClock();
  const neuron = new FakeNeuron(options);
  await neuron.listen();
  prepare(neuron);
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
      neurons: [{ name: 'box', endpoint: neuron.url }],
    }),
    modelsConfigSchema.parse({}),
    { log: silentLog, clock },
  );
  cleanups.push(async () => {
    await neuron.close();
    await gateway.close();
  });
  return { gateway, neuron, clock };
}

test('without a reading the resident models are counted: room is made, and not for what can never fit', async () => {
  const huge = { id: 'huge', vramMb: 9000 };
  const { gateway, neuron } = await setup({ ...ab, models: [...ab.models, huge] }, (fake) => {
    fake.reportedFreeMb.set(0, null);
  });
  assert.equal(await gateway.fleet.operations.load('b', null), 'box');
  assert.deepEqual(neuron.events, ['unload a', 'load b']);
  await assert.rejects(gateway.fleet.operations.load('huge', null), /needs 9000 MiB, box has only 1500 MiB/);
  assert.deepEqual(neuron.events, ['unload a', 'load b']);
});

test('the load waits until the unloaded memory is back, and evicts nobody else for it', async () => {
  const { gateway, neuron, clock } = await setup(
    { devices: [2500], models: [...ab.models, { id: 'c', status: 'loaded' as const }] },
    (fake) => {
      fake.onUnload = () => {
        fake.reportedFreeMb.set(0, 500); // as before: the driver has not noticed yet
        return undefined;
      };
    },
  );
  const load = gateway.fleet.operations.load('b', null);
  await neuron.until(() => neuron.counters.unloads === 1);
  for (let polls = neuron.counters.health; neuron.counters.health < polls + 3; ) await clock.advance(250);
  assert.equal(neuron.counters.loads, 0);
  neuron.reportedFreeMb.delete(0);
  while (neuron.counters.loads === 0) await clock.advance(250);
  assert.equal(await load, 'box');
  assert.deepEqual(neuron.events, ['unload a', 'load b']);
});

test('memory that never comes back does not hold the load for ever', async () => {
  const { gateway, neuron, clock } = await setup(ab, (fake) => {
    fake.onUnload = () => {
      fake.reportedFreeMb.set(0, 500);
      return undefined;
    };
  });
  let outcome = 'none';
  const load = gateway.fleet.operations.load('b', null).then(
    () => {
      outcome = 'loaded';
    },
    (cause: Error) => {
      outcome = cause.message;
    },
  );
  while (outcome === 'none') await clock.advance(250);
  await load;
  assert.match(outcome, /b/);
  assert.equal(neuron.counters.unloads, 1);
  assert.equal(gateway.fleet.view().nodes[0]?.pending.length, 0);
});
