/** For the tests: a gateway over fake neurons, on a clock of the test's own where it asks for one. */
import { after } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import type { Clock } from 'cortex-core/daemon/clock';
import { type Log, silentLog } from 'cortex-core/daemon/log';
import { type FakeNeuron, type FakeNeuronOptions, startFakeNeuron } from 'testkit/fake-neuron';
import type { z } from 'zod';
import { type Gateway, startGateway } from '../gateway.ts';
import type { Fleet } from './fleet.ts';
import type { NodeState } from './node-state.ts';

type CortexInput = z.input<typeof cortexConfigSchema>;
type ModelsInput = z.input<typeof modelsConfigSchema>;

export interface FleetSetup {
  readonly gateway: Gateway;
  readonly fleet: Fleet;
  readonly neurons: readonly FakeNeuron[];
}

interface SetupOptions {
  readonly models?: ModelsInput;
  readonly config?: CortexInput;
  readonly clock?: Clock;
  readonly log?: Log;
}

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** Neurons n0, n1, ...; polls only when told, unless the configuration says otherwise. */
export async function setUpFleet(
  options: readonly FakeNeuronOptions[],
  setup: SetupOptions = {},
): Promise<FleetSetup> {
  const neurons = await Promise.all(options.map((each) => startFakeNeuron(each)));
  for (const neuron of neurons) cleanups.push(() => neuron.close());
  const gateway = await startGatewayOver(neurons, setup);
  return { gateway, fleet: gateway.fleet, neurons };
}

export async function startGatewayOver(
  neurons: readonly FakeNeuron[],
  { models = {}, config = {}, clock, log = silentLog }: SetupOptions = {},
): Promise<Gateway> {
  const gateway = await startGateway(
    cortexConfigOver(neurons, config),
    modelsConfigSchema.parse(models),
    clock === undefined ? { log } : { log, clock },
  );
  cleanups.push(() => gateway.close());
  return gateway;
}

export function cortexConfigOver(neurons: readonly FakeNeuron[], config: CortexInput = {}) {
  return cortexConfigSchema.parse({
    neurons: neurons.map((fake, i) => ({ name: `n${i}`, endpoint: fake.url })),
    ...config,
    gateway: {
      listen: '127.0.0.1:0',
      metrics_listen: '127.0.0.1:0',
      poll_interval_secs: 3600,
      ...config.gateway,
    },
  });
}

export function nodeOf(fleet: Fleet, name: string): NodeState {
  const node = fleet.nodes().find((each) => each.name === name);
  if (node === undefined) throw new Error(`no node ${name}`);
  return node;
}

export function askChat(gateway: Gateway, model: string, more: object = {}): Promise<Response> {
  return post(gateway, '/v1/chat/completions', {
    model,
    messages: [{ role: 'user', content: 'hi' }],
    ...more,
  });
}

export function post(gateway: Gateway, path: string, body: unknown): Promise<Response> {
  return fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body) });
}

/** Moves the clock in steps until `test` holds: between two steps sockets get their turn. */
export async function advanceUntil(
  clock: { advance(ms: number): Promise<void> },
  stepMs: number,
  test: () => boolean,
): Promise<void> {
  for (let i = 0; i < 10_000 && !test(); i++) {
    await clock.advance(stepMs);
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (!test()) throw new Error('never came true');
}
