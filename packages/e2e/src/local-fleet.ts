/**
 * A fleet on this machine for tests: real neurons in processes of their own, each with its budget, and the
 * gateway inside the test, so that a test can look at the fleet's state. A killed neuron stays dead until the
 * test restarts it at the same address. Nothing here sleeps: a start is the child's own word, a state is what
 * the next poll finds.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { loadConfig } from 'cortex-core/config/load';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type Gateway, startGateway } from 'cortex-gateway/gateway';
import { tinyFile } from './stack.ts';

export interface LocalFleetOptions {
  /** How many models each node has room for: 1.5 is one, with some memory over. */
  readonly rooms: readonly number[];
  /** Names under which every node has cortex-tiny. */
  readonly models: readonly string[];
  /** Rows of models.toml, beside what the nodes report. */
  readonly catalogue?: readonly object[];
  readonly eviction?: Partial<CortexConfig['eviction']>;
  /** Requests that a model runs at once; the memory of a model grows with it. */
  readonly slots?: number;
}

export interface FleetAnswer {
  readonly status: number;
  readonly text: string;
  readonly route: string;
}

type NodeView = ReturnType<Gateway['fleet']['view']>['nodes'][number];

const neuronEntry = fileURLToPath(new URL('../../cortex-cli/dist/neuron-main.js', import.meta.url));
const context = 4096;
const pollsMax = 5000;

export class LocalFleet {
  readonly gateway: Gateway;
  readonly nodes: ReadonlyMap<string, LocalNeuron>;
  readonly #dir: string;

  constructor(gateway: Gateway, nodes: ReadonlyMap<string, LocalNeuron>, dir: string) {
    this.gateway = gateway;
    this.nodes = nodes;
    this.#dir = dir;
  }

  node(name: string): LocalNeuron {
    const found = this.nodes.get(name);
    if (found === undefined) throw new Error(`no node ${name}`);
    return found;
  }

  view(name: string): NodeView {
    const found = this.gateway.fleet.view().nodes.find((node) => node.name === name);
    if (found === undefined) throw new Error(`no node ${name} in the fleet`);
    return found;
  }

  /** Models loaded there, as the gateway sees it. */
  loadedOn(name: string): readonly string[] {
    const models = [...this.view(name).models.values()];
    return models.filter(({ status }) => status === 'loaded').map(({ id }) => id);
  }

  /** Polls a node until what is known of it passes `test`. */
  async until(name: string, test: (node: NodeView) => boolean): Promise<void> {
    for (let polls = 0; polls < pollsMax; polls++) {
      if (test(this.view(name))) return;
      await this.gateway.fleet.pollNow(name);
    }
    const { models, ...node } = this.view(name);
    throw new Error(`never came to pass: ${JSON.stringify({ ...node, models: [...models.values()] })}`);
  }

  /** Polls all nodes until a counter of the gateway has that value. */
  async untilMetric(pattern: RegExp, value: number): Promise<void> {
    for (let polls = 0; polls < pollsMax; polls++) {
      if ((await this.metric(pattern)) === value) return;
      await Promise.all([...this.nodes.keys()].map((name) => this.gateway.fleet.pollNow(name)));
    }
    throw new Error(`${pattern} never became ${value}`);
  }

  /** Requests that hold a model or wait for one: 0 when nothing runs, whatever happened before. */
  get held(): number {
    const models = this.gateway.fleet.view().nodes.flatMap((node) => [...node.models.values()]);
    return models.reduce((total, model) => total + model.leases, this.gateway.fleet.waitingCount);
  }

  /** The whole answer, streamed or not. */
  async ask(model: string, more: object = {}): Promise<FleetAnswer> {
    const answer = await this.open(model, more);
    return {
      status: answer.status,
      text: await answer.text(),
      route: answer.headers.get('x-cortex-route') ?? '',
    };
  }

  open(model: string, more: object = {}, signal: AbortSignal | null = null): Promise<Response> {
    const messages = [{ role: 'user', content: 'What is the capital of France?' }];
    const body = JSON.stringify({ model, messages, temperature: 0, ...more });
    return fetch(`${this.gateway.url}/v1/chat/completions`, { method: 'POST', body, signal });
  }

  /** A stream of that many tokens, whatever the model would like. */
  openStream(model: string, tokens: number): Promise<Response> {
    return this.open(model, { stream: true, max_tokens: tokens, ignore_eos: true });
  }

  async metric(pattern: RegExp): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.gateway.metricsPort}/metrics`)).text();
    const lines = text.split('\n').filter((line) => pattern.test(line));
    return lines.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  async close(): Promise<void> {
    await this.gateway.close();
    await Promise.all([...this.nodes.values()].map((node) => node.kill()));
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

export class LocalNeuron {
  readonly name: string;
  #config: NeuronConfig;
  #child: ChildProcess | null = null;
  url = '';

  constructor(name: string, config: NeuronConfig) {
    this.name = name;
    this.#config = config;
  }

  /** Resolves when it listens: on any free port at first, on the same one afterwards. */
  start(): Promise<void> {
    const child = fork(neuronEntry, ['--supervised'], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child = child;
    return new Promise((resolve, reject) => {
      child.once('exit', (code, signal) => reject(new Error(`${this.name} ended: ${code ?? signal}`)));
      child.once('message', (message: { type: string; url: string; port: number; message?: string }) => {
        if (message.type !== 'ready') return reject(new Error(`${this.name}: ${message.message}`));
        this.url = message.url;
        this.#config = { ...this.#config, port: message.port };
        resolve();
      });
      child.send({ type: 'start', config: this.#config });
    });
  }

  /** SIGKILL. Resolves when it is gone. */
  kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
    return new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
    });
  }
}

/** Resolves when every node answers. Nodes are `node1`, `node2`, ...; nothing is loaded. */
export async function startLocalFleet(options: LocalFleetOptions): Promise<LocalFleet> {
  const dir = mkdtempSync(join(tmpdir(), 'cortex-fleet-'));
  for (const model of options.models) copyFileSync(tinyFile, join(dir, `${model}.gguf`));
  const needMb = await measureNeed(dir, options);
  const nodes = options.rooms.map((rooms, index) => {
    return new LocalNeuron(`node${index + 1}`, neuronConfig(dir, options, Math.floor(needMb * rooms)));
  });
  try {
    await Promise.all(nodes.map((node) => node.start()));
    const gateway = await startGateway(
      loadConfig('cortex', {
        defaults: {
          gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 0.5 },
          eviction: { ...options.eviction },
          neurons: nodes.map(({ name, url }) => ({ name, endpoint: url })),
        },
      }),
      loadConfig('models', { defaults: { models: [...(options.catalogue ?? [])] as { id: string }[] } }),
      { log: silentLog },
    );
    return new LocalFleet(gateway, new Map(nodes.map((node) => [node.name, node])), dir);
  } catch (thrown) {
    await Promise.all(nodes.map((node) => node.kill()));
    throw thrown;
  }
}

function neuronConfig(dir: string, { slots = 4 }: LocalFleetOptions, memoryMb: number | null): NeuronConfig {
  return loadConfig('neuron', {
    defaults: {
      listen: '127.0.0.1',
      port: 0,
      device_worker: 'thread',
      // one thread: ggml's threads wait for each other by spinning, which busy test machines punish
      engine: { context, slots, threads: 1, prefix_cache_mb: 16 },
      ...(memoryMb === null ? {} : { cpu: { memory_mb: memoryMb } }),
      admission: { max_per_principal: 0, max_queue_depth: 64 },
      models: { dirs: [dir], hf_cache: join(dir, 'no-hub') },
      log: { level: 'silent' },
    },
  });
}

/** MiB that a neuron says a load takes. */
async function measureNeed(dir: string, options: LocalFleetOptions): Promise<number> {
  const probe = new LocalNeuron('probe', neuronConfig(dir, options, null));
  try {
    await probe.start();
    const [model] = (await (await fetch(`${probe.url}/models`)).json()) as { vram_estimate_mb: number }[];
    return model?.vram_estimate_mb ?? 0;
  } finally {
    await probe.kill();
  }
}
