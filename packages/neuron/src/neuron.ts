/**
 * The neuron, put together: devices, models, routes; and taken apart in the opposite order.
 *
 * The listener is up before the first model loads, so that health and progress can be read from the start.
 * Limits: closing takes 5 s at most, whatever the devices and the clients do.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { HttpServer } from 'cortex-core/daemon/http-server';
import type { Log } from 'cortex-core/daemon/log';
import type { Discovery, ModelSpec, NeuronVersion } from 'cortex-core/wire/neuron';
import { Admission, type AdmissionLimits } from './admission/admission.ts';
import type { ApiDeps } from './api/api-deps.ts';
import { readGitSha } from './api/git-sha.ts';
import { NeuronMetrics } from './api/metrics.ts';
import { createAuthorize, createRoutes, envelopeOf } from './api/routes.ts';
import { expectedVersion } from './libllama/bindings.gen.ts';
import { LiveConfig, type NeuronReload } from './live-config.ts';
import { type GivenDevices, type Machine, openMachine, readHealth, toDiscovery } from './machine.ts';
import { DefaultModels } from './models/activation.ts';
import type { DeviceSlot } from './models/choose-target.ts';
import { slotChoices } from './models/load-plan.ts';
import { ModelLoader } from './models/loader.ts';
import { MemoryCorrections } from './models/memory-corrections.ts';
import { Placement } from './models/placement.ts';
import { PromptModels } from './models/prompt-models.ts';
import { ModelRegistry, type RegistryDeps } from './models/registry.ts';
import { ModelSources } from './models/sources.ts';

export interface NeuronOptions extends GivenDevices {
  readonly log: Log;
  readonly clock?: Clock;
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
  /** New configuration, at once and without disturbing a request; what needs a restart is left and told. */
  reload(config: NeuronConfig): ReloadReport;
  /** Idempotent; done within 5 s. */
  close(): Promise<void>;
}

const drainMs = 2000;
const httpGraceMs = 3000;
const shutdownMsMax = 1500;

export async function startNeuron(config: NeuronConfig, options: NeuronOptions): Promise<Neuron> {
  const { log, env = process.env, clock = systemClock, baseDir = process.cwd() } = options;
  const startedMs = clock.monotonicMs();
  const live = new LiveConfig(config);
  const machine = await openMachine(config, options, { env, clock, log });
  const sources = new ModelSources(config.models, { fetch: options.fetch ?? fetch, clock }, env);
  const placement = new Placement(machine.slots, machine.placement);
  const corrections = await openCorrections(config, log);
  const loader = new ModelLoader(sources, placement, config.engine, corrections);
  const registry = createRegistry(live, { machine, sources, loader, clock, log });
  const promptModels = createPromptModels(machine, clock);
  const activation = new DefaultModels(config.default_models, { registry, clock, log, baseDir });
  const gitSha = readOwnGitSha();
  let url = '';
  const deps: ApiDeps = {
    get config() {
      return live.config;
    },
    registry,
    promptModels,
    clock,
    log,
    metrics: new NeuronMetrics(),
    version: () => toVersion(machine, gitSha),
    discovery: async () => ({ ...discovery, max_prompt_tokens: registry.largestInput() }),
    instance: randomUUID(),
    deviceHealth: () => readHealth(machine, placement, (slot) => registry.unloadsOn(slot)),
    activation: () => activation.state,
    uptimeSecs: () => (clock.monotonicMs() - startedMs) / 1000,
    baseUrl: (host) => (host !== null && isWildcard(config.listen) ? `http://${host}` : url),
  };
  const discovery = toDiscovery(machine, packageVersion, deps.instance);
  const server = createServer(live, deps);
  const port = await server.listen(config.listen, config.port).catch(async (error: unknown) => {
    await shutDown(machine.slots, placement, clock);
    throw error;
  });
  url = `http://${reachableHost(config.listen)}:${port}`;
  const stop = new AbortController();
  const activated = activation.run(stop.signal);
  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    stop.abort(new Error('the neuron stops'));
    registry.closeAdmission();
    await Promise.all([server.close(httpGraceMs), registry.close(drainMs), promptModels?.close()]);
    await Promise.all([shutDown(machine.slots, placement, clock), corrections.written()]);
  };
  return {
    port,
    url,
    registry,
    activated,
    activation,
    discovery,
    reload: (next) => applyReload(live.replace(next), live, registry, activation, stop.signal),
    close: () => {
      closed ??= close();
      return closed;
    },
  };
}

interface RegistryParts extends Pick<RegistryDeps, 'sources' | 'loader' | 'clock' | 'log'> {
  readonly machine: Machine;
}

function createRegistry(live: LiveConfig, { machine, ...parts }: RegistryParts): ModelRegistry {
  return new ModelRegistry({
    ...parts,
    get config() {
      return live.config;
    },
    slots: machine.slots,
    createGate: (spec) => new Admission(toAdmissionLimits(live.config, spec), parts.clock),
  });
}

function createPromptModels({ openVocabularies: open }: Machine, clock: Clock): PromptModels | null {
  return open === null ? null : new PromptModels({ open, clock });
}

/** Limits and key are read at each use, so that a reload changes them. */
function createServer(live: LiveConfig, deps: ApiDeps): HttpServer {
  return new HttpServer({
    routes: createRoutes(deps),
    log: deps.log,
    get bodyBytesMax() {
      return live.config.limits.max_body_mb * 1024 * 1024;
    },
    envelopeOf,
    authorize: createAuthorize(() => live.config.key),
  });
}

function applyReload(
  { report, added }: NeuronReload,
  live: LiveConfig,
  registry: ModelRegistry,
  activation: DefaultModels,
  signal: AbortSignal,
): ReloadReport {
  registry.setLimits((spec) => toAdmissionLimits(live.config, spec));
  if (added.length > 0) void activation.add(added, signal);
  return report;
}

/** A model runs as many requests at once as it has slots, unless told otherwise. */
function toAdmissionLimits({ admission, engine }: NeuronConfig, spec: ModelSpec): AdmissionLimits {
  return {
    maxInFlight: admission.max_in_flight ?? slotChoices(spec, engine)[0],
    maxQueueDepth: admission.max_queue_depth,
    maxWaitMs: admission.max_wait_secs * 1000,
    maxPerPrincipal: admission.max_per_principal,
  };
}

async function openCorrections({ state_dir }: NeuronConfig, log: Log): Promise<MemoryCorrections> {
  const file = state_dir === undefined ? null : join(state_dir, 'memory-corrections.json');
  const corrections = new MemoryCorrections(file, log);
  await corrections.read();
  return corrections;
}

async function shutDown(slots: readonly DeviceSlot[], placement: Placement, clock: Clock): Promise<void> {
  const late = new AbortController();
  const timeout = clock.sleep(shutdownMsMax, late.signal).catch(() => {});
  const owners = [...slots.map((slot) => slot.device.shutdown()), placement.close()];
  await Promise.race([Promise.allSettled(owners), timeout]);
  late.abort();
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

/** Then only whoever asks knows an address: `localhost` would lead another machine to itself. */
function isWildcard(listen: string): boolean {
  return listen === '0.0.0.0' || listen === '::';
}

function reachableHost(listen: string): string {
  const host = isWildcard(listen) ? 'localhost' : listen;
  return host.includes(':') ? `[${host}]` : host;
}
