/**
 * Which models leave a node so that another fits.
 *
 * Memory is counted per device. A newcomer takes the freest `minDevices` devices, so the question asked of
 * every set of victims is whether those devices together hold enough without them. Among the sets for which
 * they do, the cheapest goes (`victim-set.ts`); what a victim costs is the strategy's business
 * (`victim-cost.ts`). When even all legal victims do not suffice, nothing goes.
 */
import type { CatalogueEntry, DeviceView, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { defaultPriority, pinnedPriority, priorityOf } from './fleet-view.ts';
import { costOf, inOrder } from './victim-cost.ts';
import { cheapestSet, lastInOrder } from './victim-set.ts';

export interface Victim {
  readonly model: string;
  readonly wireId: string;
  readonly vramMb: number;
}

export interface MemoryNeed {
  readonly model: string;
  /** 0 = unknown: anything fits. */
  readonly vramMb: number;
  readonly minDevices: number;
  readonly minDeviceVramMb: number;
  readonly priority: number;
}

export type Fit =
  | {
      readonly ok: true;
      readonly devices: readonly number[];
      readonly evict: readonly Victim[];
      readonly freeMb: number;
      /** What the victims cost in the strategy's measure, to compare nodes; 0 without victims. */
      readonly cost: number;
    }
  | { readonly ok: false; readonly reason: string };

export function needOf(
  model: string,
  entry: CatalogueEntry | undefined,
  held: ModelView | undefined,
): MemoryNeed {
  return {
    model,
    vramMb: entry?.vramMb ?? held?.vramMb ?? 0,
    minDevices: Math.max(1, entry?.minDevices ?? 1),
    minDeviceVramMb: entry?.minDeviceVramMb ?? 0,
    priority: entry?.residencyPriority ?? defaultPriority,
  };
}

const none: ReadonlySet<string> = new Set();

/** Where on this node the newcomer goes, and who leaves for it. `spared`: models that may not leave now. */
export function planFit(
  view: FleetView,
  node: NodeView,
  need: MemoryNeed,
  spared: ReadonlySet<string> = none,
): Fit {
  const big = node.devices.filter((device) => device.totalMb >= need.minDeviceVramMb);
  if (big.length < need.minDevices) {
    const of = need.minDeviceVramMb > 0 ? ` of at least ${need.minDeviceVramMb} MiB` : '';
    return { ok: false, reason: `needs ${need.minDevices} device(s)${of}, ${node.name} has ${big.length}` };
  }
  const total = totalOf(big, need);
  if (need.vramMb > total) {
    return {
      ok: false,
      reason: `needs ${need.vramMb} MiB, ${node.name} has only ${total} MiB on ${need.minDevices} device(s)`,
    };
  }
  const free = freeByDevice(view, node);
  const freedBy = (victims: readonly ModelView[]) => {
    if (need.minDevices === 1) return freestOne(view, node, big, free, victims);
    const freed = new Map(free);
    for (const victim of victims) give(view, freed, node, victim);
    return pickFreest(big, freed, need.minDevices);
  };
  const suffices = (victims: readonly ModelView[]) => sum(freedBy(victims).sizes) >= need.vramMb;
  const legal = legalVictims(view, node, need, spared);
  const victims = suffices([]) ? [] : suffices(legal) ? chooseSet(view, node, legal, suffices) : null;
  if (victims === null) {
    const mostMb = Math.floor(sum(freedBy(legal).sizes));
    return { ok: false, reason: tooFull(node, need, legal, mostMb) };
  }
  const pick = freedBy(victims);
  return {
    ok: true,
    devices: pick.indices,
    freeMb: sum(pick.sizes),
    evict: victims.map((v) => ({ model: v.id, wireId: v.wireId, vramMb: sizeOf(view, v) })),
    cost: costOf(view, node, victims),
  };
}

/**
 * MiB that a newcomer of that kind can have at most on this node, when all go that may; -1 = it has too few
 * devices for it. `free`: when nobody goes, on all devices together. The need's own size is not looked at.
 */
export function roomFor(view: FleetView, node: NodeView, need: MemoryNeed): { most: number; free: number } {
  const big = node.devices.filter((device) => device.totalMb >= need.minDeviceVramMb);
  if (big.length < need.minDevices) return { most: -1, free: -1 };
  const freed = freeByDevice(view, node);
  const free = [...freed.values()].reduce((total, mb) => total + Math.max(0, mb), 0);
  for (const victim of legalVictims(view, node, need, none)) give(view, freed, node, victim);
  const most = sum(pickFreest(big, freed, need.minDevices).sizes);
  return { most: Math.min(most, totalOf(big, need)), free };
}

/** MiB of the largest devices that it may take. */
function totalOf(devices: readonly DeviceView[], { minDevices }: MemoryNeed): number {
  return sum(pickFreest(devices, new Map(devices.map((d) => [d.index, d.totalMb])), minDevices).sizes);
}

export function sizeOf(view: FleetView, model: ModelView): number {
  return model.vramMb ?? view.catalogue.get(model.id)?.vramMb ?? 0;
}

/** Pinned there at the rank that pinning gives, or a higher one: never leaves for another model. */
function isHeldFor(view: FleetView, node: NodeView, model: string): boolean {
  const entry = view.catalogue.get(model);
  return (
    entry !== undefined && entry.residencyPriority >= pinnedPriority && entry.pinnedOn.includes(node.name)
  );
}

function chooseSet(
  view: FleetView,
  node: NodeView,
  legal: readonly ModelView[],
  suffices: (victims: readonly ModelView[]) => boolean,
): readonly ModelView[] {
  const ordered = inOrder(view, node, legal);
  if (view.strategy !== 'cost') return lastInOrder(ordered, suffices);
  return cheapestSet(
    ordered.map((model) => ({
      item: model,
      cost: costOf(view, node, [model]),
      size: sizeOf(view, model),
    })),
    suffices,
  );
}

function legalVictims(
  view: FleetView,
  node: NodeView,
  need: MemoryNeed,
  spared: ReadonlySet<string>,
): ModelView[] {
  return [...node.models.values()].filter(
    (model) => mayLeave(model) && !mustStay(view, node, need, model) && !spared.has(model.id),
  );
}

function mustStay(view: FleetView, node: NodeView, need: MemoryNeed, model: ModelView): boolean {
  return (
    model.id === need.model || priorityOf(view, model.id) > need.priority || isHeldFor(view, node, model.id)
  );
}

/** What is still loading may leave once it has loaded: a newcomer has to wait, not to go away. */
function mayLeave(model: ModelView): boolean {
  return model.status === 'loaded' || model.status === 'loading';
}

/**
 * Free MiB per device: the reading, or what the resident models leave when there is none. What is being
 * unloaded counts as gone: who needs its memory waits for it.
 */
export function freeByDevice(view: FleetView, node: NodeView): Map<number, number> {
  const free = new Map<number, number>();
  const unread = new Set<number>();
  for (const device of node.devices) {
    free.set(device.index, device.freeMb ?? device.totalMb);
    if (device.freeMb === null) unread.add(device.index);
  }
  for (const model of node.models.values()) {
    if (!mayLeave(model) && model.status !== 'unloading') continue;
    const isLeaving = model.status === 'unloading';
    if (unread.size === 0 && !isLeaving) continue;
    const devices = devicesOf(node, model);
    const share = sizeOf(view, model) / Math.max(1, devices.length);
    for (const index of devices) {
      if (unread.has(index) === isLeaving) continue;
      free.set(index, (free.get(index) ?? 0) + (isLeaving ? share : -share));
    }
  }
  for (const { index, totalMb } of node.devices) {
    free.set(index, Math.min(totalMb, free.get(index) ?? 0));
  }
  return free;
}

function tooFull(node: NodeView, need: MemoryNeed, legal: readonly ModelView[], mostMb: number): string {
  const leave = new Set(legal.map((model) => model.id));
  const stays = [...node.models.values()]
    .filter((model) => mayLeave(model) && model.id !== need.model && !leave.has(model.id))
    .map((model) => model.id);
  const held = stays.length > 0 ? `; ${stays.join(', ')} may not be displaced` : '';
  return `needs ${need.vramMb} MiB, ${node.name} can free at most ${Math.max(0, mostMb)} MiB${held}`;
}

export function pickFreest(
  devices: readonly DeviceView[],
  free: ReadonlyMap<number, number>,
  count: number,
): { indices: number[]; sizes: number[] } {
  const order = [...devices].sort(
    (a, b) => (free.get(b.index) ?? 0) - (free.get(a.index) ?? 0) || a.index - b.index,
  );
  const chosen = order.slice(0, count).sort((a, b) => a.index - b.index);
  return {
    indices: chosen.map((d) => d.index),
    sizes: chosen.map((d) => Math.max(0, free.get(d.index) ?? 0)),
  };
}

/** As `pickFreest` for one device, which is what most models take: without a copy or a sort. */
function freestOne(
  view: FleetView,
  node: NodeView,
  devices: readonly DeviceView[],
  free: ReadonlyMap<number, number>,
  victims: readonly ModelView[],
): { indices: number[]; sizes: number[] } {
  let index = 0;
  let mostMb = Number.NEGATIVE_INFINITY;
  for (const device of devices) {
    let mb = free.get(device.index) ?? 0;
    for (const victim of victims) {
      const held = devicesOf(node, victim);
      if (held.includes(device.index)) mb += sizeOf(view, victim) / held.length;
    }
    if (mb <= mostMb) continue;
    index = device.index;
    mostMb = mb;
  }
  return { indices: [index], sizes: [Math.max(0, mostMb)] };
}

function give(view: FleetView, free: Map<number, number>, node: NodeView, model: ModelView): void {
  const devices = devicesOf(node, model);
  const share = sizeOf(view, model) / Math.max(1, devices.length);
  for (const index of devices) free.set(index, (free.get(index) ?? 0) + share);
}

function devicesOf(node: NodeView, model: ModelView): readonly number[] {
  return model.devices.length > 0 ? model.devices : node.devices.slice(0, 1).map((d) => d.index);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
