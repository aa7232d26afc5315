/**
 * This machine as the neuron uses it: its devices with their owners, its libllama, and what it says of
 * them.
 */
import { existsSync, readdirSync } from 'node:fs';
import { hostname, platform, release } from 'node:os';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import type { Clock } from 'cortex-core/daemon/clock';
import { type Log, silentLog } from 'cortex-core/daemon/log';
import { toAppError } from 'cortex-core/wire/errors';
import { type Discovery, type NeuronHealth, wireVersion } from 'cortex-core/wire/neuron';
import {
  createDevices,
  createGroupDevice,
  type DeviceSetup,
  probeBackendDevices,
} from './device/create-devices.ts';
import { DeviceHealthReader } from './device/device-health.ts';
import {
  type DeviceHealth,
  discoverDevices,
  type Inventory,
  systemSources,
  toWireDevices,
} from './device/discovery.ts';
import { parseFaults } from './device/fault-plan.ts';
import { toOwnerLimits } from './device/owner-device-options.ts';
import { chooseUsableDevices, type UsableDevices } from './device/usable-devices.ts';
import { createVocabularyOwner, type VocabularyOwner } from './device/vocabulary-owner.ts';
import { pinnedRelease } from './libllama/bindings.gen.ts';
import { findLibrary, type LibraryFiles } from './libllama/find-library.ts';
import type { DeviceSlot } from './models/choose-target.ts';
import type { OpenGroup, Placement, PlacementOptions } from './models/placement.ts';

export interface Machine {
  readonly inventory: Inventory | null;
  /** Null where the devices were given. */
  readonly health: DeviceHealthReader | null;
  readonly slots: readonly DeviceSlot[];
  readonly library: LibraryFiles | null;
  readonly placement: PlacementOptions;
  /** Spawns what reads vocabularies; null where there is no library to read them with. */
  readonly openVocabularies: (() => VocabularyOwner) | null;
}

export interface GivenDevices {
  /** Used instead of this machine's own devices. */
  readonly devices?: readonly DeviceSlot[];
  /** Makes the owner of a group of those; without it they cannot be grouped. */
  readonly openGroup?: OpenGroup;
}

interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly log: Log;
}

/** What `cortex doctor` shows. */
export interface MachineReport {
  readonly devices: Discovery['devices'];
  readonly cudaVersion: string | null;
  readonly driverVersion: string | null;
  /** null = none was found; `problem` says why. */
  readonly library: Pick<LibraryFiles, 'packageName' | 'variant' | 'directory'> | null;
  /** What keeps models from running, or from running on the GPUs that are here. */
  readonly problem: string | null;
  /** What to do for more than works now. */
  readonly advice: readonly string[];
}

/**
 * Opens an owner per device. Errors: `load_failed`, naming what to install; a ConfigError for a NEURON_FAULT
 * that cannot be read.
 */
export async function openMachine(
  config: NeuronConfig,
  given: GivenDevices,
  around: Surroundings,
): Promise<Machine> {
  const faults = parseFaults(around.env.NEURON_FAULT);
  if (faults.length > 0) around.log.warn('NEURON_FAULT plants faults in device owners', { faults });
  const sources = systemSources(config.cpu.memory_mb);
  if (given.devices !== undefined) {
    const slots = given.devices.map((slot) => withBudget(slot, config));
    return {
      inventory: null,
      health: null,
      slots,
      library: null,
      placement: { openGroup: given.openGroup },
      openVocabularies: null,
    };
  }
  const found = await discoverDevices(sources);
  const library = findConfiguredLibrary(config, around.env, found);
  const setup = { ...toDeviceSetup(config, library, around), faults };
  const { inventory, usable, unusable, refuses } = await findUsable(found, library, setup);
  const reason = inventory.cudaUnavailableReason;
  if (reason !== null) around.log.warn(`GPUs cannot be used: ${reason}`);
  const devices = createDevices(usable, setup);
  const slots = devices.flatMap((device, at): DeviceSlot[] => {
    const found = usable[at];
    if (found === undefined) return [];
    const { index, kind, sharesHostMemory, vram_total_mb: totalMb } = found;
    const budgetMb = kind === 'cpu' ? totalMb : null;
    const isAlone = config.device_worker !== 'thread' && found.nvidiaIndex !== null;
    const backendIndex = isAlone ? undefined : (found.backendIndex ?? undefined);
    const slot = { indices: [index], kind, device, budgetMb, totalMb, sharesHostMemory, backendIndex };
    return [withBudget(slot, config)];
  });
  warnOfUnknown(config, inventory, around.log);
  const openGroup: OpenGroup = (members) => {
    const wanted = members.flatMap(({ indices }) => indices);
    return createGroupDevice(
      usable.filter(({ index }) => wanted.includes(index)),
      setup,
    );
  };
  const indices = unusable.map(({ index }) => index);
  const placement = { openGroup, ...(reason === null ? {} : { unusable: { reason, refuses, indices } }) };
  const openVocabularies = (): VocabularyOwner => createVocabularyOwner(setup);
  const health = new DeviceHealthReader(inventory, sources, around.clock);
  return { inventory, health, slots, library, placement, openVocabularies };
}

/** Looks, and opens nothing that stays. Never rejects because of what it finds. */
export async function examineMachine(
  config: NeuronConfig,
  { env, clock }: Omit<Surroundings, 'log'>,
): Promise<MachineReport> {
  const found = await discoverDevices(systemSources(config.cpu.memory_mb));
  let library: LibraryFiles;
  try {
    library = findConfiguredLibrary(config, env, found);
  } catch (thrown) {
    return toReport(found, null, toAppError(thrown).message, []);
  }
  const setup = toDeviceSetup(config, library, { env, clock, log: silentLog });
  const { inventory, refuses } = await findUsable(found, library, setup);
  const reason = inventory.cudaUnavailableReason;
  return toReport(inventory, library, refuses ? reason : null, advise(inventory, library));
}

function toReport(
  { devices, cudaVersion, driverVersion }: Inventory,
  library: LibraryFiles | null,
  problem: string | null,
  advice: readonly string[],
): MachineReport {
  return { devices: toWireDevices(devices), cudaVersion, driverVersion, library, problem, advice };
}

/** Which package would use a GPU that is here and is not used. */
function advise({ devices, cudaVersion }: Inventory, { variant, packageName }: LibraryFiles): string[] {
  // Only these platforms have packages for a GPU beside the plain one.
  if (variant !== 'cpu' || packageName === null || !/(linux|win)-x64$/.test(packageName)) return [];
  const install = (names: readonly string[]): string =>
    `npm install --no-save ${names.map((name) => `${name}@${pinnedRelease.nodeLlamaCpp}`).join(' ')}`;
  if (devices.some(({ kind }) => kind === 'cuda')) {
    const cuda = `${packageName}-cuda`;
    const isOlder = Number.parseInt(cudaVersion ?? '', 10) < 13;
    return [`for the NVIDIA GPU: ${install(isOlder ? [cuda, `${cuda}-ext`] : [cuda])}`];
  }
  const node = renderNode();
  if (node === null) return [];
  return [`for the GPU behind ${node}, if Vulkan is installed: ${install([`${packageName}-vulkan`])}`];
}

/** Linux shows a GPU of any maker as a render node. */
function renderNode(): string | null {
  if (!existsSync('/dev/dri')) return null;
  const name = readdirSync('/dev/dri').find((each) => each.startsWith('renderD'));
  return name === undefined ? null : `/dev/dri/${name}`;
}

async function findUsable(
  found: Inventory,
  library: LibraryFiles,
  setup: DeviceSetup,
): Promise<UsableDevices> {
  // A build without GPU backends has nothing to tell.
  const backend =
    library.variant === 'cpu'
      ? null
      : await probeBackendDevices(setup).catch((thrown: unknown) => {
          setup.log.warn(`libllama's device list is missing: ${toAppError(thrown).message}`);
          return null;
        });
  const hasFallback = library.fallbackDirectory !== null;
  return chooseUsableDevices(found, { ...library, hasFallback }, backend);
}

function toDeviceSetup(
  config: NeuronConfig,
  library: LibraryFiles,
  { env, clock, log }: Surroundings,
): DeviceSetup {
  // Two builds in one process would share symbols; so with every owner in a thread, one build serves all.
  const isAlone = Boolean(env.NEURON_LIBLLAMA_DIR) || config.device_worker === 'thread';
  return {
    deviceWorker: config.device_worker,
    nativeLog: config.engine.native_log,
    libraryDir: library.directory,
    // A GPU build would open a context on every GPU also for models on the CPU.
    cpuLibraryDir: isAlone ? null : findCpuLibrary(),
    clock,
    log,
    limits: toOwnerLimits(config.engine.step_timeout_secs),
  };
}

function findCpuLibrary(): string | null {
  try {
    return findLibrary({ variant: 'cpu' }).directory;
  } catch {
    return null; // Apple's package has no sibling without a GPU; others may not be installed.
  }
}

function withBudget(slot: DeviceSlot, { devices }: NeuronConfig): DeviceSlot {
  const configured = devices.find(({ index }) => index === slot.indices[0]);
  if (configured === undefined) return slot;
  return { ...slot, budgetMb: Math.min(configured.memory_mb, slot.budgetMb ?? Number.POSITIVE_INFINITY) };
}

/** A budget for a device that is not there would silently not hold for the one that was meant. */
function warnOfUnknown({ devices }: NeuronConfig, inventory: Inventory, log: Log): void {
  const known = inventory.devices.map(({ index, id }) => `${index} (${id})`).join(', ');
  for (const { index } of devices) {
    if (inventory.devices.some((device) => device.index === index)) continue;
    log.warn(`[[devices]] has a budget for device ${index}; this machine has ${known}`);
  }
}

/** Errors: `load_failed`, naming what to install. */
function findConfiguredLibrary(config: NeuronConfig, env: NodeJS.ProcessEnv, found: Inventory): LibraryFiles {
  if (env.NEURON_LIBLLAMA_DIR) return findLibrary({ libraryDir: env.NEURON_LIBLLAMA_DIR });
  const { libllama } = config.engine;
  if (libllama !== 'auto') return findLibrary({ variant: libllama });
  const hasNvidia = found.cudaUnavailableReason !== null || found.devices.some(({ kind }) => kind === 'cuda');
  return findLibrary({ hasNvidia });
}

/**
 * A device with a budget is as free as the budget, whatever the machine has beyond it. `unloadsOn`: how many
 * models its owner has let go.
 */
export async function readHealth(
  machine: Machine,
  placement: Placement,
  unloadsOn: (slot: DeviceSlot) => number,
): Promise<NeuronHealth['devices']> {
  const { slots } = machine;
  const measured = (await machine.health?.read()) ?? [];
  const health = new Map<number, DeviceHealth>(measured.map((device) => [device.index, device]));
  for (const slot of slots) {
    const index = slot.indices[0] ?? 0;
    if (slot.budgetMb === null) continue;
    // Not asked of the owner, which may be loading: health must not wait.
    const { freeMb, totalMb } = placement.booked(slot);
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
  return [...health.values()].map((device) => {
    const slot = slots.find(({ indices }) => indices.includes(device.index));
    return { ...device, load_cycles: slot === undefined ? 0 : unloadsOn(slot) };
  });
}

export function toDiscovery(
  { inventory, slots, placement }: Machine,
  packageVersion: string,
  instance: string,
): Discovery {
  const own = slots.map(({ indices, device, kind, budgetMb }) => ({
    index: indices[0] ?? 0,
    name: device.id,
    kind,
    vram_total_mb: budgetMb ?? 0,
    compute_capability: null,
  }));
  const reason = inventory?.cudaUnavailableReason ?? null;
  const { indices: unusable = [], refuses = false } = placement.unusable ?? {};
  // What cannot be given is not promised: the gateway plans with these figures.
  const budgets = new Map(slots.map(({ indices, budgetMb }) => [indices[0], budgetMb]));
  const found = toWireDevices(inventory?.devices ?? []).map((device) => {
    const total = device.vram_total_mb;
    const budget = budgets.get(device.index) ?? total;
    // Where a GPU was meant to be used, nothing goes to the CPU in its stead unless a load names it.
    const isUsable = !unusable.includes(device.index) && !(refuses && device.kind === 'cpu');
    const usable = isUsable ? {} : { usable: false };
    return { ...device, ...usable, vram_total_mb: total > 0 ? Math.min(total, budget) : budget };
  });
  return {
    hostname: hostname(),
    os: platform(),
    kernel: release(),
    cuda_version: inventory?.cudaVersion ?? null,
    driver_version: inventory?.driverVersion ?? null,
    devices: inventory === null ? own : found,
    harnesses: ['llamacpp'],
    ...(reason === null ? {} : { cuda_unavailable_reason: reason }),
    max_prompt_tokens: 0,
    package_version: packageVersion,
    wire_version: wireVersion,
    instance,
  };
}
