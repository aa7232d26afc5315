/** Which device or devices a load may go to: from what it asks for and what this machine has. Pure. */
import { AppError } from 'cortex-core/wire/errors';
import type { SplitMode } from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { Device } from '../device/device.ts';

/** A device, or a group that one owner holds, as a load can be sent to it. */
export interface DeviceSlot {
  /** Indices of /discovery. */
  readonly indices: readonly number[];
  /** `cpu`, `cuda`, ... */
  readonly kind: string;
  readonly device: Device;
  /** MiB that models may take at most; null = what the device says is free. */
  readonly budgetMb: number | null;
  /** MiB that it has, as discovery says; absent or 0 = not known before it is asked. */
  readonly totalMb?: number | undefined;
  /** What it takes is the host's memory too. */
  readonly sharesHostMemory?: boolean | undefined;
  /** Its place in the list of an owner that sees other devices too; absent = the owner sees this one only. */
  readonly backendIndex?: number | undefined;
}

/** Where a load can go: one device, or several that become a group when it is reserved. */
export interface Target {
  readonly members: readonly DeviceSlot[];
  readonly splitMode: SplitMode;
  readonly id: string;
}

/** GPUs that are there and cannot be used; `refuses`: nothing is placed elsewhere instead of them. */
export interface UnusableDevices {
  readonly reason: string;
  readonly indices: readonly number[];
  readonly refuses: boolean;
}

export type PlacementSpec = Pick<ModelSpec, 'model_id' | 'devices' | 'tensor_parallel' | 'split_mode'>;

export interface Candidates {
  readonly slots: readonly DeviceSlot[];
  /** These and no others; else the load takes the best of them. */
  readonly exact: boolean;
}

/** Errors: `invalid_request` or `cuda_unavailable` when this machine does not have what the load asks for. */
export function findCandidates(
  slots: readonly DeviceSlot[],
  spec: PlacementSpec,
  unusable: UnusableDevices | undefined,
): Candidates {
  const machine: Machine = { slots, unusable };
  const usable = slots.filter((slot) => slot.device.state !== 'closed');
  const wanted = [...new Set(spec.devices ?? [])].sort((a, b) => a - b);
  const size = spec.tensor_parallel ?? 1;
  if (wanted.length > 0) {
    if (spec.tensor_parallel && spec.tensor_parallel !== wanted.length) {
      throw refusal(machine, spec, `names ${wanted.length} devices and tensor_parallel = ${size}`);
    }
    const named = wanted.map((index) => usable.find(({ indices }) => indices[0] === index));
    const found = named.filter((slot) => slot !== undefined);
    if (found.length < wanted.length) throw noDevice(machine, spec, wanted);
    return { slots: found, exact: true };
  }
  const accelerators = usable.filter((slot) => slot.kind !== 'cpu');
  if (accelerators.length < size && unusable?.refuses) throw cudaUnavailable(spec, unusable.reason);
  const pool = accelerators.length > 0 ? accelerators : usable;
  // A group is of one kind: the one with most devices of it.
  const kinds = [...new Set(pool.map(({ kind }) => kind))].map((kind) =>
    pool.filter((slot) => slot.kind === kind),
  );
  const largest = kinds.sort((a, b) => b.length - a.length)[0] ?? [];
  if (largest.length < size) throw noDevice(machine, spec, null);
  return { slots: size > 1 ? largest : pool, exact: false };
}

/** Errors: `invalid_request` for devices that cannot be one group, or a split mode that they cannot have. */
export function toTarget(chosen: readonly DeviceSlot[], spec: PlacementSpec): Target {
  const members = [...chosen].sort(byIndex);
  const [first] = members;
  const isGroup = members.length > 1;
  const splitMode = spec.split_mode ?? (isGroup ? 'layer' : 'none');
  const refuse = (why: string): AppError =>
    new AppError('invalid_request', `model "${spec.model_id}" ${why}`, { param: 'split_mode' });
  if (isGroup && splitMode === 'none') {
    throw refuse(
      `names ${members.length} devices and split_mode "none", which uses one; use layer, row or tensor`,
    );
  }
  if (members.some(({ kind }) => kind !== first?.kind)) {
    const kinds = members.map(({ indices, kind }) => `${indices.join('+')} (${kind})`).join(', ');
    throw new AppError(
      'invalid_request',
      `model "${spec.model_id}" cannot be split over ${kinds}: not of one kind`,
      {
        param: 'devices',
      },
    );
  }
  if (splitMode === 'tensor' && first?.kind === 'cpu') throw refuse('cannot be split by tensor on the CPU');
  const [prefix] = first?.device.id.split(':') ?? [];
  const indices = members.flatMap((slot) => slot.indices).join('+');
  return { members, splitMode, id: isGroup ? `${prefix}:${indices}` : (first?.device.id ?? '') };
}

/** Whether `slot` has exactly the devices of `target`. */
export function isAt({ members }: Target, slot: DeviceSlot | undefined): boolean {
  const indices = members.flatMap((member) => member.indices);
  return slot?.indices.length === indices.length && indices.every((index) => slot.indices.includes(index));
}

interface Machine {
  readonly slots: readonly DeviceSlot[];
  readonly unusable: UnusableDevices | undefined;
}

/** `wanted`: null = a group of any. */
function noDevice(machine: Machine, spec: PlacementSpec, wanted: readonly number[] | null): AppError {
  const { unusable } = machine;
  if (
    unusable !== undefined &&
    (wanted === null || wanted.some((index) => unusable.indices.includes(index)))
  ) {
    return cudaUnavailable(spec, unusable.reason);
  }
  const what =
    wanted === null
      ? `a group of ${spec.tensor_parallel ?? 1} devices of one kind`
      : `device ${wanted.join('+')}`;
  return refusal(machine, spec, `asks for ${what}`);
}

function refusal({ slots }: Machine, spec: PlacementSpec, what: string): AppError {
  const known = slots.map((slot) => `${slot.indices.join('+')} (${slot.device.id})`).join(', ');
  return new AppError(
    'invalid_request',
    `model "${spec.model_id}" ${what}; this machine has ${known || 'none'}`,
    { param: spec.devices ? 'devices' : 'tensor_parallel' },
  );
}

function cudaUnavailable(spec: PlacementSpec, reason: string): AppError {
  return new AppError(
    'cuda_unavailable',
    `model "${spec.model_id}" cannot use this machine's GPUs: ${reason}`,
    { extras: { model_id: spec.model_id } },
  );
}

function byIndex(one: DeviceSlot, other: DeviceSlot): number {
  return (one.indices[0] ?? 0) - (other.indices[0] ?? 0);
}
