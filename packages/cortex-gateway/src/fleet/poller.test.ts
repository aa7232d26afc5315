import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import { toCatalogue } from './catalogue.ts';
import { NodeState } from './node-state.ts';
import { Poller } from './poller.ts';

const answers: Readonly<Record<string, unknown>> = {
  '/discovery': {
    ...{ hostname: 'n', os: 'linux', kernel: '0', cuda_version: null, driver_version: null },
    ...{ devices: [], harnesses: ['llamacpp'] },
  },
  '/models': [],
  '/health': {
    ...{ uptime_secs: 1, devices: [], models: [], loading: [] },
    activation: { state: 'ready', pending: [], in_progress: null, completed: [], failed: [] },
  },
};

test('nodes that are polled together at first drift apart: a tenth sooner to a tenth later', async () => {
  const clock = new FakeClock();
  const polledMs: number[] = [];
  const getJson = async (path: string): Promise<unknown> => {
    if (path === '/health') polledMs.push(clock.monotonicMs());
    return answers[path];
  };
  const nodes = ['a', 'b'].map((name) => {
    const client = { getJson } as unknown as NeuronClient;
    const service = { clock, failuresMax: () => 0, onChange: () => {}, onCircuit: () => {} };
    return new NodeState(
      { name, endpoint: 'http://n' },
      client,
      toCatalogue(modelsConfigSchema.parse({})),
      service,
    );
  });
  let draws = 0;
  const poller = new Poller({
    ...{ clock, log: silentLog, onAnother: () => {}, onPolled: () => {} },
    settings: () => ({ pollIntervalMs: 10_000, pollTimeoutMs: 5000, missesMax: 3 }),
    random: () => draws++ % 2,
  });
  await poller.add(nodes);
  await clock.advance(11_000);
  assert.deepEqual(polledMs, [0, 0, 9000, 11_000]);
  poller.close();
  assert.equal(clock.pending, 0);
});
