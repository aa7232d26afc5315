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
import { anyHarness, deviceColumns, type FleetIndex } from './fleet-index.ts';
import { defaultPriority } from './fleet-view.ts';
import { loadPriorMs } from './load-time.ts';
import { type ColdCandidate, considerCold, type NodeRejection } from './placement.ts';
import type { Rates } from './rate-book.ts';

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
  const count = index.nodes.length;
  for (let slot = 0; slot < count && searched < searchedForMovesMax; slot++) {
    if ((index.freeMb[(deviceColumns - 1) * count + slot] ?? 0) < leastMb) continue;
    const isSingle = (index.kthTotalMb[count + slot] ?? -1) < 0;
    if (isSingle || index.able[slot] === 0) continue;
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
  const { able, freeMb, idlestMs, jobs, nodes, scratchA } = index;
  // without an entry only nodes that have it can load it
  const slots = entry === undefined ? index.presentSlots(model) : null;
  const count = slots === null ? nodes.length : slots.length;
  // of the last one kept, once there are as many as may be
  let lastMs = impossible;
  let lastHint = impossible;
  for (let i = 0; i < count; i++) {
    const slot = slots === null ? i : (slots[i] ?? 0);
    const measured = scratchA[slot] ?? unknown;
    if (measured === taken || ((able[slot] ?? 0) & terms.harness) === 0) continue;
    const evictMs = evictBoundMs(terms, index, slot);
    if (evictMs === impossible || (freeOnly && evictMs > 0)) continue;
    const node = jobs[slot] === 0 ? undefined : nodes[slot];
    const queueMs = node === undefined ? 0 : jobsMs(weighing, node);
    const prefillMs = terms.isMeasured ? prefillBoundMs(terms, index, slot) : terms.prefillMs;
    const boundMs = queueMs + evictMs + loadBoundMs(terms, index, slot, measured) + prefillMs;
    if (boundMs > lastMs) continue;
    const hint = evictMs === 0 ? -(freeMb[terms.column + slot] ?? 0) : (idlestMs[slot] ?? 0);
    if (boundMs === lastMs && hint >= lastHint) continue;
    keep(kept, { slot, boundMs, hint });
    const last = kept.length === plansMax ? kept[plansMax - 1] : undefined;
    lastMs = last?.boundMs ?? impossible;
    lastHint = last?.hint ?? impossible;
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
  /** Whether memory alone does not say that the devices are there. */
  readonly asksDevices: boolean;
  /** Where the column of the k-th device begins. */
  readonly column: number;
  /** More devices than there are columns: memory bounds nothing. */
  readonly isWide: boolean;
  /** Where the column of its rank begins. */
  readonly rank: number;
  readonly harness: number;
  readonly sizeMb: number | null;
  readonly isOnEveryDisk: boolean;
  readonly loadHereMs: number;
  readonly loadFetchedMs: number;
  readonly promptTokens: number;
  /** Whether any node has measured the model. */
  readonly isMeasured: boolean;
  readonly prefillMs: number;
}

const none: readonly number[] = [];
const impossible = Number.POSITIVE_INFINITY;
const unknown = Number.NaN;
/** The model is there, or comes or goes: no place for another load of it. */
const taken = -1;

function toBoundTerms(weighing: Weighing, index: FleetIndex): BoundTerms {
  const { entry, sizeMb, mean } = weighing;
  const toldMb = markMeasured(weighing, index);
  const leastMb = entry?.vramMb ?? toldMb;
  const minDeviceMb = entry?.minDeviceVramMb ?? 0;
  const devices = Math.max(1, entry?.minDevices ?? 1);
  const promptTokens = promptTokensOf(weighing.request);
  return {
    leastMb,
    minDeviceMb,
    asksDevices: devices > 1 || minDeviceMb > 0 || leastMb <= 0,
    column: (Math.min(devices, deviceColumns) - 1) * index.nodes.length,
    isWide: devices > deviceColumns,
    rank: index.rankColumn(entry?.residencyPriority ?? defaultPriority) * index.nodes.length,
    harness: entry === undefined ? anyHarness : index.harnessBit(entry.harness),
    sizeMb,
    isOnEveryDisk: weighing.view.isOnEveryDisk === true,
    loadHereMs: loadPriorMs(sizeMb, null, mean?.loadMs ?? null, true),
    loadFetchedMs: loadPriorMs(sizeMb, null, mean?.loadMs ?? null, false),
    promptTokens,
    isMeasured: weighing.rates.size > 0,
    prefillMs: prefillMsAt(promptTokens, prefillElsewhere(weighing), 0),
  };
}

/**
 * Notes per slot the measured load (or 0 where it is on disk, unmeasured; `taken` where it is no candidate)
 * and the measured prefill. Returns the least that a candidate which has the model says it takes; 0 = one
 * does not say.
 */
function markMeasured({ model, sizeMb, rates }: Weighing, index: FleetIndex): number {
  const { nodes, scratchA, scratchB } = index;
  scratchA.fill(unknown);
  scratchB.fill(unknown);
  const residents = index.replicasOf(model)?.slots ?? none;
  for (let i = 0; i < residents.length; i++) scratchA[residents[i] ?? 0] = taken;
  let leastMb = sizeMb ?? 0;
  for (const slot of index.presentSlots(model)) {
    if (scratchA[slot] === taken) continue;
    scratchA[slot] = 0;
    const toldMb = nodes[slot]?.models.get(model)?.vramMb ?? sizeMb ?? 0;
    if (toldMb < leastMb) leastMb = toldMb;
  }
  if (rates.size < nodes.length - residents.length) {
    for (const [name, measured] of rates) noteRates(index, index.slotOf(name), measured);
  } else {
    for (let slot = 0; slot < nodes.length; slot++) {
      if (scratchA[slot] !== taken) noteRates(index, slot, rates.get(nodes[slot]?.name ?? ''));
    }
  }
  return leastMb;
}

function noteRates(
  { scratchA, scratchB }: FleetIndex,
  slot: number | null,
  measured: Rates | undefined,
): void {
  if (slot === null || measured === undefined || scratchA[slot] === taken) return;
  if (measured.loadMs !== null) scratchA[slot] = measured.loadMs;
  if (measured.prefillTokS !== null) scratchB[slot] = measured.prefillTokS;
}

/** 0 = may fit as it is. */
function evictBoundMs(terms: BoundTerms, index: FleetIndex, slot: number): number {
  if (terms.isWide) return 0;
  const at = terms.column + slot;
  if (terms.asksDevices && (index.kthTotalMb[at] ?? -1) < terms.minDeviceMb) return impossible;
  const lackMb = terms.leastMb - (index.freeMb[at] ?? 0);
  if (lackMb <= 0) return 0;
  if (terms.leastMb > (index.totalMb[at] ?? 0)) return impossible;
  if (lackMb > (index.reclaimMb[terms.rank + slot] ?? 0)) return impossible;
  return leastEvictMs * Math.ceil(lackMb / (index.largestMb[slot] ?? lackMb));
}

/** `measured`: as `markMeasured` notes it. */
function loadBoundMs(terms: BoundTerms, index: FleetIndex, slot: number, measured: number): number {
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
