/** On which node a model is loaded, and why not on the others. */
import type { ModelSpec } from 'cortex-core/wire/neuron';
import { type ModelMove, planRoom, type RoomPlan } from './defrag.ts';
import { partsByKind } from './device-kinds.ts';
import { type Fit, type MemoryNeed, needOf, planFit, type Victim } from './eviction.ts';
import type { CatalogueEntry, FleetView, ModelView, NodeView } from './fleet-view.ts';

export interface Placement {
  readonly node: string;
  readonly model: string;
  readonly spec: ModelSpec;
  readonly evict: readonly Victim[];
  /** Models that go to other devices of the node first, in this order; then nothing is evicted. */
  readonly moves?: readonly ModelMove[];
  /** Why this node. */
  readonly why: string;
}

export interface NodeRejection {
  readonly node: string;
  readonly reason: string;
  /** The node could serve it, were it healthy. */
  readonly unhealthy: boolean;
}

export type PlacementChoice =
  | { readonly kind: 'place'; readonly placement: Placement; readonly rejected: readonly NodeRejection[] }
  | { readonly kind: 'none'; readonly rejected: readonly NodeRejection[] };

interface Candidate {
  readonly placement: Placement;
  readonly pinned: boolean;
  readonly onDisk: boolean;
  readonly jobs: number;
  readonly freeMb: number;
}

/** A search for moves may take milliseconds. */
const nodesSearchedForMovesMax = 8;

/** The best node for a model that no healthy node serves. `exclude` names nodes not to consider. */
export function choosePlacement(
  view: FleetView,
  model: string,
  exclude: ReadonlySet<string> = new Set(),
): PlacementChoice {
  const rejected: NodeRejection[] = [];
  const fragmented: NodeView[] = [];
  let best: Candidate | null = null;
  for (const node of view.nodes) {
    if (exclude.has(node.name)) continue;
    const candidate = considerNode(view, node, model, { mayMove: false });
    const isFree = !('reason' in candidate) && candidate.placement.evict.length === 0;
    if (!isFree && mayBeFragmented(view, node, model)) fragmented.push(node);
    if ('reason' in candidate) rejected.push(candidate);
    else if (best === null || compare(candidate, best) < 0) best = candidate;
  }
  if (best === null || best.placement.evict.length > 0) {
    for (const node of fragmented.slice(0, nodesSearchedForMovesMax)) {
      const candidate = considerNode(view, node, model);
      if (!('reason' in candidate) && (best === null || compare(candidate, best) < 0)) best = candidate;
    }
  }
  return best === null ? { kind: 'none', rejected } : { kind: 'place', placement: best.placement, rejected };
}

function mayBeFragmented(view: FleetView, node: NodeView, model: string): boolean {
  if (!node.healthy || node.devices.length < 2) return false;
  return barredFrom(node, model, view.catalogue.get(model), node.models.get(model), false) === null;
}

/**
 * The plan for one given node, e.g. again when a queued load's turn comes. `explicit`: a person asked.
 * `mayMove`: other models of the node may change their devices for it.
 */
export function considerNode(
  view: FleetView,
  node: NodeView,
  model: string,
  { explicit = false, mayMove = true }: { readonly explicit?: boolean; readonly mayMove?: boolean } = {},
): Candidate | NodeRejection {
  const entry = view.catalogue.get(model);
  const held = node.models.get(model);
  const barred = barredFrom(node, model, entry, held, explicit);
  if (barred !== null) return { node: node.name, reason: barred, unhealthy: false };
  if (!node.healthy) {
    return { node: node.name, reason: `${node.name} does not answer`, unhealthy: true };
  }
  const need = needOf(model, entry, held);
  const reasons: string[] = [];
  for (const part of partsByKind(node)) {
    const found = fitOn(view, part, need, mayMove);
    if ('reason' in found) {
      reasons.push(found.reason);
      continue;
    }
    const { devices, freeMb, ...placed } = found;
    return {
      placement: { node: node.name, model, spec: specOf(node, model, entry, held, devices), ...placed },
      pinned: entry?.pinnedOn.includes(node.name) ?? false,
      onDisk: held !== undefined,
      jobs: node.pending.length,
      freeMb,
    };
  }
  return { node: node.name, reason: reasons[0] ?? `${node.name} has no devices`, unhealthy: false };
}

/** Free, else after moves where those pay, else after evictions. */
function fitOn(
  view: FleetView,
  part: NodeView,
  need: MemoryNeed,
  mayMove: boolean,
):
  | (Pick<Placement, 'evict' | 'moves' | 'why'> & Pick<RoomPlan, 'devices' | 'freeMb'>)
  | { readonly reason: string } {
  const fit = planFit(view, part, need);
  const room = mayMove ? roomByMoves(view, part, need, fit) : null;
  if (room !== null) {
    const { moves, devices, freeMb } = room;
    const names = moves.map((move) => `${move.model} to device ${move.to}`);
    return { evict: [], moves, devices, freeMb, why: `loads after moving ${names.join(', ')}` };
  }
  if (!fit.ok) return fit;
  const { evict, devices, freeMb } = fit;
  const names = evict.map((victim) => victim.model);
  const why = names.length === 0 ? 'loads where it fits free' : `loads after evicting ${names.join(', ')}`;
  return { evict, devices, freeMb, why };
}

/** Where fragments alone are in the way, and moves do not cost more than what would have to go. */
function roomByMoves(view: FleetView, node: NodeView, need: MemoryNeed, fit: Fit): RoomPlan | null {
  if (node.devices.length < 2 || (fit.ok && fit.evict.length === 0)) return null;
  const evictedMb = fit.ok ? fit.evict.reduce((total, victim) => total + victim.vramMb, 0) : null;
  const decision = planRoom(view, node, need, evictedMb);
  return decision.kind === 'room' ? decision.plan : null;
}

function barredFrom(
  node: NodeView,
  model: string,
  entry: CatalogueEntry | undefined,
  held: ModelView | undefined,
  explicit: boolean,
): string | null {
  if (entry === undefined && held === undefined) return `${node.name} does not have it`;
  if (entry !== undefined && entry.pinnedOn.length > 0 && !entry.pinnedOn.includes(node.name)) {
    return `pinned to ${entry.pinnedOn.join(', ')}, not ${node.name}`;
  }
  if (!node.discovered) return node.healthy ? `${node.name} has not told its devices yet` : null;
  const harness = entry?.harness ?? held?.harness;
  if (harness !== undefined && node.harnesses.length > 0 && !node.harnesses.includes(harness)) {
    return `${node.name} has no harness "${harness}" (it has ${node.harnesses.join(', ')})`;
  }
  if (held?.status === 'poisoned' && !explicit)
    return `${model} is poisoned on ${node.name}; load it explicitly to try again`;
  if (held?.status === 'loaded' && held.unservable !== null) return `${node.name}: ${held.unservable}`;
  return null;
}

function specOf(
  node: NodeView,
  model: string,
  entry: CatalogueEntry | undefined,
  held: ModelView | undefined,
  devices: readonly number[],
): ModelSpec {
  const wireId = held?.wireId ?? entry?.wireId ?? model;
  const spec: ModelSpec = { model_id: wireId, harness: entry?.harness ?? held?.harness ?? 'llamacpp' };
  if (entry?.quant) spec.quant = entry.quant;
  if (entry !== undefined && entry.minDevices > 1) spec.tensor_parallel = entry.minDevices;
  if (devices.length > 0 && (entry !== undefined || node.devices.length > 1)) spec.devices = [...devices];
  return spec;
}

/** Pinned first, then on disk, no other load under way, fewest victims, most free, name. */
function compare(a: Candidate, b: Candidate): number {
  return (
    Number(b.pinned) - Number(a.pinned) ||
    Number(b.onDisk) - Number(a.onDisk) ||
    Number(a.placement.evict.length > 0) - Number(b.placement.evict.length > 0) ||
    (a.placement.moves?.length ?? 0) - (b.placement.moves?.length ?? 0) ||
    a.jobs - b.jobs ||
    a.placement.evict.length - b.placement.evict.length ||
    b.freeMb - a.freeMb ||
    (a.placement.node < b.placement.node ? -1 : 1)
  );
}
