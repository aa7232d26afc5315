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
  prefillElsewhere,
  prefillMsAt,
  promptTokensOf,
  scoreOf,
  type Weighing,
} from './expected-time.ts';
import { deviceColumns, type FleetIndex } from './fleet-index.ts';
import { defaultPriority } from './fleet-view.ts';
import { loadPriorMs } from './load-time.ts';
import { type ColdCandidate, considerCold, type NodeRejection } from './placement.ts';

export interface ColdChoice {
  readonly best: ColdCandidate | null;
  /** A sentence per node; only filled when there is no candidate. */
  readonly rejected: readonly NodeRejection[];
}

const plansMax = 24;
/** A search for moves between devices may take milliseconds. */
const searchedForMovesMax = 8;

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
  if (freeOnly) return { best, rejected: [] };
  const choice = best === null ? planEverywhere(weighing, index) : { best, rejected: [] };
  return choice.best?.placement.evict.length === 0 ? choice : withMoves(weighing, index, choice);
}

/** Where fragments alone are in the way: models that change their devices cost less than those that go. */
function withMoves(weighing: Weighing, index: FleetIndex, { best, rejected }: ColdChoice): ColdChoice {
  let better = best;
  let searched = 0;
  const leastMb = weighing.sizeMb ?? 0;
  for (let slot = 0; slot < index.nodes.length && searched < searchedForMovesMax; slot++) {
    const row = slot * deviceColumns;
    if ((index.freeMb[row + deviceColumns - 1] ?? 0) < leastMb) continue;
    const isSingle = (index.kthTotalMb[row + 1] ?? -1) < 0;
    if (isSingle || index.healthy[slot] === 0) continue;
    searched++;
    const candidate = planAt(weighing, index, slot, true);
    if (candidate === null || 'reason' in candidate || candidate.placement.moves === undefined) continue;
    if (better === null || compareCold(candidate, better) < 0) better = candidate;
  }
  return { best: better, rejected: better === null ? rejected : [] };
}

export function compareCold(a: ColdCandidate, b: ColdCandidate): number {
  const byName = a.placement.node < b.placement.node ? -1 : 1;
  return scoreOf(a.terms) - scoreOf(b.terms) || a.cost - b.cost || b.freeMb - a.freeMb || byName;
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

function planAt(
  weighing: Weighing,
  index: FleetIndex,
  slot: number,
  mayMove = false,
): ColdCandidate | NodeRejection | null {
  const node = index.nodes[slot];
  if (node === undefined || weighing.request.exclude?.has(node.name)) return null;
  return considerCold(weighing, node, mayMove);
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
  const { entry, model } = weighing;
  const kept: Bound[] = [];
  const terms = toBoundTerms(weighing, index);
  // without an entry only nodes that have it can load it
  const slots = entry === undefined ? index.presentSlots(model) : null;
  const count = slots === null ? index.nodes.length : slots.length;
  for (let i = 0; i < count; i++) {
    const slot = slots === null ? i : (slots[i] ?? 0);
    if (index.scratchA[slot] === taken) continue;
    const evictMs = evictBoundMs(terms, index, slot);
    if (evictMs === impossible || (freeOnly && evictMs > 0)) continue;
    const node = index.jobs[slot] === 0 ? undefined : index.nodes[slot];
    const queueMs = node === undefined ? 0 : jobsMs(weighing, node);
    const boundMs = queueMs + evictMs + loadBoundMs(terms, index, slot) + prefillBoundMs(terms, index, slot);
    const last = kept.length === plansMax ? kept[plansMax - 1] : undefined;
    if (last !== undefined && last.boundMs < boundMs) continue;
    const hint =
      evictMs === 0 ? -(index.freeMb[slot * deviceColumns + terms.column] ?? 0) : (index.idlestMs[slot] ?? 0);
    if (last !== undefined && last.boundMs === boundMs && last.hint <= hint) continue;
    keep(kept, { slot, boundMs, hint });
  }
  return kept;
}

function keep(kept: Bound[], bound: Bound): void {
  let at = kept.length;
  for (; at > 0; at--) {
    const before = kept[at - 1] as Bound;
    if (before.boundMs < bound.boundMs || (before.boundMs === bound.boundMs && before.hint <= bound.hint))
      break;
  }
  kept.splice(at, 0, bound);
  if (kept.length > plansMax) kept.pop();
}

/** What the bounds of all slots are made of. */
interface BoundTerms {
  /** No node needs less. */
  readonly leastMb: number;
  readonly minDeviceMb: number;
  /** Column of the k-th device. */
  readonly column: number;
  /** More devices than there are columns: memory bounds nothing. */
  readonly isWide: boolean;
  readonly rank: number;
  readonly harness: number;
  readonly sizeMb: number | null;
  readonly isOnEveryDisk: boolean;
  readonly loadHereMs: number;
  readonly loadFetchedMs: number;
  readonly promptTokens: number;
  readonly prefillMs: number;
}

const impossible = Number.POSITIVE_INFINITY;
const unknown = Number.NaN;
/** The model is there, or comes or goes: no place for another load of it. */
const taken = -1;

function toBoundTerms(weighing: Weighing, index: FleetIndex): BoundTerms {
  const { entry, sizeMb, mean } = weighing;
  const toldMb = markMeasured(weighing, index);
  const devices = Math.max(1, entry?.minDevices ?? 1);
  const promptTokens = promptTokensOf(weighing.request);
  return {
    leastMb: entry?.vramMb ?? toldMb,
    minDeviceMb: entry?.minDeviceVramMb ?? 0,
    column: Math.min(devices, deviceColumns) - 1,
    isWide: devices > deviceColumns,
    rank: index.rankColumn(entry?.residencyPriority ?? defaultPriority),
    harness: entry === undefined ? 0 : index.harnessBit(entry.harness),
    sizeMb,
    isOnEveryDisk: weighing.view.isOnEveryDisk === true,
    loadHereMs: loadPriorMs(sizeMb, null, mean?.loadMs ?? null, true),
    loadFetchedMs: loadPriorMs(sizeMb, null, mean?.loadMs ?? null, false),
    promptTokens,
    prefillMs: prefillMsAt(promptTokens, prefillElsewhere(weighing), 0),
  };
}

/**
 * Notes per slot the measured load (or 0 where it is on disk, unmeasured; `taken` where it is no candidate)
 * and the measured prefill. Returns the least that a node which has the model says it takes; 0 = one does
 * not say.
 */
function markMeasured({ model, sizeMb, rates }: Weighing, index: FleetIndex): number {
  const { scratchA, scratchB } = index;
  scratchA.fill(unknown);
  scratchB.fill(unknown);
  let leastMb = sizeMb ?? 0;
  for (const slot of index.presentSlots(model)) {
    scratchA[slot] = 0;
    const toldMb = index.nodes[slot]?.models.get(model)?.vramMb ?? sizeMb ?? 0;
    if (toldMb < leastMb) leastMb = toldMb;
  }
  for (const [name, measured] of rates) {
    const slot = index.slotOf(name);
    if (slot === null) continue;
    if (measured.loadMs !== null) scratchA[slot] = measured.loadMs;
    if (measured.prefillTokS !== null) scratchB[slot] = measured.prefillTokS;
  }
  for (const slot of index.replicasOf(model)?.slots ?? []) scratchA[slot] = taken;
  return leastMb;
}

/** 0 = may fit as it is. */
function evictBoundMs(terms: BoundTerms, index: FleetIndex, slot: number): number {
  if (index.healthy[slot] === 0) return impossible;
  const harnesses = index.harnesses[slot] ?? 0;
  if (terms.harness !== 0 && harnesses !== 0 && (harnesses & terms.harness) === 0) return impossible;
  if (terms.isWide) return 0;
  const at = slot * deviceColumns + terms.column;
  if ((index.kthTotalMb[at] ?? -1) < terms.minDeviceMb) return impossible;
  const lackMb = terms.leastMb - (index.freeMb[at] ?? 0);
  if (lackMb <= 0) return 0;
  if (terms.leastMb > (index.totalMb[at] ?? 0)) return impossible;
  if (lackMb > (index.reclaimMb[slot * index.ranks.length + terms.rank] ?? 0)) return impossible;
  return leastEvictMs * Math.ceil(lackMb / (index.largestMb[slot] ?? lackMb));
}

function loadBoundMs(terms: BoundTerms, index: FleetIndex, slot: number): number {
  const measured = index.scratchA[slot] ?? unknown;
  if (measured > 0) return measured;
  const onDisk = measured === 0 || terms.isOnEveryDisk;
  const mbS = index.loadMbS[slot] ?? unknown;
  if (Number.isNaN(mbS)) return onDisk ? terms.loadHereMs : terms.loadFetchedMs;
  return loadPriorMs(terms.sizeMb, mbS, null, onDisk);
}

function prefillBoundMs(terms: BoundTerms, index: FleetIndex, slot: number): number {
  const measured = index.scratchB[slot] ?? unknown;
  return Number.isNaN(measured) ? terms.prefillMs : prefillMsAt(terms.promptTokens, measured, 0);
}
