/** What `cortex up` runs with: flags over files and environment over its own defaults. */
import { availableParallelism, hostname, totalmem } from 'node:os';
import { join } from 'node:path';
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { parseListen } from 'cortex-core/config/fields';
import type { ModelsConfig } from 'cortex-core/config/models-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { modelSpecSchema } from 'cortex-core/wire/neuron';
import { loadGatewayConfig, loadNeuronConfig } from './load-files.ts';
import { type LocalNode, type MachineSize, planLocalNodes } from './local-nodes.ts';
import { findLocalModelDirs, findShippedModelDir, parseModelArgument, SHIPPED_MODEL } from './model-files.ts';
import { stateDir } from './state-dir.ts';

export interface UpOptions {
  readonly host?: string;
  readonly port?: number;
  readonly metricsPort?: number;
  readonly neuronPort?: number;
  readonly model?: readonly string[];
  readonly config?: string;
  readonly neuronConfig?: string;
  readonly memoryMb?: number;
  readonly nodes?: number;
  readonly budgets?: readonly number[];
  readonly deviceWorker?: 'auto' | 'process' | 'thread';
}

export interface UpConfig {
  readonly gateway: CortexConfig;
  readonly models: ModelsConfig;
  /** The neurons to start. */
  readonly nodes: readonly LocalNode[];
  /** Models without which `up` has failed: those of --model, or the one that ships. */
  readonly required: readonly string[];
  /** The files it came from, also those that are not there yet. */
  readonly files: readonly string[];
}

export interface Surroundings {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The folder from which the shipped model is looked for, upwards. */
  readonly installedAt: string;
  /** This machine, when left out. */
  readonly machine?: MachineSize;
}

const HOST = '127.0.0.1';
/** Neurons on this machine: polling it often costs nothing. */
const POLL_INTERVAL_SECS = 1;

export function buildUpConfig(options: UpOptions, around: Surroundings): UpConfig {
  const configPath = options.config ?? (around.env.CORTEX_CONFIG || undefined);
  const neuronPath = options.neuronConfig ?? (around.env.NEURON_CONFIG || undefined);
  const { gateway, models, modelsPath } = loadGatewayConfig({
    path: configPath,
    env: around.env,
    defaults: {
      models_config: configPath === undefined ? join(around.cwd, 'models.toml') : 'models.toml',
      state_dir: stateDir(around.env),
      gateway: {
        listen: `${HOST}:31313`,
        metrics_listen: `${HOST}:31314`,
        poll_interval_secs: POLL_INTERVAL_SECS,
      },
    },
  });
  const neuron = loadNeuronConfig({
    path: neuronPath,
    env: around.env,
    defaults: { listen: HOST, state_dir: stateDir(around.env) },
  });
  const chosen = chooseModels(options, neuron, around);
  return {
    gateway: {
      ...gateway,
      gateway: {
        ...gateway.gateway,
        listen: withFlags(gateway.gateway.listen, options.host, options.port),
        metrics_listen: withFlags(gateway.gateway.metrics_listen, options.host, options.metricsPort),
        neuron_key: gateway.gateway.neuron_key ?? neuron.key,
      },
    },
    models,
    nodes: planLocalNodes(
      options,
      {
        ...neuron,
        port: options.neuronPort ?? neuron.port,
        device_worker: options.deviceWorker ?? neuron.device_worker,
        models: { ...neuron.models, dirs: chosen.dirs },
        default_models: chosen.specs,
      },
      chosen.required,
      around.machine ?? thisMachine(),
    ),
    required: chosen.required,
    files: [configPath, modelsPath, neuronPath].filter((path) => path !== undefined),
  };
}

function thisMachine(): MachineSize {
  // 0 or an absurdly large number where no limit is set (libuv: uv_get_constrained_memory).
  const limit = process.constrainedMemory();
  const bytes = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  return { memoryMb: Math.floor(bytes / 2 ** 20), cpus: availableParallelism() };
}

/** The gateway's configuration with the neuron that was started, under a name that is still free. */
export function withLocalNeuron(config: CortexConfig, endpoint: string, host = hostname()): CortexConfig {
  if (config.neurons.some((neuron) => neuron.endpoint === endpoint)) return config;
  const isTaken = (name: string): boolean => config.neurons.some((neuron) => neuron.name === name);
  let name = host === '' ? 'local' : host;
  for (let n = 2; isTaken(name); n++) name = `${host}-${n}`;
  return { ...config, neurons: [...config.neurons, { name, endpoint }] };
}

function chooseModels(
  options: UpOptions,
  neuron: NeuronConfig,
  around: Surroundings,
): {
  readonly dirs: string[];
  readonly specs: NeuronConfig['default_models'];
  readonly required: readonly string[];
} {
  const shipped = findShippedModelDir(around.installedAt);
  const named = (options.model ?? []).map((argument) => parseModelArgument(argument, around.cwd));
  const dirs = [
    // First those named on the command line: where two files have the same name, they are meant.
    ...named.flatMap((model) => (model.dir === null ? [] : [model.dir])),
    ...neuron.models.dirs,
    ...(shipped === null ? [] : [shipped]),
    ...findLocalModelDirs(around.cwd),
  ];
  const configured = named.length === 0 ? neuron.default_models : [];
  const wantsShipped = named.length === 0 && configured.length === 0 && shipped !== null;
  const required = [...new Set(wantsShipped ? [SHIPPED_MODEL] : named.map((model) => model.id))];
  const specs = required.map(
    (id) =>
      neuron.default_models.find((spec) => spec.model_id === id) ?? modelSpecSchema.parse({ model_id: id }),
  );
  return { dirs: [...new Set(dirs)], specs: [...specs, ...configured], required };
}

function withFlags(listen: string, host: string | undefined, port: number | undefined): string {
  const parsed = parseListen(listen) ?? { host: HOST, port: 0 };
  const chosen = host ?? parsed.host;
  return `${chosen.includes(':') ? `[${chosen}]` : chosen}:${port ?? parsed.port}`;
}
