/**
 * The devices of this machine: every NVIDIA GPU, what libllama sees beyond those (Vulkan, Metal, ROCm), and
 * the CPU.
 *
 * Problem: three sources (nvidia-smi, libllama's list, the operating system) of which each can be silent,
 * and an `index` that clients pin models to, so it must not move between two starts.
 * Design: GPUs come first under nvidia-smi's index (PCI bus order), further backends after them, the CPU
 * last: on a machine without a GPU the CPU is 0. The CPU's "VRAM" is a memory budget: three quarters of the
 * memory that the machine or its cgroup has, unless the config names one.
 */
import { type ExecFileException, type ExecFileOptionsWithStringEncoding, execFile } from 'node:child_process';
import { cpus, freemem, totalmem } from 'node:os';
import type { BackendDevice } from 'cortex-core/wire/inference';
import type { Discovery, NeuronHealth } from 'cortex-core/wire/neuron';
import { type CommandResult, type NvidiaGpu, type RunCommand, readNvidiaSmi } from './nvidia-smi.ts';

export type DiscoveredDevice = Discovery['devices'][number] & {
  /** `cpu`, `cuda:0`, `vulkan:0`: the `Device.id`. */
  readonly id: string;
  /** nvidia-smi's index; null for what is no NVIDIA GPU. */
  readonly nvidiaIndex: number | null;
  /** Its memory is the host's: Apple silicon, integrated GPUs. */
  readonly sharesHostMemory?: boolean;
  /** Index in libllama's own list, as a process that sees every device counts; null = not asked. */
  readonly backendIndex: number | null;
};
export type DeviceHealth = Omit<NeuronHealth['devices'][number], 'load_cycles'>;

export interface Inventory {
  readonly devices: readonly DiscoveredDevice[];
  readonly health: readonly DeviceHealth[];
  readonly cudaVersion: string | null;
  readonly driverVersion: string | null;
  readonly cudaUnavailableReason: string | null;
}

export interface MachineMemory {
  readonly totalMb: number;
  readonly freeMb: number;
}

export interface DiscoverySources {
  readonly run: RunCommand;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cpuName: () => string;
  readonly memory: () => MachineMemory;
  /** MiB that models on the CPU may take; null = three quarters of the memory. */
  readonly cpuBudgetMb: number | null;
}

const mib = 1024 * 1024;
const cpuBudgetShare = 0.75;
/** From a kill to the end of what can be killed. */
const killMsMax = 1000;

/** `execFile` as it is used here. */
export type ExecFile = (
  file: string,
  args: readonly string[],
  options: ExecFileOptionsWithStringEncoding,
  done: (error: ExecFileException | null, stdout: string, stderr: string) => void,
) => unknown;

/** This machine. */
export function systemSources(cpuBudgetMb: number | null = null): DiscoverySources {
  return {
    run: createRunCommand(),
    env: process.env,
    cpuName: () => cpus()[0]?.model.trim() || 'CPU',
    memory: readMachineMemory,
    cpuBudgetMb,
  };
}

export async function discoverDevices(sources: DiscoverySources): Promise<Inventory> {
  const report = await readNvidiaSmi(sources.run);
  const gpus = report.gpus.filter((gpu) => isVisible(gpu.index, sources.env));
  const devices = gpus.map((gpu) => toDevice(gpu));
  const cpu = toCpuDevice(sources, nextIndex(devices));
  return {
    devices: [...devices, cpu],
    health: [...gpus.map((gpu) => toGpuHealth(gpu.index, gpu)), toCpuHealth(cpu, sources.memory())],
    cudaVersion: report.cudaVersion,
    driverVersion: report.driverVersion,
    cudaUnavailableReason: report.unavailableReason,
  };
}

/**
 * Fresh figures for known devices; a device that nvidia-smi no longer reports has nulls. Null when nvidia-smi
 * itself has failed.
 */
export async function readDeviceHealth(
  devices: readonly DiscoveredDevice[],
  sources: DiscoverySources,
): Promise<readonly DeviceHealth[] | null> {
  const needsSmi = devices.some((device) => device.nvidiaIndex !== null);
  if (!needsSmi) return toHealth(devices, [], sources);
  const { gpus, unavailableReason } = await readNvidiaSmi(sources.run, false);
  return unavailableReason === null ? toHealth(devices, gpus, sources) : null;
}

/** What is known without asking nvidia-smi. */
export function withoutGpuFigures(
  devices: readonly DiscoveredDevice[],
  sources: DiscoverySources,
): readonly DeviceHealth[] {
  return toHealth(devices, [], sources);
}

function toHealth(
  devices: readonly DiscoveredDevice[],
  gpus: readonly NvidiaGpu[],
  sources: DiscoverySources,
): readonly DeviceHealth[] {
  return devices.map((device) => {
    if (device.kind === 'cpu') return toCpuHealth(device, sources.memory());
    const gpu = gpus.find((candidate) => candidate.index === device.nvidiaIndex);
    return toGpuHealth(device.index, gpu);
  });
}

/**
 * Adds what libllama's list knows: GPUs that nvidia-smi does not see, and memory where it was silent. CUDA
 * names count the visible devices in PCI order, so the n-th `CUDAn` is the n-th GPU of the inventory.
 */
export function mergeBackendDevices(inventory: Inventory, backend: readonly BackendDevice[]): Inventory {
  const cuda = backend.filter((device) => toKind(device) === 'cuda');
  const hasOther = backend.some((device) => device.kind === 'gpu' && toKind(device) !== 'cuda');
  // The same GPU under Vulkan only: libllama's view of it is the one that can be used.
  const isListed = (device: DiscoveredDevice): boolean =>
    cuda.length > 0 || !hasOther || device.kind !== 'cuda';
  const known = inventory.devices.filter((device) => device.kind !== 'cpu' && isListed(device));
  const merged = known.map((device, position): DiscoveredDevice => {
    const seen = cuda.find((candidate) => candidate.name === `CUDA${position}`);
    if (seen === undefined) return device;
    const total = device.vram_total_mb > 0 ? device.vram_total_mb : seen.memory.totalMb;
    return { ...device, vram_total_mb: total, backendIndex: seen.index };
  });
  const extra = backend.filter(
    (device) =>
      (device.kind === 'gpu' || device.kind === 'igpu') &&
      !(toKind(device) === 'cuda' && merged.some((knownDevice) => knownDevice.backendIndex === device.index)),
  );
  const base = nextIndex(merged);
  // A GPU under two backends (CUDA and Vulkan) is one GPU: with CUDA at work the others' views are passed
  // over.
  const added = (merged.length > 0 ? extra.filter((device) => toKind(device) === 'cuda') : extra).map(
    (device, position) => toBackendDevice(device, base + position),
  );
  const cpu = inventory.devices.find((device) => device.kind === 'cpu');
  const cpus = cpu === undefined ? [] : [{ ...cpu, index: base + added.length }];
  const devices = [...merged, ...added, ...cpus];
  const health = devices.map((device): DeviceHealth => {
    const added = backend.find((candidate) => candidate.index === device.backendIndex);
    const before = inventory.devices.find((candidate) => candidate.id === device.id);
    const old = inventory.health.find((candidate) => candidate.index === before?.index);
    if (old !== undefined && (old.vram_free_mb !== null || added === undefined)) {
      return { ...old, index: device.index };
    }
    const { freeMb, totalMb } = added?.memory ?? { freeMb: 0, totalMb: 0 };
    return {
      ...emptyHealth,
      ...old,
      index: device.index,
      vram_free_mb: freeMb,
      vram_used_mb: totalMb - freeMb,
    };
  });
  return { ...inventory, devices, health };
}

/** The part of `GET /discovery` that is about devices. */
export function toWireDevices(devices: readonly DiscoveredDevice[]): Discovery['devices'] {
  return devices.map(({ index, name, kind, vram_total_mb, compute_capability }) => ({
    index,
    name,
    kind,
    vram_total_mb,
    compute_capability,
  }));
}

/**
 * Runs programs to their end, or kills them at their limit. One that is inside a broken driver survives that:
 * then the answer comes a second later all the same, and no further program is started while it is there.
 */
export function createRunCommand(exec: ExecFile = execFile): RunCommand {
  const outlived: CommandResult = { exitCode: null, output: '', missing: false, timedOut: true };
  let undead = 0;
  return (file, args, timeoutMs) =>
    new Promise<CommandResult>((resolve) => {
      if (undead > 0) return resolve(outlived);
      const options = {
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: 4 * mib,
        encoding: 'utf8',
      } as const;
      let isUndead = false;
      const timer = setTimeout(() => {
        isUndead = true;
        undead++;
        resolve(outlived);
      }, timeoutMs + killMsMax);
      try {
        exec(file, args, options, (error, stdout, stderr) => {
          clearTimeout(timer);
          if (isUndead) undead--;
          const code = error?.code;
          resolve({
            exitCode: error === null ? 0 : typeof code === 'number' ? code : null,
            output: stderr === '' ? stdout : `${stdout}\n${stderr}`,
            missing: typeof code === 'string' && ['ENOENT', 'EACCES', 'ENOTDIR'].includes(code),
            timedOut: error?.killed === true,
          });
        });
      } catch (thrown) {
        // Node tells most failures later, but throws where there is no memory for a process.
        clearTimeout(timer);
        const output = `${file} could not be started: ${(thrown as Error).message}`;
        resolve({ exitCode: null, output, missing: false, timedOut: false });
      }
    });
}

const emptyHealth: DeviceHealth = {
  index: 0,
  vram_used_mb: null,
  vram_free_mb: null,
  utilization_pct: null,
  temp_c: null,
};

function toDevice(gpu: NvidiaGpu): DiscoveredDevice {
  return {
    id: `cuda:${gpu.index}`,
    index: gpu.index,
    name: gpu.name,
    kind: 'cuda',
    vram_total_mb: gpu.memoryTotalMb ?? 0,
    compute_capability: gpu.computeCapability,
    nvidiaIndex: gpu.index,
    backendIndex: null,
  };
}

function toBackendDevice(device: BackendDevice, index: number): DiscoveredDevice {
  const kind = toKind(device);
  return {
    id: `${kind}:${/\d+$/.exec(device.name)?.[0] ?? 0}`,
    index,
    name: device.description || device.name,
    kind,
    vram_total_mb: device.memory.totalMb,
    compute_capability: null,
    nvidiaIndex: null,
    backendIndex: device.index,
    sharesHostMemory: kind === 'metal' || device.kind === 'igpu',
  };
}

function toCpuDevice(sources: DiscoverySources, index: number): DiscoveredDevice {
  const budgetMb = sources.cpuBudgetMb ?? Math.floor(sources.memory().totalMb * cpuBudgetShare);
  return {
    id: 'cpu',
    index,
    name: sources.cpuName(),
    kind: 'cpu',
    vram_total_mb: budgetMb,
    compute_capability: null,
    nvidiaIndex: null,
    backendIndex: null,
  };
}

function toGpuHealth(index: number, gpu: NvidiaGpu | undefined): DeviceHealth {
  if (gpu === undefined) return { ...emptyHealth, index };
  const { memoryTotalMb: total, memoryUsedMb: used, memoryFreeMb: free } = gpu;
  return {
    index,
    vram_used_mb: used ?? (total !== null && free !== null ? total - free : null),
    vram_free_mb: free ?? (total !== null && used !== null ? total - used : null),
    utilization_pct: gpu.utilizationPct,
    temp_c: gpu.tempC,
  };
}

function toCpuHealth(cpu: DiscoveredDevice, memory: MachineMemory): DeviceHealth {
  const freeMb = Math.min(cpu.vram_total_mb, memory.freeMb);
  return { ...emptyHealth, index: cpu.index, vram_free_mb: freeMb, vram_used_mb: cpu.vram_total_mb - freeMb };
}

/** `CUDA0` -> `cuda`, `Vulkan1` -> `vulkan`, `MTL0` -> `metal` (ggml-metal.cpp, GGML_METAL_NAME). */
function toKind(device: BackendDevice): string {
  if (device.kind === 'cpu') return 'cpu';
  const name = device.name.replace(/\d+$/, '').toLowerCase();
  return name === 'mtl' ? 'metal' : name;
}

function nextIndex(devices: readonly DiscoveredDevice[]): number {
  return devices.reduce((next, device) => Math.max(next, device.index + 1), 0);
}

/**
 * Honours a CUDA_VISIBLE_DEVICES of plain indices; one of UUIDs cannot be compared and hides nothing here.
 */
function isVisible(index: number, env: DiscoverySources['env']): boolean {
  const visible = env.CUDA_VISIBLE_DEVICES;
  if (visible === undefined) return true;
  const entries = visible.split(',').map((entry) => entry.trim());
  if (entries.some((entry) => /^(GPU|MIG)-/i.test(entry))) return true;
  return entries.includes(String(index));
}

/** The smaller of the machine's memory and the cgroup's limit. */
function readMachineMemory(): MachineMemory {
  const total = totalmem();
  // 0 or an absurdly large number where no limit is set (libuv: uv_get_constrained_memory).
  const limit = process.constrainedMemory();
  const limited = limit > 0 && limit < total;
  const free = limited ? Math.min(freemem(), process.availableMemory()) : freemem();
  return { totalMb: Math.floor((limited ? limit : total) / mib), freeMb: Math.floor(free / mib) };
}
