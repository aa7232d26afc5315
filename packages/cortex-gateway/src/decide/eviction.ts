/**
 * Which models leave a node so that another fits.
 *
 * Memory is counted per device. A newcomer takes the freest `minDevices` devices, so the question asked
 * after each victim is whether those devices together hold enough. Victims are taken in the strategy's
 * order until they do; then every victim that turned out not to be needed is spared. When even all legal
 * victims do not suffice, nothing goes.
 */
import type { CatalogueEntry, DeviceView, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { defaultPriority, priorityOf } from './fleet-view.ts';

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

/** Where on this node the newcomer goes, and who leaves for it. */
export function planFit(view: FleetView, node: NodeView, need: MemoryNeed): Fit {
  const free = freeByDevice(view, node);
  const big = node.devices.filter((device) => device.totalMb >= need.minDeviceVramMb);
  if (big.length < need.minDevices) {
    const of = need.minDeviceVramMb > 0 ? ` of at least ${need.minDeviceVramMb} MiB` : '';
    return { ok: false, reason: `needs ${need.minDevices} device(s)${of}, ${node.name} has ${big.length}` };
  }
  const total = sum(pickFreest(big, new Map(big.map((d) => [d.index, d.totalMb])), need.minDevices).sizes);
  if (need.vramMb > total) {
    return {
      ok: false,
      reason: `needs ${need.vramMb} MiB, ${node.name} has only ${total} MiB on ${need.minDevices} device(s)`,
    };
  }
  const taken: ModelView[] = [];
  const candidates = legalVictims(view, node, need);
  for (const next of [null, ...candidates]) {
    if (next !== null) {
      give(view, free, node, next, 1);
      taken.push(next);
    }
    const pick = pickFreest(big, free, need.minDevices);
    if (sum(pick.sizes) >= need.vramMb) return spare(view, node, need, big, free, taken);
  }
  const most = Math.floor(sum(pickFreest(big, free, need.minDevices).sizes));
  return { ok: false, reason: tooFull(view, node, need, most) };
}

/** Free MiB per device: the reading, or what the resident models leave when there is none. */
export function freeByDevice(view: FleetView, node: NodeView): Map<number, number> {
  const free = new Map<number, number>();
  for (const device of node.devices) free.set(device.index, device.freeMb ?? device.totalMb);
  for (const model of node.models.values()) {
    if (!isResident(model)) continue;
    const unread = devicesOf(node, model).filter(
      (i) => node.devices.find((d) => d.index === i)?.freeMb === null,
    );
    const share = sizeOf(view, model) / Math.max(1, devicesOf(node, model).length);
    for (const index of unread) free.set(index, (free.get(index) ?? 0) - share);
  }
  return free;
}

export function sizeOf(view: FleetView, model: ModelView): number {
  return model.vramMb ?? view.catalogue.get(model.id)?.vramMb ?? 0;
}

function spare(
  view: FleetView,
  node: NodeView,
  need: MemoryNeed,
  big: readonly DeviceView[],
  free: Map<number, number>,
  taken: readonly ModelView[],
): Fit {
  const victims: ModelView[] = [];
  for (const victim of taken) {
    give(view, free, node, victim, -1);
    if (sum(pickFreest(big, free, need.minDevices).sizes) >= need.vramMb) continue;
    give(view, free, node, victim, 1);
    victims.push(victim);
  }
  const pick = pickFreest(big, free, need.minDevices);
  return {
    ok: true,
    devices: pick.indices,
    freeMb: sum(pick.sizes),
    evict: victims.map((v) => ({ model: v.id, wireId: v.wireId, vramMb: sizeOf(view, v) })),
  };
}

function legalVictims(view: FleetView, node: NodeView, need: MemoryNeed): ModelView[] {
  const legal = [...node.models.values()].filter(
    (model) =>
      model.status === 'loaded' && model.id !== need.model && need.priority >= priorityOf(view, model.id),
  );
  return legal.sort((a, b) => {
    const busy = Number(a.leases + a.foreignLoad > 0) - Number(b.leases + b.foreignLoad > 0);
    if (busy !== 0) return busy;
    const rank = view.strategy === 'priority' ? priorityOf(view, a.id) - priorityOf(view, b.id) : 0;
    return rank || (a.lastUsedMs ?? -1) - (b.lastUsedMs ?? -1) || (a.id < b.id ? -1 : 1);
  });
}

function tooFull(view: FleetView, node: NodeView, need: MemoryNeed, mostMb: number): string {
  const stays = [...node.models.values()]
    .filter(
      (model) => isResident(model) && model.id !== need.model && priorityOf(view, model.id) > need.priority,
    )
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

function give(
  view: FleetView,
  free: Map<number, number>,
  node: NodeView,
  model: ModelView,
  sign: 1 | -1,
): void {
  const devices = devicesOf(node, model);
  const share = sizeOf(view, model) / Math.max(1, devices.length);
  for (const index of devices) free.set(index, (free.get(index) ?? 0) + sign * share);
}

function devicesOf(node: NodeView, model: ModelView): readonly number[] {
  return model.devices.length > 0 ? model.devices : node.devices.slice(0, 1).map((d) => d.index);
}

function isResident(model: ModelView): boolean {
  return model.status === 'loaded' || model.status === 'loading' || model.status === 'unloading';
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
