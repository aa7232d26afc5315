/**
 * Who holds what, and where there is room: what a decision would else look for in every node.
 *
 * Problem: a decision over a thousand nodes must not walk their models, nor make anything that grows with the
 * fleet. Design: the nodes stand in slots. `update` compares a node with what stood in its slot and mends two
 * maps: model to slots, and model to its replicas, with what is read of each side by side. What a cold
 * placement asks of each node (free memory on its k freest devices, what evictions could free at most, when
 * its queue is through) is kept as numbers in typed arrays, so that one pass over all nodes reads a few
 * kilobytes. These numbers are bounds; `considerNode` has the last word.
 * Limits: 8 devices per model are bounded exactly, 31 kinds of harness, 16 ranks.
 */
import { freeByDevice, sizeOf } from './eviction.ts';
import type { FleetView, ModelView, NodeView } from './fleet-view.ts';
import { defaultPriority, priorityOf } from './fleet-view.ts';
import { Replicas, rowOf } from './replicas.ts';
import { usedMs } from './victim-cost.ts';

/** Columns of devices: the k freest of a node, k = 1.. */
export const deviceColumns = 8;
const ranksMax = 16;
const harnessesMax = 31;
/** All bits of harnesses. */
export const anyHarness = 2 ** harnessesMax - 1;

/** What the numbers are computed from. */
type Context = Pick<FleetView, 'catalogue' | 'aliases' | 'strategy' | 'rates'>;

export class FleetIndex {
  readonly nodes: NodeView[];
  /** Distinct residency priorities, ascending. */
  readonly ranks: readonly number[];
  healthyCount = 0;
  /** One bit per harness of a healthy node, all bits where it names none; 0 = it is not healthy. */
  readonly able: Int32Array;
  /** Free MiB on the k freest devices together; a column of all nodes per k, one after the other. */
  readonly freeMb: Float64Array;
  /** MiB of the k largest devices together, and of the k-th alone. */
  readonly totalMb: Float64Array;
  readonly kthTotalMb: Float64Array;
  /** MiB of loaded and loading models up to each rank; a column of all nodes per rank. */
  readonly reclaimMb: Float64Array;
  /** MiB of the largest loaded model: how many have to leave at least. */
  readonly largestMb: Float64Array;
  /** When the idlest loaded model was last used; a hint. */
  readonly idlestMs: Float64Array;
  /** Loads that run or wait there. */
  readonly jobs: Uint16Array;
  /** MiB per second of the node's loads; NaN = not measured. */
  readonly loadMbS: Float64Array;
  /** Notes of the decision under way, per slot. */
  readonly scratchA: Float64Array;
  readonly scratchB: Float64Array;
  readonly #context: Context;
  readonly #slotOf = new Map<string, number>();
  readonly #resident = new Map<string, Replicas>();
  readonly #present = new Map<string, number[]>();
  readonly #harnessBits = new Map<string, number>();

  constructor(nodes: readonly NodeView[], context: Context) {
    const size = nodes.length;
    this.#context = context;
    this.nodes = [];
    this.ranks = ranksOf(context);
    this.able = new Int32Array(size);
    this.freeMb = new Float64Array(size * deviceColumns);
    this.totalMb = new Float64Array(size * deviceColumns);
    this.kthTotalMb = new Float64Array(size * deviceColumns);
    this.reclaimMb = new Float64Array(size * this.ranks.length);
    this.largestMb = new Float64Array(size);
    this.idlestMs = new Float64Array(size);
    this.jobs = new Uint16Array(size);
    this.loadMbS = new Float64Array(size);
    this.scratchA = new Float64Array(size);
    this.scratchB = new Float64Array(size);
    for (const [slot, node] of nodes.entries()) {
      this.#slotOf.set(node.name, slot);
      this.#put(slot, node, null);
    }
  }

  slotOf(name: string): number | null {
    return this.#slotOf.get(name) ?? null;
  }

  nodeNamed(name: string): NodeView | undefined {
    const slot = this.#slotOf.get(name);
    return slot === undefined ? undefined : this.nodes[slot];
  }

  /** The nodes where it takes memory, or is about to; null = nowhere. */
  replicasOf(model: string): Replicas | null {
    return this.#resident.get(model) ?? null;
  }

  /** Slots of the nodes that have it in any state, also on disk only; ascending. */
  presentSlots(model: string): readonly number[] {
    return this.#present.get(model) ?? none;
  }

  /** Ids of what any node has in any state. */
  presentIds(): IterableIterator<string> {
    return this.#present.keys();
  }

  /** The bit of a harness; when no node names it, all. */
  harnessBit(name: string): number {
    return this.#harnessBits.get(name) ?? anyHarness;
  }

  /** The column of `reclaimMb` that bounds what a newcomer of that priority may displace. */
  rankColumn(priority: number): number {
    const { ranks } = this;
    for (let i = 0; i < ranks.length; i++) if ((ranks[i] ?? 0) >= priority) return i;
    return ranks.length - 1;
  }

  /** The node of that slot changed. */
  update(slot: number, node: NodeView): void {
    const before = this.nodes[slot];
    if (before?.name !== node.name) throw new Error(`slot ${slot} is not that of ${node.name}`);
    this.#put(slot, node, before);
  }

  #put(slot: number, node: NodeView, before: NodeView | null): void {
    this.nodes[slot] = node;
    this.#putModels(slot, node, before);
    this.healthyCount += Number(node.healthy) - Number(this.able[slot] !== 0);
    this.jobs[slot] = node.pending.length;
    this.loadMbS[slot] = this.#context.rates?.loadMbS(node.name) ?? Number.NaN;
    let bits = node.harnesses.length === 0 ? anyHarness : 0;
    for (const harness of node.harnesses) bits |= this.#bitOf(harness);
    this.able[slot] = node.healthy ? bits : 0;
    this.#putMemory(slot, node);
  }

  #putModels(slot: number, node: NodeView, before: NodeView | null): void {
    let stayed = 0;
    for (const [model, held] of node.models) {
      const was = before?.models.get(model);
      if (was !== undefined && before !== null) {
        stayed++;
        // most of a node's models are on its disk, and stay there
        if (!isInMemory(before, model, was) && !isInMemory(node, model, held)) continue;
      }
      this.#putModel(slot, node, model, held, was === undefined);
    }
    for (const model of node.pending) {
      if (!node.models.has(model)) this.#putModel(slot, node, model, undefined, true);
    }
    if (before === null) return;
    for (const model of before.pending) if (!has(node, model)) this.#removeModel(slot, model);
    if (stayed === before.models.size) return;
    for (const model of before.models.keys()) if (!has(node, model)) this.#removeModel(slot, model);
  }

  #putModel(slot: number, node: NodeView, model: string, held: ModelView | undefined, isNew: boolean): void {
    if (isNew) {
      const present = this.#present.get(model);
      const at = present === undefined ? 0 : rowOf(present, slot);
      if (present === undefined) this.#present.set(model, [slot]);
      else if (present[at] !== slot) present.splice(at, 0, slot);
    }
    const known = this.#resident.get(model);
    if (isInMemory(node, model, held)) {
      const replicas = known ?? new Replicas();
      if (known === undefined) this.#resident.set(model, replicas);
      replicas.put(slot, node, held);
    } else if (known !== undefined) this.#removeResident(slot, model, known);
  }

  #removeModel(slot: number, model: string): void {
    const present = this.#present.get(model);
    if (present !== undefined) {
      const at = rowOf(present, slot);
      if (present[at] === slot) present.splice(at, 1);
      if (present.length === 0) this.#present.delete(model);
    }
    const replicas = this.#resident.get(model);
    if (replicas !== undefined) this.#removeResident(slot, model, replicas);
  }

  #removeResident(slot: number, model: string, replicas: Replicas): void {
    replicas.remove(slot);
    if (replicas.slots.length === 0) this.#resident.delete(model);
  }

  #putMemory(slot: number, node: NodeView): void {
    const { freeMb, totalMb, kthTotalMb, reclaimMb, ranks } = this;
    const context = this.#context as FleetView;
    const free = [...freeByDevice(context, node).values()].sort((a, b) => b - a);
    const totals = node.devices.map((device) => device.totalMb).sort((a, b) => b - a);
    const count = this.able.length;
    let allFree = 0;
    let allTotal = 0;
    for (let k = 0; k < deviceColumns; k++) {
      const at = k * count + slot;
      allFree += Math.max(0, free[k] ?? 0);
      allTotal += totals[k] ?? 0;
      freeMb[at] = allFree;
      totalMb[at] = allTotal;
      kthTotalMb[at] = totals[k] ?? -1;
    }
    for (let i = 0; i < ranks.length; i++) reclaimMb[i * count + slot] = 0;
    let idlestMs = Number.POSITIVE_INFINITY;
    let largestMb = 0;
    for (const model of node.models.values()) {
      // what is loading may leave once it is loaded
      if (model.status !== 'loaded' && model.status !== 'loading') continue;
      idlestMs = Math.min(idlestMs, usedMs(model));
      const size = sizeOf(context, model);
      largestMb = Math.max(largestMb, size);
      const priority = priorityOf(context, model.id);
      for (let i = ranks.length - 1; i >= 0 && (ranks[i] ?? 0) >= priority; i--) {
        const at = i * count + slot;
        reclaimMb[at] = (reclaimMb[at] ?? 0) + size;
      }
    }
    this.idlestMs[slot] = idlestMs;
    this.largestMb[slot] = largestMb;
  }

  #bitOf(harness: string): number {
    const found = this.#harnessBits.get(harness);
    if (found !== undefined) return found;
    // those beyond the last bit share it: a bound may be loose
    const bit = 1 << Math.min(this.#harnessBits.size, harnessesMax - 1);
    this.#harnessBits.set(harness, bit);
    return bit;
  }
}

const none: readonly number[] = [];

/** On disk only, it takes no memory; what failed is looked at again when it is placed. */
function isInMemory(node: NodeView, model: string, held: ModelView | undefined): boolean {
  return held === undefined || takesMemory(held) || node.pending.includes(model);
}

function takesMemory({ status }: ModelView): boolean {
  return status === 'loaded' || status === 'loading' || status === 'unloading' || status === 'recovering';
}

function has(node: NodeView, model: string): boolean {
  return node.models.has(model) || node.pending.includes(model);
}

/** Ascending; thinned where there are too many, so that each one's next is still above it. */
function ranksOf({ catalogue }: Context): readonly number[] {
  const all = [
    ...new Set([defaultPriority, ...[...catalogue.values()].map((each) => each.residencyPriority)]),
  ];
  all.sort((a, b) => a - b);
  if (all.length <= ranksMax) return all;
  const step = all.length / ranksMax;
  return Array.from({ length: ranksMax }, (_, i) => all[Math.ceil((i + 1) * step) - 1] ?? 0);
}
