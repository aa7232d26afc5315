/** A gateway with neurons and providers over real sockets. */
import { after } from 'node:test';
import { type CortexConfig, cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { type Log, silentLog } from 'cortex-core/daemon/log';
import { type FakeNeuron, type FakeNeuronOptions, startFakeNeuron } from 'testkit/fake-neuron';
import { type FakeProvider, startFakeProvider } from 'testkit/fake-provider';
import { type Gateway, startGateway } from '../gateway.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

export const key = 'sk-provider-secret';

export interface Setup {
  readonly gateway: Gateway;
  readonly openai: FakeProvider;
  readonly anthropic: FakeProvider;
  readonly neurons: readonly FakeNeuron[];
  readonly config: (providers: readonly object[]) => CortexConfig;
}

export interface SetupOptions {
  readonly neurons?: readonly FakeNeuronOptions[];
  /** Over what both providers have: far-openai serves `gpt`, far-anthropic serves `claude`. */
  readonly openai?: object;
  readonly anthropic?: object;
  readonly config?: object;
  readonly models?: object;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly log?: Log;
  readonly clock?: Clock;
}

export async function setUpProviders(options: SetupOptions = {}): Promise<Setup> {
  const [openai, anthropic] = await Promise.all([
    startFakeProvider('openai'),
    startFakeProvider('anthropic'),
  ]);
  const neurons = await Promise.all((options.neurons ?? []).map((each) => startFakeNeuron(each)));
  const listen = { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 };
  const { gateway: more = {}, ...rest } = (options.config ?? {}) as { gateway?: object };
  const base = { name: 'far-openai', kind: 'openai', url: `${openai.url}/v1`, key_env: 'FAR_KEY' };
  const other = { name: 'far-anthropic', kind: 'anthropic', url: anthropic.url, key_env: 'FAR_KEY' };
  const far = [{ id: 'gpt', upstream: 'vendor/gpt-1' }];
  const claude = [{ id: 'claude', upstream: 'claude-far' }];
  const config = (providers: readonly object[]): CortexConfig =>
    cortexConfigSchema.parse({
      ...rest,
      gateway: { ...listen, stream_check_every: 1, ...more },
      failover: { give_up_secs: 1, attempts: 3, budget_burst: 100 },
      neurons: neurons.map(({ url }, at) => ({ name: `n${at}`, endpoint: url })),
      providers,
    });
  const gateway = await startGateway(
    config([
      { ...base, models: far, ...options.openai },
      { ...other, models: claude, ...options.anthropic },
    ]),
    modelsConfigSchema.parse(options.models ?? {}),
    {
      log: options.log ?? silentLog,
      clock: options.clock ?? systemClock,
      env: options.env ?? { FAR_KEY: key },
    },
  );
  cleanups.push(async () => {
    await Promise.all([openai.close(), anthropic.close(), ...neurons.map((each) => each.close())]);
    await gateway.close();
  });
  return { gateway, openai, anthropic, neurons, config };
}

export function ask(gateway: Gateway, path: string, body: object, headers: Record<string, string> = {}) {
  return fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), headers });
}

/** One question in every dialect that clients speak, with the text of its answers. */
export const dialects = {
  chat: {
    path: '/v1/chat/completions',
    body: (model: string) => ({ model, messages: [{ role: 'user', content: 'hi' }] }),
  },
  messages: {
    path: '/v1/messages',
    body: (model: string) => ({ model, max_tokens: 50, messages: [{ role: 'user', content: 'hi' }] }),
  },
  responses: { path: '/v1/responses', body: (model: string) => ({ model, input: 'hi' }) },
  ollama: {
    path: '/api/chat',
    body: (model: string) => ({ model, messages: [{ role: 'user', content: 'hi' }] }),
  },
} as const;
