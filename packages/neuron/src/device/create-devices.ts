/** From what was discovered and what the config asks for to the devices of this machine, one owner each. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { BackendDevice } from 'cortex-core/wire/inference';
import type { DiscoveredDevice } from './discovery.ts';
import type { Fault, OwnerOptions } from './jobs.ts';
import { OwnerDevice } from './owner-device.ts';
import type { OwnerDeviceLimits } from './owner-device-options.ts';
import { createProcessTransport } from './process-transport.ts';
import { createThreadTransport } from './thread-transport.ts';
import type { Transport } from './transport.ts';

/** `auto`: the CPU's owner is a thread, a GPU's a process. */
export type DeviceWorker = 'auto' | 'process' | 'thread';

export interface DeviceSetup {
  readonly deviceWorker: DeviceWorker;
  readonly nativeLog: boolean;
  readonly libraryDir: string | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits?: Partial<OwnerDeviceLimits>;
  /** Planted faults (NEURON_FAULT). */
  readonly faults?: readonly Fault[];
}

/** One device per entry, in the same order; the owners start at once and in parallel. */
export function createDevices(
  discovered: readonly DiscoveredDevice[],
  setup: DeviceSetup,
): readonly OwnerDevice[] {
  return discovered.map((device) => createDevice(device, setup));
}

export function createDevice(device: DiscoveredDevice, setup: DeviceSetup): OwnerDevice {
  const isCpu = device.kind === 'cpu';
  const worker = setup.deviceWorker === 'auto' ? (isCpu ? 'thread' : 'process') : setup.deviceWorker;
  const log = setup.log.child({ device: device.id });
  const alone = worker === 'process' && device.nvidiaIndex !== null;
  return new OwnerDevice({
    id: device.id,
    transport: toTransport(worker, device.id, visibleTo(device), log),
    owner: toOwnerOptions(setup, !isCpu),
    clock: setup.clock,
    log,
    // A process that sees one GPU takes all it sees; a thread sees every device and has to be told.
    defaultDevices: alone || device.backendIndex === null ? [] : [device.backendIndex],
    ...(setup.limits === undefined ? {} : { limits: setup.limits }),
  });
}

/** libllama's own device list, asked of a short-lived process, so that no GPU context stays in this one. */
export async function probeBackendDevices(setup: DeviceSetup): Promise<readonly BackendDevice[]> {
  const device = new OwnerDevice({
    id: 'probe',
    transport: toTransport('process', 'probe', { CUDA_DEVICE_ORDER: 'PCI_BUS_ID' }, setup.log),
    owner: toOwnerOptions({ ...setup, faults: [] }, true),
    clock: setup.clock,
    log: setup.log,
  });
  try {
    return await device.listBackendDevices();
  } finally {
    await device.shutdown();
  }
}

function toTransport(
  worker: 'process' | 'thread',
  id: string,
  env: Readonly<Record<string, string>>,
  log: Log,
): Transport {
  if (worker === 'thread') return createThreadTransport({ name: `device-${id}`, log });
  return createProcessTransport({ env, log });
}

function toOwnerOptions(setup: DeviceSetup, gpu: boolean): OwnerOptions {
  const { libraryDir, nativeLog, faults = [] } = setup;
  return { libraryDir, nativeLog, gpu, faults };
}

/** nvidia-smi counts in PCI bus order, CUDA by default fastest first. */
function visibleTo(device: DiscoveredDevice): Readonly<Record<string, string>> {
  const visible =
    device.kind === 'cpu' ? '' : device.nvidiaIndex === null ? null : String(device.nvidiaIndex);
  return { CUDA_DEVICE_ORDER: 'PCI_BUS_ID', ...(visible === null ? {} : { CUDA_VISIBLE_DEVICES: visible }) };
}
