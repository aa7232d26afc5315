/** Shared by the tests of failover: a gateway over scripted neurons. Not part of the product. */
import assert from 'node:assert/strict';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import type { Clock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import { type FakeNeuron, type FakeNeuronOptions, startFakeNeuron } from 'testkit/fake-neuron';
import type { z } from 'zod';
import { type Gateway, startGateway } from '../gateway.ts';

type CortexConfigInput = z.input<typeof cortexConfigSchema>;

export interface Setup {
  readonly gateway: Gateway;
  readonly neurons: readonly FakeNeuron[];
  close(): Promise<void>;
}

export async function setup(
  neurons: readonly FakeNeuronOptions[],
  config: CortexConfigInput = {},
  clock?: Clock,
): Promise<Setup> {
  const fakes = await Promise.all(neurons.map((options) => startFakeNeuron(options)));
  const gateway = await startGateway(
    cortexConfigSchema.parse({
      ...config,
      gateway: {
        listen: '127.0.0.1:0',
        metrics_listen: '127.0.0.1:0',
        poll_interval_secs: 3600,
        ...config.gateway,
      },
      neurons: fakes.map((fake, at) => ({ name: `n${at}`, endpoint: fake.url })),
    }),
    modelsConfigSchema.parse({}),
    { log: silentLog, ...(clock === undefined ? {} : { clock }) },
  );
  return {
    gateway,
    neurons: fakes,
    close: async () => {
      for (const fake of fakes) await fake.close();
      await gateway.close();
    },
  };
}

export function post(
  gateway: Gateway,
  path: string,
  body: unknown,
  init: RequestInit = {},
): Promise<Response> {
  return fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), ...init });
}

export const ask = (more: object = {}) => ({
  model: 'm',
  messages: [{ role: 'user', content: 'hi' }],
  ...more,
});

export const loaded = (more: object = {}) => ({ id: 'm', status: 'loaded' as const, weights: 'w', ...more });

/** The text of an OpenAI stream, and how it ended. */
export function read(stream: string): { readonly text: string; readonly end: unknown } {
  const events = new SseParser().push(Buffer.from(stream)).map(({ data }) => {
    return data === '[DONE]' ? data : JSON.parse(data);
  });
  const text = events.map((event) => event.choices?.[0]?.delta?.content ?? '').join('');
  const end = events.at(-1);
  return { text, end: end?.error?.code ?? end };
}

export async function metric(gateway: Gateway, line: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
  const found = text.split('\n').find((each) => each.startsWith(`${line} `));
  return found === undefined ? 0 : Number(found.slice(line.length + 1));
}

export function assertNothingHeld(gateway: Gateway): void {
  for (const node of gateway.fleet.nodes()) assert.equal(node.leaseCount, 0, node.name);
  assert.equal(gateway.fleet.waitingCount, 0);
}
