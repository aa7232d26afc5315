import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import type { SplitMode } from 'cortex-core/wire/inference';
import type { Device, OwnerDeath } from '../device/device.ts';
import type { DeviceSlot } from './choose-target.ts';
import { groupTotals, shareOut } from './group-memory.ts';
import { checkFits } from './memory-budget.ts';
import { Placement, type PlacementOptions, type Reservation } from './placement.ts';

/** Says what is free, when the test lets it; keeps who listens. */
class FakeDevice {
  readonly id: string;
  readonly state = 'ready';
  freeMb: number;
  readonly totalMb: number;
  asked: Promise<void> = Promise.resolve();
  shutdowns = 0;
  readonly listeners = new Set<(death: OwnerDeath) => void>();

  constructor(id: string, freeMb: number) {
    this.id = id;
    this.freeMb = freeMb;
    this.totalMb = freeMb;
  }

  async queryVram() {
    const { freeMb, totalMb } = this;
    await this.asked;
    return { freeMb, totalMb };
  }

  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  async shutdown(): Promise<void> {
    this.shutdowns++;
  }
}

interface Machine {
  readonly placement: Placement;
  readonly slots: readonly DeviceSlot[];
  readonly devices: readonly FakeDevice[];
  /** Owners that were opened for groups, with their members' ids. */
  readonly groups: { readonly device: FakeDevice; readonly members: readonly string[] }[];
}

function machine(
  kinds: readonly (readonly [kind: string, mb: number, budgetMb: number | null])[],
  options: PlacementOptions = {},
): Machine {
  const devices = kinds.map(
    ([kind, mb], at) => new FakeDevice(kind === 'cpu' ? `cpu:${at}` : `${kind}:${at}`, mb),
  );
  const slots = kinds.map(([kind, , budgetMb], at): DeviceSlot => {
    return { indices: [at], kind, device: devices[at] as unknown as Device, budgetMb };
  });
  const groups: Machine['groups'] = [];
  const openGroup = (members: readonly DeviceSlot[]): Device => {
    const device = new FakeDevice(`group ${groups.length}`, 0);
    groups.push({ device, members: members.map((member) => member.device.id) });
    return device as unknown as Device;
  };
  return { placement: new Placement(slots, { openGroup, ...options }), slots, devices, groups };
}

const model = (over: object = {}) => ({ model_id: 'm', ...over });

async function take(placement: Placement, over: object, mb: number): Promise<Reservation> {
  const [target] = await placement.choose(model(over));
  const { reservation } = await placement.reserve(target, ({ device }) => {
    checkFits('m', { mb, estimate: null }, device);
    return { mb };
  });
  return reservation;
}

const codeOf = (thrown: unknown): string => (thrown instanceof AppError ? thrown.code : String(thrown));

describe('Placement', () => {
  it('promises memory once when two loads race for it', async () => {
    for (const kind of ['cpu', 'cuda']) {
      const { placement } = machine([[kind, 1000, kind === 'cpu' ? 1000 : null]]);
      const both = await Promise.allSettled([take(placement, {}, 600), take(placement, {}, 600)]);
      assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], kind);
      const failed = both.find((each) => each.status === 'rejected');
      assert.equal(codeOf(failed?.reason), 'insufficient_vram');
      assert.match(String(failed?.reason), /needs 600 MiB on \w+:0, 400 MiB free of 1000 MiB budget/);
    }
  });

  it('gives back what a load did not take, and all of it when the model leaves', async () => {
    const { placement, slots } = machine([['cpu', 1000, 1000]]);
    const first = await take(placement, {}, 600);
    first.settle(300);
    const second = await take(placement, {}, 700);
    assert.equal(codeOf(await take(placement, {}, 1).catch((error: unknown) => error)), 'insufficient_vram');
    first.release();
    first.release();
    second.release();
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 1000);
  });

  it('counts a load that settles while the device is being asked', async () => {
    const { placement, devices } = machine([['cuda', 1000, null]]);
    const [device] = devices;
    const first = await take(placement, {}, 600);
    const [target] = await placement.choose(model());
    let answer = (): void => {};
    if (device) device.asked = new Promise((resolve) => (answer = resolve));
    // The figure is read before the first load is done, and arrives after.
    const second = placement.reserve(target, ({ device: budget }) => ({ mb: budget.freeMb }));
    if (device) device.freeMb = 400;
    first.settle(600);
    answer();
    assert.equal((await second).reservation.mb, 400);
  });

  it('asks an owner that sees other GPUs for its own', async () => {
    const { devices, slots } = machine([
      ['vulkan', 16_000, null],
      ['cpu', 0, 9000],
    ]);
    const list = [8000, 3000].map((freeMb, index) => ({ index, memory: { freeMb, totalMb: 8192 } }));
    Object.assign(devices[0] as FakeDevice, { listBackendDevices: async () => list });
    const [gpu, cpu] = slots as [DeviceSlot, DeviceSlot];
    const placement = new Placement([{ ...gpu, backendIndex: 1 }, cpu]);
    const [target] = await placement.choose(model({ devices: [0] }));
    const { reservation } = await placement.reserve(target, ({ device }) => ({ mb: device.freeMb }));
    assert.equal(reservation.mb, 3000);
  });

  it('does not wait for a device that is loading: what it said before counts, less what came since', async () => {
    const { placement, devices } = machine([['cuda', 1000, null]]);
    const loading = await take(placement, {}, 600);
    if (devices[0]) devices[0].asked = new Promise(() => {});
    const second = await take(placement, {}, 300);
    const error = await take(placement, {}, 200).catch((thrown: unknown) => thrown);
    assert.match(String(error), /needs 200 MiB on cuda:0, 100 MiB free of 1000 MiB/);
    loading.release();
    second.release();
  });

  it('knows whether a device was another load’s meanwhile', async () => {
    const { placement } = machine([['cuda', 1000, null]]);
    const alone = await take(placement, {}, 100);
    assert.equal(alone.isUndisturbed, true);
    const second = await take(placement, {}, 100);
    assert.deepEqual([alone.isUndisturbed, second.isUndisturbed], [false, false]);
    alone.settle(100);
    second.settle(100);
    const third = await take(placement, {}, 100);
    assert.equal(third.isUndisturbed, true);
    alone.release();
    assert.equal(third.isUndisturbed, false);
  });

  it('does not count a settled load twice on a device that measures itself', async () => {
    const { placement, devices, slots } = machine([['cuda', 1000, null]]);
    const first = await take(placement, {}, 600);
    first.settle(600);
    if (devices[0]) devices[0].freeMb = 400;
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 400);
  });

  it('promises nobody the memory of models that a fresh owner is about to get back', async () => {
    const { placement, devices } = machine([['cuda', 1000, null]]);
    const first = await take(placement, {}, 600);
    first.settle(600);
    devices[0]!.freeMb = 400;
    assert.equal((await placement.budget(placement.slots[0]!)).freeMb, 400);
    first.unsettle();
    devices[0]!.freeMb = 1000;
    await assert.rejects(take(placement, {}, 600), { code: 'insufficient_vram' });
    first.settle(600);
    devices[0]!.freeMb = 400;
    assert.equal((await take(placement, {}, 300)).mb, 300);
  });

  it('holds a GPU to its budget whatever else is free there, and to what is free whatever the budget', async () => {
    const { placement, devices, slots } = machine([['cuda', 24_000, 8000]]);
    assert.deepEqual(await placement.budget(slots[0] as DeviceSlot), {
      deviceId: 'cuda:0',
      freeMb: 8000,
      totalMb: 8000,
    });
    const first = await take(placement, {}, 6000);
    first.settle(6000);
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 2000);
    if (devices[0]) devices[0].freeMb = 500;
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 500);
  });

  it('shares the books between a group and its members', async () => {
    const { placement, slots, groups } = machine([
      ['cuda', 1000, null],
      ['cuda', 1000, null],
    ]);
    const group = await take(placement, { devices: [0, 1] }, 1200);
    assert.deepEqual(group.slot.indices, [0, 1]);
    assert.deepEqual(
      groups.map(({ members }) => members),
      [['cuda:0', 'cuda:1']],
    );
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 400);
    assert.equal(
      codeOf(await take(placement, { devices: [1] }, 500).catch((e: unknown) => e)),
      'insufficient_vram',
    );
    const single = await take(placement, { devices: [1] }, 300);
    const refused = await take(placement, { devices: [0, 1] }, 501).catch((error: unknown) => error);
    assert.match(String(refused), /needs 501 MiB on cuda:0\+1, 500 MiB free of 2000 MiB/);
    single.release();
    group.release();
    assert.equal((await placement.budget(slots[1] as DeviceSlot)).freeMb, 1000);
  });

  it('opens a group with its first load and closes it after its last', async () => {
    const { placement, groups } = machine([
      ['cpu', 0, 1000],
      ['cpu', 0, 1000],
      ['cpu', 0, 1000],
    ]);
    const first = await take(placement, { devices: [2, 0] }, 100);
    const second = await take(placement, { devices: [0, 2] }, 100);
    assert.equal(groups.length, 1);
    assert.equal(first.slot, second.slot);
    first.release();
    assert.equal(groups[0]?.device.shutdowns, 0);
    second.release();
    second.release();
    assert.equal(groups[0]?.device.shutdowns, 1);
    const third = await take(placement, { devices: [0, 2] }, 100);
    assert.equal(groups.length, 2);
    assert.notEqual(third.slot, first.slot);
    await placement.close();
    assert.equal(groups[1]?.device.shutdowns, 1);
  });

  it('opens no group for a load that does not fit', async () => {
    const { placement, groups, slots } = machine([
      ['cpu', 0, 100],
      ['cpu', 0, 100],
    ]);
    const error = await take(placement, { devices: [0, 1] }, 300).catch((thrown: unknown) => thrown);
    assert.equal(codeOf(error), 'does_not_fit');
    assert.equal(groups.length, 0);
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 100);
  });

  it('gives the books back when a group cannot be opened', async () => {
    const openGroup = (): Device => {
      throw new AppError('load_failed', 'no process');
    };
    const { placement, slots } = machine(
      [
        ['cpu', 0, 100],
        ['cpu', 0, 100],
      ],
      { openGroup },
    );
    const error = await take(placement, { devices: [0, 1] }, 150).catch((thrown: unknown) => thrown);
    assert.equal(codeOf(error), 'load_failed');
    assert.equal((await placement.budget(slots[0] as DeviceSlot)).freeMb, 100);
  });

  it('tells of the death of a group as of any device, and no longer when it is gone', async () => {
    const { placement, devices, groups } = machine([
      ['cuda', 1000, null],
      ['cuda', 1000, null],
    ]);
    const heard: string[] = [];
    placement.onOwnerDeath((slot, death) => heard.push(`${slot.indices.join('+')} ${death.cause}`));
    const reservation = await take(placement, { tensor_parallel: 2 }, 100);
    const death = { deviceId: '', lostHandles: [], busyHandles: [], loading: null, stderrTail: [] };
    for (const listener of groups[0]?.device.listeners ?? []) listener({ ...death, cause: 'group' });
    for (const listener of devices[1]?.listeners ?? []) listener({ ...death, cause: 'single' });
    assert.deepEqual(heard, ['0+1 group', '1 single']);
    reservation.release();
    assert.equal(groups[0]?.device.listeners.size, 0);
  });

  it('chooses accelerators before the CPU, and of those the ones with most free memory', async () => {
    const { placement } = machine([
      ['cuda', 500, null],
      ['cuda', 900, null],
      ['cuda', 700, null],
      ['cpu', 0, 9000],
    ]);
    const ids = async (over: object) => (await placement.choose(model(over))).map(({ id }) => id);
    assert.deepEqual(await ids({}), ['cuda:1', 'cuda:2', 'cuda:0']);
    assert.deepEqual(await ids({ tensor_parallel: 2 }), ['cuda:1+2']);
    assert.deepEqual(await ids({ devices: [3] }), ['cpu:3']);
  });

  it('charges what a load on a GPU leaves on the host to the CPU', async () => {
    const { placement, slots } = machine([
      ['cuda', 1000, null],
      ['cpu', 0, 800],
    ]);
    const [target] = await placement.choose(model());
    const { reservation } = await placement.reserve(target, ({ host }) => {
      assert.equal(host?.freeMb, 800);
      return { mb: 100, hostMb: 300 };
    });
    assert.equal((await placement.budget(slots[1] as DeviceSlot)).freeMb, 500);
    reservation.release();
    assert.equal((await placement.budget(slots[1] as DeviceSlot)).freeMb, 800);
  });

  it('takes what a GPU without memory of its own gets from the host as well', async () => {
    const { devices, slots } = machine([
      ['metal', 9000, null],
      ['cpu', 0, 1000],
    ]);
    const [gpu, cpu] = slots as [DeviceSlot, DeviceSlot];
    const placement = new Placement([{ ...gpu, sharesHostMemory: true }, cpu]);
    assert.equal(devices.length, 2);
    const first = await take(placement, {}, 600);
    assert.equal((await placement.budget(cpu)).freeMb, 400);
    assert.equal(codeOf(await take(placement, {}, 500).catch((e: unknown) => e)), 'insufficient_vram');
    const second = await take(placement, { devices: [1] }, 400);
    first.settle(500);
    assert.equal((await placement.budget(cpu)).freeMb, 100);
    first.release();
    second.release();
    assert.equal((await placement.budget(cpu)).freeMb, 1000);
  });

  it('refuses what this machine does not have, saying what it has', async () => {
    const { placement } = machine([
      ['cuda', 1000, null],
      ['cpu', 0, 1000],
    ]);
    const cases: [object, RegExp][] = [
      [{ devices: [7] }, /asks for device 7; this machine has 0 \(cuda:0\), 1 \(cpu:1\)/],
      [{ tensor_parallel: 2 }, /asks for a group of 2/],
      [{ devices: [0, 1] }, /cannot be split over 0 \(cuda\), 1 \(cpu\): not of one kind/],
      [{ devices: [0], tensor_parallel: 2 }, /names 1 devices and tensor_parallel = 2/],
    ];
    for (const [over, message] of cases) {
      assert.throws(() => placement.assertPossible(model(over)), message);
    }
    const { placement: pair } = machine([
      ['cpu', 0, 1000],
      ['cpu', 0, 1000],
    ]);
    const none = model({ devices: [0, 1], split_mode: 'none' });
    assert.throws(() => pair.assertPossible(none), /split_mode "none", which uses one/);
  });

  it('says why GPUs cannot be used, and puts nothing elsewhere instead', async () => {
    const unusable = { reason: 'driver 535 is too old', indices: [0], refuses: true };
    const { placement } = machine([['cpu', 0, 1000]], { unusable });
    for (const over of [{}, { tensor_parallel: 2 }]) {
      assert.throws(
        () => placement.assertPossible(model(over)),
        (thrown: AppError) =>
          thrown.code === 'cuda_unavailable' && /driver 535 is too old/.test(thrown.message),
      );
    }
    const idle = machine([['cpu', 0, 1000]], { unusable: { ...unusable, indices: [4], refuses: false } });
    idle.placement.assertPossible(model());
    assert.throws(
      () => idle.placement.assertPossible(model({ devices: [4] })),
      (thrown: AppError) => thrown.code === 'cuda_unavailable',
    );
  });

  it('keeps no more promises than memory over random loads', async () => {
    const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    let state = seed;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return Math.floor((state / 0x80000000) * below);
    };
    const { placement, slots } = machine([
      ['cpu', 0, 1000],
      ['cpu', 0, 700],
      ['cpu', 0, 400],
    ]);
    const held: Reservation[] = [];
    for (let turn = 0; turn < 300; turn++) {
      const wanted = [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]][random(6)];
      const split: SplitMode | undefined =
        (wanted?.length ?? 0) > 1 ? (['layer', 'row'] as const)[random(2)] : undefined;
      const over = { devices: wanted, ...(split === undefined ? {} : { split_mode: split }) };
      const [one, two] = await Promise.allSettled([
        take(placement, over, 1 + random(500)),
        take(placement, { devices: [random(3)] }, 1 + random(500)),
      ]);
      for (const each of [one, two]) if (each.status === 'fulfilled') held.push(each.value);
      for (let gone = random(3); gone > 0; gone--) held.splice(random(held.length), 1)[0]?.release();
      for (const slot of slots) {
        const { freeMb } = await placement.budget(slot);
        assert.ok(freeMb >= 0 && freeMb <= (slot.budgetMb ?? 0), `seed ${seed}, turn ${turn}`);
      }
      const total = held.reduce((sum, { mb }) => sum + mb, 0);
      assert.ok(total <= 2100, `seed ${seed}, turn ${turn}: ${total} MiB promised of 2100`);
    }
    for (const reservation of held) reservation.release();
    for (const slot of slots) {
      assert.equal((await placement.budget(slot)).freeMb, slot.budgetMb, `seed ${seed}`);
    }
  });
});

describe('groupTotals() and shareOut()', () => {
  const members = [
    { freeMb: 600, totalMb: 1000 },
    { freeMb: 200, totalMb: 800 },
  ];

  it('have the sum for layers, and the least times the number for rows and tensors', () => {
    assert.deepEqual(groupTotals(members, 'layer'), { freeMb: 800, totalMb: 1800 });
    assert.deepEqual(groupTotals(members, 'row'), { freeMb: 400, totalMb: 1600 });
    assert.deepEqual(shareOut(400, members, 'layer'), [300, 100]);
    assert.deepEqual(shareOut(400, members, 'tensor'), [200, 200]);
    assert.deepEqual(shareOut(0, [{ freeMb: 0, totalMb: 1 }], 'layer'), [0]);
  });
});
