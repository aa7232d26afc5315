/**
 * Defragmentation of a node: moves between its devices that make room, and fresh owners for worn devices.
 *
 * A model that nobody uses now and that is on one device may move to another of the same kind. Never
 * moved: what is pinned, leased, draining, spread over several devices, or of unknown size. A plan must pay:
 * room that only moves can make always does; room that an eviction could make as well is made by moves when
 * they move no more than would have to be loaded again. See DESIGN.md.
 */
import { partsByKind } from './device-kinds.ts';
import { freeByDevice, type MemoryNeed, needOf, pickFreest, planFit, sizeOf } from './eviction.ts';
import type { DeviceView, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { type Piece, repack } from './repack.ts';

export interface ModelMove {
  readonly model: string;
  readonly wireId: string;
  readonly from: number;
  readonly to: number;
  readonly vramMb: number;
}

/** Moves after which a model fits, and where. */
export interface RoomPlan {
  readonly moves: readonly ModelMove[];
  readonly movedMb: number;
  readonly devices: readonly number[];
  readonly freeMb: number;
}

export type RoomDecision =
  | { readonly kind: 'room'; readonly plan: RoomPlan }
  | { readonly kind: 'none'; readonly reason: string };

export interface Recycle {
  readonly device: number;
  /** Models on it now, which come back with what they have. */
  readonly models: readonly string[];
  readonly why: string;
}

export interface DefragPlan {
  readonly node: string;
  /** The model that fits after the moves; null = there are no moves. */
  readonly makesRoomFor: string | null;
  readonly moves: readonly ModelMove[];
  readonly movedMb: number;
  readonly recycle: readonly Recycle[];
  /** Why these steps, or why none. */
  readonly why: string;
}

/** `evictedMb`: what would be unloaded, and loaded again later, for the same room; null = nothing does. */
export function planRoom(
  view: FleetView,
  node: NodeView,
  need: MemoryNeed,
  evictedMb: number | null,
): RoomDecision {
  const none = (reason: string): RoomDecision => ({ kind: 'none', reason });
  if (node.movesFail === true) return none(`a move on ${node.name} failed a short while ago`);
  if (need.vramMb <= 0) return none(`the size of ${need.model} is not known`);
  const big = node.devices.filter((device) => device.totalMb >= need.minDeviceVramMb);
  if (node.devices.length < 2 || big.length < need.minDevices)
    return none(`${node.name} has too few devices`);
  const free = freeByDevice(view, node);
  const missingMb = (now: ReadonlyMap<number, number>): number =>
    Math.max(0, need.vramMb - sum(pickFreest(big, now, need.minDevices).sizes));
  if (missingMb(free) === 0) return none('it fits as it is');
  const total = sum(node.devices.map((device) => Math.max(0, free.get(device.index) ?? 0)));
  if (total < need.vramMb) {
    const all = `${Math.floor(total)} MiB are free on all devices of ${node.name}`;
    return none(`needs ${need.vramMb} MiB, only ${all}`);
  }
  const pieces = piecesOf(view, node, need.model);
  // the search costs milliseconds: what could not pay is not looked for
  const found = repack(free, pieces, missingMb, evictedMb ?? undefined);
  if (found === null) {
    const where = `on ${node.name} makes ${need.vramMb} MiB free together`;
    if (evictedMb === null) return none(`no move ${where}`);
    return none(`no move ${where} for less than keeping ${evictedMb} MiB loaded: it does not pay`);
  }
  const moves = found.steps.map(({ id, from, to, mb }): ModelMove => {
    return { model: id, wireId: node.models.get(id)?.wireId ?? id, from, to, vramMb: mb };
  });
  const then = new Map(free);
  for (const { from, to, vramMb } of moves) {
    then.set(from, (then.get(from) ?? 0) + vramMb).set(to, (then.get(to) ?? 0) - vramMb);
  }
  const pick = pickFreest(big, then, need.minDevices);
  return {
    kind: 'room',
    plan: { moves, movedMb: found.movedMb, devices: pick.indices, freeMb: sum(pick.sizes) },
  };
}

export interface DefragWish {
  /** Make room for this one; null = for the largest that only fragments keep out. */
  readonly model: string | null;
  /** Unloads since its owner started that make a device worn. */
  readonly wornAfter: number;
}

/** What is worth doing on a node while nobody waits for it. No steps: `why` says why. */
export function planDefrag(view: FleetView, node: NodeView, wish: DefragWish): DefragPlan {
  const recycle = node.devices.flatMap((device) => toRecycle(view, node, device, wish.wornAfter));
  const reasons: string[] = [];
  const [main = node] = partsByKind(node);
  for (const need of wish.model === null ? blockedNeeds(view, main) : [needFor(view, node, wish.model)]) {
    const decision = planRoom(view, main, need, evictionOf(view, main, need, wish.model !== null));
    if (decision.kind === 'none') {
      reasons.push(`${need.model}: ${decision.reason}`);
      continue;
    }
    const { moves, movedMb } = decision.plan;
    const why = `${need.model} needs ${need.vramMb} MiB, which are free only in pieces`;
    return { node: node.name, makesRoomFor: need.model, moves, movedMb, recycle, why };
  }
  const still = reasons.length > 0 ? reasons.slice(0, 4).join('; ') : 'no model is kept out by fragments';
  const why = recycle.length > 0 ? `devices are worn; ${still}` : still;
  return { node: node.name, makesRoomFor: null, moves: [], movedMb: 0, recycle, why };
}

/** Unloads on all devices since their owners started. */
export function cyclesOf(node: NodeView): number {
  return sum(node.devices.map((device) => device.loadCycles ?? 0));
}

/** Nobody uses it now, nor waits for it on this node. */
export function isIdle(node: NodeView, model: ModelView): boolean {
  return model.leases + model.foreignLoad === 0 && !model.draining && !node.pending.includes(model.id);
}

function piecesOf(view: FleetView, node: NodeView, newcomer: string): Piece[] {
  return [...node.models.values()].flatMap((model): Piece[] => {
    const [at, ...more] = model.devices;
    const mb = sizeOf(view, model);
    if (model.id === newcomer || model.status !== 'loaded' || !isIdle(node, model)) return [];
    if (at === undefined || more.length > 0 || mb <= 0) return [];
    const entry = view.catalogue.get(model.id);
    if (entry !== undefined && entry.pinnedOn.length > 0) return [];
    const kind = node.devices.find((device) => device.index === at)?.kind;
    const mayBe = node.devices.filter(
      (device) => device.kind === kind && device.totalMb >= (entry?.minDeviceVramMb ?? 0),
    );
    return [{ id: model.id, mb, at, mayBe: mayBe.map((device) => device.index) }];
  });
}

function needFor(view: FleetView, node: NodeView, model: string): MemoryNeed {
  return needOf(model, view.catalogue.get(model), node.models.get(model));
}

/** What this node could load and only fragments keep out, largest first. */
function blockedNeeds(view: FleetView, node: NodeView): MemoryNeed[] {
  const known = new Set([...view.catalogue.keys(), ...node.models.keys()]);
  const totalMb = sum([...freeByDevice(view, node).values()].map((mb) => Math.max(0, mb)));
  const needs: MemoryNeed[] = [];
  for (const id of known) {
    const held = node.models.get(id);
    const entry = view.catalogue.get(id);
    if (held !== undefined && held.status !== 'available' && held.status !== 'failed') continue;
    if (entry !== undefined && entry.pinnedOn.length > 0 && !entry.pinnedOn.includes(node.name)) continue;
    const need = needOf(id, entry, held);
    const fit = planFit(view, node, need);
    const fits = fit.ok && fit.evict.length === 0;
    if (need.vramMb > 0 && need.vramMb <= totalMb && !fits) needs.push(need);
  }
  return needs.sort((a, b) => b.vramMb - a.vramMb || (a.model < b.model ? -1 : 1));
}

/** A person who names the model wants the room: moves pay whatever an eviction would cost. */
function evictionOf(view: FleetView, node: NodeView, need: MemoryNeed, isNamed: boolean): number | null {
  if (isNamed) return null;
  const fit = planFit(view, node, need);
  return fit.ok ? sum(fit.evict.map((victim) => victim.vramMb)) : null;
}

function toRecycle(view: FleetView, node: NodeView, device: DeviceView, wornAfter: number): Recycle[] {
  const cycles = device.loadCycles ?? 0;
  if (cycles < Math.max(1, wornAfter)) return [];
  const here = [...node.models.values()].filter((model) => model.devices.includes(device.index));
  // Its owner is the group's, which ends with its last model.
  const loaded = here.filter((model) => model.status === 'loaded' && model.devices.length === 1);
  const isBusy = here.some((model) => model.status === 'loading' || model.status === 'unloading');
  if (isBusy) return [];
  const models = loaded.sort((a, b) => sizeOf(view, b) - sizeOf(view, a)).map((model) => model.id);
  const unloaded = cycles === 1 ? '1 model was' : `${cycles} models were`;
  const why = `${unloaded} unloaded there since its owner started`;
  return [{ device: device.index, models, why }];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
