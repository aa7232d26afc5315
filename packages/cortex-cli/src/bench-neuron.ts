/** What `neuron bench` measures: a neuron of its own with one model, or one that runs already. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { discoverySchema, healthSchema, neuronModelsSchema } from 'cortex-core/wire/neuron';
import { CliError } from './cli-error.ts';
import { GatewayClient } from './gateway-client.ts';
import { loadNeuronConfig } from './load-files.ts';
import {
  findLocalModelDirs,
  findShippedModelDir,
  type NamedModel,
  parseModelArgument,
} from './model-files.ts';
import { NeuronProcess } from './neuron-process.ts';
import { ProgressDisplay } from './progress.ts';
import { distDir, type Terminal } from './terminal.ts';

export interface BenchOptions {
  readonly json?: boolean;
  readonly streams: readonly number[];
  readonly tokens: number;
  readonly prompt: number;
  readonly rounds: number;
  readonly url?: string;
  readonly apiKey?: string;
  readonly config?: string;
  readonly context?: number;
  readonly threads?: number;
  readonly memoryMb?: number;
  readonly deviceWorker?: 'auto' | 'process' | 'thread';
}

/** Under which conditions it was measured; null = not known. */
export interface BenchConditions {
  readonly date: string;
  readonly url: string | null;
  readonly file: string | null;
  readonly file_bytes: number | null;
  readonly cpu: string | null;
  readonly cores: number | null;
  readonly memory_mb: number | null;
  readonly load_average: number | null;
  readonly devices: readonly string[];
  readonly device_worker: string | null;
  readonly threads: number | null;
  readonly context: number | null;
  readonly slots: number;
  readonly model_memory_mb: number | null;
  readonly neuron_version: string;
  readonly libllama_version: string | null;
  readonly libllama_package: string | null;
  readonly node_version: string;
}

/** A neuron that serves the model, and how it ends. */
export interface BenchTarget {
  readonly client: GatewayClient;
  readonly model: string;
  readonly conditions: BenchConditions;
  /** Rejects when the neuron dies. */
  readonly died: Promise<never>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** The prompt of the reuse measurement is this many times the others. */
export const reuseFactor = 2;
const contextMargin = 16;
const loadPollMs = 200;

/** A neuron that runs already; nothing is loaded there, and its settings stay as they are. */
export async function attachNeuron(
  model: string,
  options: BenchOptions & { readonly url: string },
  signal: AbortSignal,
): Promise<BenchTarget> {
  const client = new GatewayClient({ endpoint: options.url, apiKey: options.apiKey, program: 'neuron' });
  const conditions = await readConditions(client, model, signal);
  const machine = { url: client.endpoint, file: null, file_bytes: null, device_worker: null };
  return {
    client,
    model,
    conditions: { ...conditions, ...machine, cpu: null, cores: null, memory_mb: null, load_average: null },
    died: new Promise(() => {}),
    close: async () => {},
  };
}

/** A child of this process, ready when the model is loaded. */
export async function startNeuron(
  terminal: Terminal,
  argument: string,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<BenchTarget> {
  const named = parseModelArgument(argument, terminal.cwd);
  const config = toConfig(terminal, named, options);
  const logDir = mkdtempSync(join(tmpdir(), 'neuron-bench-'));
  let tellDeath: (error: CliError) => void = () => {};
  const died = new Promise<never>((_, reject) => {
    tellDeath = reject;
  });
  died.catch(() => {});
  const neuron = new NeuronProcess({
    entry: join(distDir, 'neuron-main.js'),
    config,
    logFile: join(logDir, 'neuron.log'),
    clock: systemClock,
    onDeath: ({ cause, logTail }) => {
      neuron.kill();
      const tail = logTail.map((line) => `\n  ${line}`).join('');
      tellDeath(new CliError(`the neuron ended (${cause}) while it was measured${tail}`));
    },
    onRestart: () => {},
  });
  const close = async (): Promise<void> => {
    await neuron.close();
    rmSync(logDir, { recursive: true, force: true });
  };
  process.once('exit', () => neuron.kill());
  try {
    const { url } = await neuron.start();
    const client = new GatewayClient({ endpoint: url, apiKey: config.key, program: 'neuron' });
    await Promise.race([load(terminal, client, named.id, signal), died]);
    const conditions = await readConditions(client, named.id, signal);
    const { device_worker } = config;
    const own = { ...describeFile(named), ...describeMachine(), url: null, device_worker };
    return { client, model: named.id, conditions: { ...conditions, ...own }, died, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

function toConfig(terminal: Terminal, named: NamedModel, options: BenchOptions): NeuronConfig {
  const { env, cwd } = terminal;
  const path = options.config ?? (env.NEURON_CONFIG || undefined);
  const config = loadNeuronConfig({ path, env, defaults: { listen: '127.0.0.1' } });
  const shipped = findShippedModelDir(distDir);
  const dirs = [named.dir, ...config.models.dirs, shipped, ...findLocalModelDirs(cwd)];
  const slots = Math.max(...options.streams);
  const contextMin = reuseFactor * options.prompt + options.tokens + contextMargin;
  return {
    ...config,
    listen: '127.0.0.1',
    port: 0,
    default_models: [],
    device_worker: options.deviceWorker ?? config.device_worker,
    engine: {
      ...config.engine,
      slots,
      context: options.context ?? contextMin,
      threads: options.threads ?? config.engine.threads,
    },
    cpu: { ...config.cpu, memory_mb: options.memoryMb ?? config.cpu.memory_mb },
    models: { ...config.models, dirs: dirs.filter((dir) => dir !== null) },
    admission: { ...config.admission, max_in_flight: null, max_queue_depth: slots },
  };
}

/** Shows the progress until the model is there. */
async function load(
  terminal: Terminal,
  client: GatewayClient,
  model: string,
  signal: AbortSignal,
): Promise<void> {
  const progress = new ProgressDisplay(terminal.stderr);
  const done = new AbortController();
  const show = async (): Promise<void> => {
    const either = AbortSignal.any([signal, done.signal]);
    while (!either.aborted) {
      await systemClock.sleep(loadPollMs, either);
      const { loading } = healthSchema.parse(await client.get('/health', either));
      for (const each of loading) progress.show(each);
    }
  };
  const shown = show().catch(() => {});
  try {
    await client.post('/models/load', { model_id: model }, signal);
  } finally {
    done.abort();
    await shown;
    progress.clear();
  }
}

type Told = Omit<
  BenchConditions,
  'url' | 'file' | 'file_bytes' | 'cpu' | 'cores' | 'memory_mb' | 'load_average' | 'device_worker'
>;

async function readConditions(client: GatewayClient, model: string, signal: AbortSignal): Promise<Told> {
  const models = neuronModelsSchema.parse(await client.get('/models', signal));
  const found = models.find(({ id, status }) => id === model && status === 'loaded');
  if (found === undefined) {
    throw new CliError(
      `model "${model}" is not loaded on ${client.endpoint}; load it there, or leave out --url`,
    );
  }
  const health = healthSchema.parse(await client.get('/health', signal));
  const discovery = discoverySchema.parse(await client.get('/discovery', signal));
  const version = (await client.get('/version', signal)) as Readonly<Record<string, string | null>>;
  const used = discovery.devices.filter(({ index }) => found.devices.includes(index));
  return {
    date: new Date().toISOString(),
    devices: used.map(({ kind, name }) => `${kind}: ${name}`),
    threads: found.threads ?? null,
    context: found.limit?.context ?? null,
    slots: health.models.find(({ id }) => id === model)?.max_in_flight ?? 0,
    model_memory_mb: found.vram_used_mb,
    neuron_version: version.package_version ?? 'unknown',
    libllama_version: version.libllama_version ?? null,
    libllama_package: version.libllama_package ?? null,
    node_version: version.node_version ?? 'unknown',
  };
}

function describeFile({ id, dir }: NamedModel): Pick<BenchConditions, 'file' | 'file_bytes'> {
  const folder = dir ?? findShippedModelDir(distDir);
  const file = folder === null ? null : join(folder, `${id}.gguf`);
  const stat = file === null ? undefined : statSync(file, { throwIfNoEntry: false });
  if (file === null || stat === undefined) return { file: null, file_bytes: null };
  return { file: basename(file), file_bytes: stat.size };
}

function describeMachine(): Pick<BenchConditions, 'cpu' | 'cores' | 'memory_mb' | 'load_average'> {
  return {
    cpu: cpus()[0]?.model.trim() ?? null,
    cores: cpus().length,
    memory_mb: Math.round(totalmem() / 2 ** 20),
    load_average: Math.round((loadavg()[0] ?? 0) * 100) / 100,
  };
}
