/**
 * The neuron, put together: devices, models, routes; and taken apart in the opposite order.
 *
 * The listener is up before the first model loads, so that health and progress can be read from the start.
 * Limits: closing takes 5 s at most, whatever the devices and the clients do.
 */
import { readFileSync } from 'node:fs';
import { hostname, platform, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { HttpServer } from 'cortex-core/daemon/http-server';
import type { Log } from 'cortex-core/daemon/log';
import { toAppError } from 'cortex-core/wire/errors';
import type { Discovery, ModelSpec, NeuronHealth, NeuronVersion } from 'cortex-core/wire/neuron';
import { Admission, type AdmissionLimits } from './admission/admission.ts';
import type { ApiDeps } from './api/api-deps.ts';
import { readGitSha } from './api/git-sha.ts';
import { NeuronMetrics } from './api/metrics.ts';
import { createAuthorize, createRoutes, envelopeOf } from './api/routes.ts';
import { createDevices, type DeviceSetup, probeBackendDevices } from './device/create-devices.ts';
import {
  type DiscoverySources,
  discoverDevices,
  type Inventory,
  mergeBackendDevices,
  readDeviceHealth,
  systemSources,
  toWireDevices,
} from './device/discovery.ts';
import { parseFaults } from './device/fault-plan.ts';
import { toOwnerLimits } from './device/owner-device-options.ts';
import { expectedVersion } from './libllama/bindings.gen.ts';
import { findLibrary, type LibraryFiles } from './libllama/find-library.ts';
import { DefaultModels } from './models/activation.ts';
import { ModelLoader } from './models/loader.ts';
import { type DeviceSlot, Placement } from './models/placement.ts';
import { ModelRegistry } from './models/registry.ts';
import { ModelSources } from './models/sources.ts';

export interface NeuronOptions {
  readonly log: Log;
  readonly clock?: Clock;
  /** Used instead of this machine's own devices. */
  readonly devices?: readonly DeviceSlot[];
  /** Relative paths of `default_models` start here; the working directory when left out. */
  readonly baseDir?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly fetch?: typeof fetch;
}

export interface Neuron {
  readonly port: number;
  readonly url: string;
  readonly registry: ModelRegistry;
  /** Resolves when every default model is loaded or has failed. */
  readonly activated: Promise<void>;
  readonly activation: DefaultModels;
  readonly discovery: Discovery;
  /** Idempotent; done within 5 s. */
  close(): Promise<void>;
}

interface Machine {
  readonly inventory: Inventory | null;
  readonly sources: DiscoverySources;
  readonly slots: readonly DeviceSlot[];
  readonly library: LibraryFiles | null;
}

const drainMs = 2000;
const httpGraceMs = 3000;
const shutdownMsMax = 1500;

export async function startNeuron(config: NeuronConfig, options: NeuronOptions): Promise<Neuron> {
  const { log, env = process.env, clock = systemClock } = options;
  const startedMs = clock.monotonicMs();
  const machine = await openMachine(config, options, clock, env);
  const sources = new ModelSources(config.models, { fetch: options.fetch ?? fetch, clock }, env);
  const placement = new Placement(machine.slots);
  const loader = new ModelLoader(sources, placement, config.engine);
  const registry = new ModelRegistry({
    config,
    slots: machine.slots,
    sources,
    loader,
    createGate: (spec) => new Admission(toAdmissionLimits(config, spec), clock),
    clock,
    log,
  });
  const baseDir = options.baseDir ?? process.cwd();
  const activation = new DefaultModels(config.default_models, { registry, clock, log, baseDir });
  const discovery = toDiscovery(machine);
  const gitSha = readOwnGitSha();
  let url = '';
  const deps: ApiDeps = {
    config,
    registry,
    clock,
    log,
    metrics: new NeuronMetrics(),
    version: () => toVersion(machine, gitSha),
    discovery: async () => discovery,
    deviceHealth: () => readHealth(machine, placement),
    activation: () => activation.state,
    uptimeSecs: () => (clock.monotonicMs() - startedMs) / 1000,
    baseUrl: () => url,
  };
  const authorize = createAuthorize(config.key);
  const server = new HttpServer({
    routes: createRoutes(deps),
    log,
    bodyBytesMax: config.limits.max_body_mb * 1024 * 1024,
    envelopeOf,
    ...(authorize === null ? {} : { authorize }),
  });
  const port = await server.listen(config.listen, config.port).catch(async (error: unknown) => {
    await shutDown(machine.slots, clock);
    throw error;
  });
  url = `http://${reachableHost(config.listen)}:${port}`;
  const stop = new AbortController();
  const activated = activation.run(stop.signal);
  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    stop.abort(new Error('the neuron stops'));
    registry.closeAdmission();
    await Promise.all([server.close(httpGraceMs), registry.close(drainMs)]);
    await shutDown(machine.slots, clock);
  };
  return {
    port,
    url,
    registry,
    activated,
    activation,
    discovery,
    close: () => {
      closed ??= close();
      return closed;
    },
  };
}

/** A model runs as many requests at once as it has slots, unless told otherwise. */
function toAdmissionLimits({ admission, engine }: NeuronConfig, spec: ModelSpec): AdmissionLimits {
  return {
    maxInFlight: admission.max_in_flight ?? spec.slots ?? engine.slots,
    maxQueueDepth: admission.max_queue_depth,
    maxWaitMs: admission.max_wait_secs * 1000,
    maxPerPrincipal: admission.max_per_principal,
  };
}

async function openMachine(
  config: NeuronConfig,
  options: NeuronOptions,
  clock: Clock,
  env: NodeJS.ProcessEnv,
): Promise<Machine> {
  const faults = parseFaults(env.NEURON_FAULT);
  if (faults.length > 0) options.log.warn('NEURON_FAULT plants faults in device owners', { faults });
  const sources = systemSources(config.cpu.memory_mb);
  if (options.devices !== undefined) {
    return { inventory: null, sources, slots: options.devices, library: null };
  }
  const library = findConfiguredLibrary(config, env);
  const setup: DeviceSetup = {
    deviceWorker: config.device_worker,
    nativeLog: config.engine.native_log,
    libraryDir: env.NEURON_LIBLLAMA_DIR || config.engine.libllama !== 'auto' ? library.directory : null,
    clock,
    log: options.log,
    limits: toOwnerLimits(config.engine.step_timeout_secs),
    faults,
  };
  let inventory = await discoverDevices(sources);
  if (library.variant === 'cpu') {
    inventory = withoutGpus(inventory, library);
  } else {
    try {
      inventory = mergeBackendDevices(inventory, await probeBackendDevices(setup));
    } catch (thrown) {
      options.log.warn(`libllama's device list is missing: ${toAppError(thrown).message}`);
    }
  }
  const usable = inventory.devices.filter((each) => each.kind !== 'cuda' || !inventory.cudaUnavailableReason);
  const devices = createDevices(usable, setup);
  const slots = devices.flatMap((device, at): DeviceSlot[] => {
    const found = usable[at];
    if (found === undefined) return [];
    const budgetMb = found.kind === 'cpu' ? found.vram_total_mb : null;
    return [{ indices: [found.index], kind: found.kind, device, budgetMb }];
  });
  return { inventory, sources, slots, library };
}

/** Errors: `load_failed`, naming what to install. */
function findConfiguredLibrary(config: NeuronConfig, env: NodeJS.ProcessEnv): LibraryFiles {
  if (env.NEURON_LIBLLAMA_DIR) return findLibrary({ libraryDir: env.NEURON_LIBLLAMA_DIR });
  const { libllama } = config.engine;
  return findLibrary(libllama === 'auto' ? {} : { variant: libllama });
}

/** GPUs that this libllama cannot use stay listed, with the reason; nothing is placed on them. */
function withoutGpus(inventory: Inventory, library: LibraryFiles): Inventory {
  if (!inventory.devices.some((device) => device.kind === 'cuda')) return inventory;
  const name = library.packageName ?? '@node-llama-cpp/linux-x64';
  const reason = `${name} has no CUDA; install ${name}-cuda of the same version`;
  return { ...inventory, cudaUnavailableReason: inventory.cudaUnavailableReason ?? reason };
}

async function shutDown(slots: readonly DeviceSlot[], clock: Clock): Promise<void> {
  const late = new AbortController();
  const timeout = clock.sleep(shutdownMsMax, late.signal).catch(() => {});
  await Promise.race([Promise.allSettled(slots.map((slot) => slot.device.shutdown())), timeout]);
  late.abort();
}

/** A device with a budget is as free as the budget, whatever the machine has beyond it. */
async function readHealth(machine: Machine, placement: Placement): Promise<NeuronHealth['devices']> {
  const { inventory, sources, slots } = machine;
  const measured = inventory === null ? [] : await readDeviceHealth(inventory.devices, sources);
  const health = new Map(measured.map((device) => [device.index, device]));
  for (const slot of slots) {
    const index = slot.indices[0] ?? 0;
    if (slot.budgetMb === null) continue;
    const { freeMb, totalMb } = await placement.budget(slot);
    const free = Math.min(freeMb, health.get(index)?.vram_free_mb ?? freeMb);
    health.set(index, {
      index,
      utilization_pct: null,
      temp_c: null,
      ...health.get(index),
      vram_used_mb: totalMb - free,
      vram_free_mb: free,
    });
  }
  return [...health.values()];
}

function toDiscovery({ inventory, slots }: Machine): Discovery {
  const own = slots.map(({ indices, device, kind, budgetMb }) => ({
    index: indices[0] ?? 0,
    name: device.id,
    kind,
    vram_total_mb: budgetMb ?? 0,
    compute_capability: null,
  }));
  const reason = inventory?.cudaUnavailableReason ?? null;
  return {
    hostname: hostname(),
    os: platform(),
    kernel: release(),
    cuda_version: inventory?.cudaVersion ?? null,
    driver_version: inventory?.driverVersion ?? null,
    devices: inventory === null ? own : [...toWireDevices(inventory.devices)],
    harnesses: ['llamacpp'],
    ...(reason === null ? {} : { cuda_unavailable_reason: reason }),
    max_prompt_tokens: 0,
    package_version: packageVersion,
  };
}

/** An owner is ready only when its libllama said to be the version that the bindings are of. */
function toVersion({ library, slots }: Machine, gitSha: string): NeuronVersion {
  const isOpen = library !== null && slots.some(({ device }) => device.state === 'ready');
  return {
    package_version: packageVersion,
    git_sha: gitSha,
    node_version: process.version,
    platform: `${process.platform}-${process.arch}`,
    libllama_version: isOpen ? expectedVersion : null,
    libllama_package: library?.packageName ?? null,
    features: library?.variant ? [library.variant] : [],
  };
}

const packageVersion = readPackageVersion();

/** An installed package lies in somebody else's checkout. */
function readOwnGitSha(): string {
  if (!import.meta.url.endsWith('/packages/neuron/dist/neuron.js')) return 'unknown';
  return readGitSha(fileURLToPath(new URL('../../../', import.meta.url)));
}

function readPackageVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version?: string }).version ?? 'unknown';
}

function reachableHost(listen: string): string {
  const host = listen === '0.0.0.0' || listen === '::' ? 'localhost' : listen;
  return host.includes(':') ? `[${host}]` : host;
}
