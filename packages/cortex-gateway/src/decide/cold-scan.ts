/**
 * Where a model could be loaded soonest.
 *
 * Problem: a plan for one node costs microseconds, and there may be a thousand nodes. Design: one pass over
 * the index gives each node a bound, the least that a request could wait for a load there; only the most
 * promising ones are planned whole, in the order of their bounds, until no bound is below the best plan.
 * Limit: `plansMax` plans, then the best of them; where none was feasible every node is planned.
 */
import {
  jobsMs,
  leastEvictMs,
  loadPriorMs,
  prefillElsewhere,
  prefillMsAt,
  promptTokensOf,
  scoreOf,
  type Weighing,
} from './expected-time.ts';
import { deviceColumns, type FleetIndex } from './fleet-index.ts';
import { defaultPriority } from './fleet-view.ts';
import { type ColdCandidate, considerCold, type NodeRejection } from './placement.ts';

export interface ColdChoice {
  readonly best: ColdCandidate | null;
  /** A sentence per node; only filled when there is no candidate. */
  readonly rejected: readonly NodeRejection[];
}

const plansMax = 24;

/** `freeOnly`: only where it fits without an eviction. */
export function chooseCold(weighing: Weighing, index: FleetIndex, freeOnly = false): ColdChoice {
  const pinned = weighing.entry?.pinnedOn ?? [];
  const shortlist = pinned.length > 0 ? pinnedBounds(index, pinned) : promising(weighing, index, freeOnly);
  let best: ColdCandidate | null = null;
  for (const { slot, boundMs } of shortlist) {
    if (best !== null && boundMs >= scoreOf(best.terms)) break;
    const candidate = planAt(weighing, index, slot);
    if (candidate === null || 'reason' in candidate) continue;
    if (freeOnly && candidate.placement.evict.length > 0) continue;
    if (best === null || compareCold(candidate, best) < 0) best = candidate;
  }
  return best !== null || freeOnly ? { best, rejected: [] } : planEverywhere(weighing, index);
}

export function compareCold(a: ColdCandidate, b: ColdCandidate): number {
  const byName = a.placement.node < b.placement.node ? -1 : 1;
  return scoreOf(a.terms) - scoreOf(b.terms) || b.freeMb - a.freeMb || byName;
}

function planEverywhere(weighing: Weighing, index: FleetIndex): ColdChoice {
  const rejected: NodeRejection[] = [];
  let best: ColdCandidate | null = null;
  for (const slot of index.nodes.keys()) {
    const candidate = planAt(weighing, index, slot);
    if (candidate === null) continue;
    if ('reason' in candidate) rejected.push(candidate);
    else if (best === null || compareCold(candidate, best) < 0) best = candidate;
  }
  return { best, rejected };
}

function planAt(weighing: Weighing, index: FleetIndex, slot: number): ColdCandidate | NodeRejection | null {
  const node = index.nodes[slot];
  if (node === undefined || weighing.request.exclude?.has(node.name)) return null;
  return considerCold(weighing, node);
}

interface Bound {
  readonly slot: number;
  readonly boundMs: number;
  /** Smaller first among equal bounds. */
  readonly hint: number;
}

function pinnedBounds(index: FleetIndex, pinned: readonly string[]): readonly Bound[] {
  return pinned.flatMap((name) => {
    const slot = index.slotOf(name);
    return slot === null ? [] : [{ slot, boundMs: 0, hint: 0 }];
  });
}

/** The `plansMax` lowest bounds, ascending. */
function promising(weighing: Weighing, index: FleetIndex, freeOnly: boolean): readonly Bound[] {
  const bounds = new Bounds(weighing, index, freeOnly);
  if (weighing.entry === undefined) for (const slot of index.presentSlots(weighing.model)) bounds.look(slot);
  else for (let slot = 0; slot < index.nodes.length; slot++) bounds.look(slot);
  return bounds.kept;
}

const none = Number.NaN;

/** Computes bounds from the index alone and keeps the lowest. */
class Bounds {
  readonly kept: Bound[] = [];
  readonly #weighing: Weighing;
  readonly #index: FleetIndex;
  readonly #freeOnly: boolean;
  /** No node needs less. */
  readonly #leastMb: number;
  /** Column of the k-th device; -1 = the model takes more devices than there are columns. */
  readonly #column: number;
  readonly #rank: number;
  readonly #harness: number;
  readonly #prompt: number;
  readonly #tokS: number;
  readonly #loadHereMs: number;
  readonly #loadFetchedMs: number;

  constructor(weighing: Weighing, index: FleetIndex, freeOnly: boolean) {
    const { entry, sizeMb, mean } = weighing;
    this.#weighing = weighing;
    this.#index = index;
    this.#freeOnly = freeOnly;
    const devices = Math.max(1, entry?.minDevices ?? 1);
    this.#column = devices > deviceColumns ? -1 : devices - 1;
    this.#rank = index.rankColumn(entry?.residencyPriority ?? defaultPriority);
    this.#harness = entry === undefined ? 0 : index.harnessBit(entry.harness);
    this.#prompt = promptTokensOf(weighing.request);
    this.#tokS = prefillElsewhere(weighing);
    this.#loadHereMs = loadPriorMs(sizeMb, null, mean?.loadMs ?? null, true);
    this.#loadFetchedMs = loadPriorMs(sizeMb, null, mean?.loadMs ?? null, false);
    const toldMb = this.#markMeasured();
    this.#leastMb = entry?.vramMb ?? toldMb;
  }

  look(slot: number): void {
    const index = this.#index;
    if (index.healthy[slot] === 0) return;
    const harnesses = index.harnesses[slot] ?? 0;
    if (this.#harness !== 0 && harnesses !== 0 && (harnesses & this.#harness) === 0) return;
    const evictMs = this.#evictMs(slot);
    if (evictMs === Number.POSITIVE_INFINITY || (this.#freeOnly && evictMs > 0)) return;
    const node = (index.jobs[slot] ?? 0) === 0 ? undefined : index.nodes[slot];
    const queueMs = node === undefined ? 0 : jobsMs(this.#weighing, node);
    const boundMs = queueMs + evictMs + this.#loadMs(slot) + this.#prefillMs(slot);
    const last = this.kept.at(-1);
    const full = this.kept.length === plansMax;
    if (full && last !== undefined && last.boundMs < boundMs) return;
    const hint = evictMs === 0 ? -this.#freeMb(slot) : (index.idlestMs[slot] ?? 0);
    if (full && last !== undefined && last.boundMs === boundMs && last.hint <= hint) return;
    let at = this.kept.length;
    for (; at > 0; at--) {
      const before = this.kept[at - 1] as Bound;
      if (before.boundMs < boundMs || (before.boundMs === boundMs && before.hint <= hint)) break;
    }
    this.kept.splice(at, 0, { slot, boundMs, hint });
    if (full) this.kept.pop();
  }

  /**
   * Per slot: the measured load (or 0 where it is on disk, unmeasured), and the measured prefill. Returns the
   * least that a node which has the model says it takes; 0 = one does not say.
   */
  #markMeasured(): number {
    const { scratchA, scratchB } = this.#index;
    const { view, model } = this.#weighing;
    scratchA.fill(none);
    scratchB.fill(none);
    let leastMb = this.#weighing.sizeMb ?? 0;
    for (const slot of this.#index.presentSlots(model)) {
      scratchA[slot] = 0;
      const toldMb = this.#index.nodes[slot]?.models.get(model)?.vramMb ?? this.#weighing.sizeMb ?? 0;
      if (toldMb < leastMb) leastMb = toldMb;
    }
    for (const name of view.rates?.nodesOf(model) ?? []) {
      const slot = this.#index.slotOf(name);
      const rates = view.rates?.of(name, model) ?? null;
      if (slot === null || rates === null) continue;
      if (rates.loadMs !== null) scratchA[slot] = rates.loadMs;
      if (rates.prefillTokS !== null) scratchB[slot] = rates.prefillTokS;
    }
    return leastMb;
  }

  #loadMs(slot: number): number {
    const { scratchA, loadMbS } = this.#index;
    const measured = scratchA[slot] ?? none;
    if (measured > 0) return measured;
    const onDisk = measured === 0;
    const mbS = loadMbS[slot] ?? none;
    if (Number.isNaN(mbS)) return onDisk ? this.#loadHereMs : this.#loadFetchedMs;
    return loadPriorMs(this.#weighing.sizeMb, mbS, null, onDisk);
  }

  #prefillMs(slot: number): number {
    const measured = this.#index.scratchB[slot] ?? none;
    return prefillMsAt(this.#prompt, Number.isNaN(measured) ? this.#tokS : measured, 0);
  }

  #freeMb(slot: number): number {
    return this.#index.freeMb[slot * deviceColumns + Math.max(0, this.#column)] ?? 0;
  }

  /** 0 = may fit as it is, infinite = never. */
  #evictMs(slot: number): number {
    if (this.#column === -1) return 0;
    const index = this.#index;
    const at = slot * deviceColumns + this.#column;
    const kthMb = index.kthTotalMb[at] ?? -1;
    if (kthMb < (this.#weighing.entry?.minDeviceVramMb ?? 0)) return Number.POSITIVE_INFINITY;
    const freeMb = index.freeMb[at] ?? 0;
    if (this.#leastMb <= freeMb) return 0;
    if (this.#leastMb > (index.totalMb[at] ?? 0)) return Number.POSITIVE_INFINITY;
    const reclaimMb = index.reclaimMb[slot * index.ranks.length + this.#rank] ?? 0;
    return this.#leastMb <= freeMb + reclaimMb ? leastEvictMs : Number.POSITIVE_INFINITY;
  }
}
