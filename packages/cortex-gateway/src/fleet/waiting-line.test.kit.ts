import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import { type FakeNeuron, type FakeNeuronOptions, startFakeNeuron } from 'testkit/fake-neuron';
import type { z } from 'zod';
import { NeuronClient } from '../upstream/neuron-client.ts';
import { toCatalogue } from './catalogue.ts';
import { Fleet } from './fleet.ts';
import type { FleetSettings } from './fleet-options.ts';
import { toTtl } from './idle-unloads.ts';
import type { FleetEvent } from './lifecycle-deps.ts';

export interface FleetSetup {
  readonly fleet: Fleet;
  readonly clock: FakeClock;
  readonly neurons: readonly FakeNeuron[];
  readonly events: FleetEvent[];
  close(): Promise<void>;
}

/** A fleet on fake neurons behind real sockets, with a clock that stands still. */
export async function setupFleet(
  neurons: readonly FakeNeuronOptions[],
  models: z.input<typeof modelsConfigSchema> = {},
  more: Partial<FleetSettings> & { readonly idleTtlSecs?: number } = {},
): Promise<FleetSetup> {
  const fakes = await Promise.all(neurons.map((options) => startFakeNeuron(options)));
  const config = modelsConfigSchema.parse(models);
  const catalogue = toCatalogue(config);
  const clock = new FakeClock();
  const events: FleetEvent[] = [];
  const fleet = new Fleet({
    settings: {
      nodes: fakes.map(({ url }, i) => ({ name: `n${i}`, endpoint: url })),
      catalogue,
      strategy: 'lru',
      pollIntervalMs: 1e9,
      pollTimeoutMs: 5000,
      missesMax: 3,
      failuresMax: 0,
      defragAfterCycles: 0,
      loadTimeoutMs: 60_000,
      waitersMax: 2000,
      turns: { maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 },
      drain: { timeoutMs: 120_000, cutAfter: false },
      ttlMs: toTtl(config, more.idleTtlSecs ?? 0),
      ...more,
    },
    connect: (spec) => new NeuronClient({ ...spec, key: () => null, clock }),
    clock,
    log: silentLog,
    onEvent: (event) => events.push(event),
    random: () => 0.5,
  });
  await fleet.start();
  const close = async (): Promise<void> => {
    await fleet.close();
    for (const fake of fakes) await fake.close();
  };
  return { fleet, clock, neurons: fakes, events, close };
}
