import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { createDevice, createGroupDevice, type DeviceSetup } from './create-devices.ts';
import type { DiscoveredDevice } from './discovery.ts';
import type { OwnerDevice } from './owner-device.ts';

const skip = process.platform === 'linux' ? false : 'reads /proc';
const setup: DeviceSetup = {
  deviceWorker: 'auto',
  nativeLog: false,
  libraryDir: null,
  clock: systemClock,
  log: silentLog,
};

function gpu(index: number, nvidiaIndex: number | null): DiscoveredDevice {
  const facts = { name: 'GPU', vram_total_mb: 0, compute_capability: null, nvidiaIndex };
  const kind = nvidiaIndex === null ? 'vulkan' : 'cuda';
  return { ...facts, id: `${kind}:${index}`, index, kind, backendIndex: index };
}

/** What the owner's process was told, once it is up. */
async function environmentOf(device: OwnerDevice): Promise<Readonly<Record<string, string>>> {
  try {
    await device.listBackendDevices();
    const text = readFileSync(`/proc/${device.ownerPid}/environ`, 'utf8');
    const lines = text.split('\0').filter((line) => line.startsWith('CUDA_'));
    return Object.fromEntries(lines.map((line) => line.split('=') as [string, string]));
  } finally {
    await device.shutdown();
  }
}

describe('the owner of a GPU', { skip }, () => {
  it('sees its GPU and no other, counted as nvidia-smi counts', async () => {
    assert.deepEqual(await environmentOf(createDevice(gpu(1, 3), setup)), {
      CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
      CUDA_VISIBLE_DEVICES: '3',
    });
  });

  it('of a group sees the GPUs of the group', async () => {
    const group = createGroupDevice([gpu(0, 0), gpu(1, 2)], setup);
    assert.equal(group.id, 'cuda:0+1');
    assert.deepEqual(await environmentOf(group), {
      CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
      CUDA_VISIBLE_DEVICES: '0,2',
    });
  });

  it('that is no NVIDIA one is chosen by its place in the list of libllama', async () => {
    const environment = await environmentOf(createGroupDevice([gpu(0, null), gpu(1, null)], setup));
    assert.equal(environment.CUDA_VISIBLE_DEVICES, undefined);
  });
});
