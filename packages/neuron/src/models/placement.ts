/** Which device a load goes to, and the books of what is taken there. Reservations are made synchronously. */
import { AppError } from 'cortex-core/wire/errors';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { Device } from '../device/device.ts';
import type { MemoryBudget } from './memory.ts';

/** A device, or a group that one owner holds, as a load can be sent to it. */
export interface DeviceSlot {
  /** Indices of /discovery. */
  readonly indices: readonly number[];
  /** `cpu`, `cuda`, ... */
  readonly kind: string;
  readonly device: Device;
  /** MiB that models may take; null = what the device says is free. */
  readonly budgetMb: number | null;
}

export interface Reservation {
  readonly slot: DeviceSlot;
  readonly mb: number;
  /** The load is done and took this much. */
  settle(mb: number): void;
  /** Idempotent. */
  release(): void;
}

interface Row {
  mb: number;
  settled: boolean;
}

export class Placement {
  readonly #slots: readonly DeviceSlot[];
  readonly #taken = new Map<DeviceSlot, Set<Row>>();

  constructor(slots: readonly DeviceSlot[]) {
    this.#slots = slots;
    for (const slot of slots) this.#taken.set(slot, new Set());
  }

  get slots(): readonly DeviceSlot[] {
    return this.#slots;
  }

  /** The devices that the load names; else an accelerator, the one with most free memory; else the CPU. */
  async choose(spec: Pick<ModelSpec, 'model_id' | 'devices' | 'tensor_parallel'>): Promise<DeviceSlot> {
    const candidates = this.#candidates(spec);
    let best: { slot: DeviceSlot; freeMb: number } | null = null;
    for (const slot of candidates) {
      const { freeMb } = await this.budget(slot);
      if (best === null || freeMb > best.freeMb) best = { slot, freeMb };
    }
    if (best === null) throw this.#noDevice(spec);
    return best.slot;
  }

  /** Throws `invalid_request` when no device of this machine is what the load asks for. */
  assertPossible(spec: Pick<ModelSpec, 'model_id' | 'devices' | 'tensor_parallel'>): void {
    if (this.#candidates(spec).length === 0) throw this.#noDevice(spec);
  }

  async budget(slot: DeviceSlot): Promise<MemoryBudget> {
    const measured = slot.budgetMb === null ? await slot.device.queryVram() : null;
    return this.#budgetNow(slot, measured);
  }

  /** `decide` sees the free memory and returns what it takes, or throws; no one can come between. */
  async reserve(slot: DeviceSlot, decide: (budget: MemoryBudget) => number): Promise<Reservation> {
    const measured = slot.budgetMb === null ? await slot.device.queryVram() : null;
    const row: Row = { mb: decide(this.#budgetNow(slot, measured)), settled: false };
    const rows = this.#taken.get(slot);
    rows?.add(row);
    return {
      slot,
      get mb() {
        return row.mb;
      },
      settle: (mb) => {
        row.mb = mb;
        row.settled = true;
      },
      release: () => void rows?.delete(row),
    };
  }

  /** A device that measures itself already counts what settled loads took. */
  #budgetNow(slot: DeviceSlot, measured: { freeMb: number; totalMb: number } | null): MemoryBudget {
    const rows = [...(this.#taken.get(slot) ?? [])];
    const counted = measured === null ? rows : rows.filter((row) => !row.settled);
    const taken = counted.reduce((sum, row) => sum + row.mb, 0);
    const totalMb = Math.floor(measured?.totalMb ?? slot.budgetMb ?? 0);
    const freeMb = Math.max(0, Math.floor((measured?.freeMb ?? totalMb) - taken));
    return { deviceId: slot.device.id, freeMb, totalMb };
  }

  #candidates(spec: Pick<ModelSpec, 'devices' | 'tensor_parallel'>): readonly DeviceSlot[] {
    const usable = this.#slots.filter((slot) => slot.device.state !== 'closed');
    const wanted = spec.devices ?? [];
    if (wanted.length > 0) {
      const key = [...wanted].sort((a, b) => a - b).join();
      return usable.filter((slot) => [...slot.indices].sort((a, b) => a - b).join() === key);
    }
    const size = spec.tensor_parallel ?? 1;
    const accelerators = usable.filter((slot) => slot.kind !== 'cpu' && slot.indices.length === size);
    if (accelerators.length > 0) return accelerators;
    return size > 1 ? [] : usable.filter((slot) => slot.kind === 'cpu');
  }

  #noDevice(spec: Pick<ModelSpec, 'model_id' | 'devices' | 'tensor_parallel'>): AppError {
    const known = this.#slots.map((slot) => `${slot.indices.join('+')} (${slot.device.id})`).join(', ');
    const wanted = spec.devices?.join('+') ?? `a group of ${spec.tensor_parallel ?? 1}`;
    return new AppError(
      'invalid_request',
      `model "${spec.model_id}" asks for device ${wanted}; this machine has ${known || 'none'}`,
      { param: spec.devices ? 'devices' : 'tensor_parallel' },
    );
  }
}
