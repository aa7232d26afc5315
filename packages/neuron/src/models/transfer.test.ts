import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modelSpecSchema } from 'cortex-core/wire/neuron';
import type { Device } from '../device/device.ts';
import type { DeviceSlot } from './choose-target.ts';
import type { LoadedModel } from './loader.ts';
import { Placement } from './placement.ts';
import { transferModel } from './transfer.ts';

/** Takes whatever comes; what it measures is never asked here. */
function device(id: string): Device {
  const fake = {
    id,
    state: 'ready',
    onOwnerDeath: () => () => {},
    queryVram: async () => ({ freeMb: 1000, totalMb: 1000 }),
    exportArch: async () => ({ spec: {}, prefixes: [] }),
    transferIn: async () => ({ handle: 2, facts: { memoryMb: 0 } }),
  };
  return fake as unknown as Device;
}

/** On `cuda:0`: 300 MiB there, and on the host 200 of layers and 100 of prefixes. */
async function machine() {
  const kinds = ['cpu', 'cuda', 'cuda'];
  const slots = kinds.map((kind, at): DeviceSlot => {
    return { indices: [at], kind, device: device(at === 0 ? 'cpu' : `cuda:${at - 1}`), budgetMb: 1000 };
  });
  const placement = new Placement(slots);
  const spec = modelSpecSchema.parse({ model_id: 'm' });
  const targetAt = async (at: number) => (await placement.choose({ model_id: 'm', devices: [at] }))[0];
  const wanted = { mb: 300, hostMb: 300 };
  const { reservation } = await placement.reserve(await targetAt(1), () => wanted);
  const parts = { file: '/m.gguf', digest: null, weightsDigest: null, prefixCacheMb: 100, hostLayersMb: 200 };
  const arch = { handle: 1, facts: {} } as LoadedModel['arch'];
  const model: LoadedModel = { slot: slots[1]!, arch, reservation, ...parts };
  const move = async (from: LoadedModel, to: number) => {
    const signal = new AbortController().signal;
    const moved = await transferModel(placement, from, {
      spec,
      target: await targetAt(to),
      onProgress: () => {},
      signal,
    });
    from.reservation.release();
    return moved;
  };
  const free = () => slots.map((slot) => placement.booked(slot).freeMb);
  return { placement, targetAt, model, move, free };
}

test('a moved model takes from the host what it took before, and on the CPU all of it', async () => {
  const { model, move, free } = await machine();
  assert.deepEqual(free(), [700, 700, 1000]);
  const other = await move(model, 2);
  assert.deepEqual(free(), [700, 1000, 700]);
  const onCpu = await move(other, 0);
  assert.deepEqual([free(), onCpu.hostLayersMb], [[400, 1000, 1000], 0]);
});

test('a move is refused that the host has no room for', async () => {
  const { placement, targetAt, model, move, free } = await machine();
  await placement.reserve(await targetAt(0), () => ({ mb: 500 }));
  await assert.rejects(move(model, 2), { code: 'insufficient_vram', message: /300 MiB/ });
  await assert.rejects(move(model, 0), { code: 'insufficient_vram', message: /600 MiB/ });
  assert.deepEqual(free(), [200, 700, 1000]);
});
