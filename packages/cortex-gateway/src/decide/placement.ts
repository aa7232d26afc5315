/** What a load of a model on a node would take, or why it cannot be there. */
import type { ModelSpec } from 'cortex-core/wire/neuron';
import { type ModelMove, planRoom, type RoomPlan } from './defrag.ts';
import { partsByKind } from './device-kinds.ts';
import { type Fit, freeByDevice, type MemoryNeed, needOf, planFit, type Victim } from './eviction.ts';
import { noTerms, type RouteTerms, type Weighing, weighCold } from './expected-time.ts';
import type { CatalogueEntry, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { sizeElsewhere } from './fleet-view.ts';

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

/** A plan for a node, and what it costs. */
export interface ColdCandidate {
  readonly placement: Placement;
  readonly terms: RouteTerms;
  readonly freeMb: number;
  /** What its victims cost in the strategy's measure; 0 without victims. */
  readonly cost: number;
}

interface NodePlan {
  readonly placement: Placement;
  readonly freeMb: number;
  /** What its victims cost in the strategy's measure; 0 without victims. */
  readonly cost: number;
}

export interface Latitude {
  /** A person asked. */
  readonly explicit?: boolean;
  /** Other models of the node may change their devices for it; the search may take milliseconds. */
  readonly mayMove?: boolean;
  /** Models that may not leave now. */
  readonly spared?: ReadonlySet<string>;
}

/** The plan for one given node, e.g. again when a queued load's turn comes. */
export function considerNode(
  view: FleetView,
  node: NodeView,
  model: string,
  { explicit = false, mayMove = true, spared = nobody }: Latitude = {},
): NodePlan | NodeRejection {
  const entry = view.catalogue.get(model);
  const held = node.models.get(model);
  const refusal = refusalOf(node, model, entry, held, explicit);
  if (refusal !== null) return refusal;
  const told = needOf(model, entry, held);
  const need = told.vramMb > 0 ? told : { ...told, vramMb: sizeElsewhere(view, model) ?? 0 };
  const reasons: string[] = [];
  for (const part of partsByKind(node)) {
    const found = fitOn(view, part, need, mayMove, spared);
    if ('reason' in found) {
      reasons.push(found.reason);
      continue;
    }
    const failed = explicit || found.evict.length === 0 ? undefined : node.failedLoads?.get(model);
    if (failed !== undefined) {
      reasons.push(`${failed}; it evicts nobody on ${node.name} for a while`);
      continue;
    }
    const { devices, freeMb, cost, ...placed } = found;
    const spec = specOf(node, model, entry, held, devices);
    return { placement: { node: node.name, model, spec, ...placed }, freeMb, cost };
  }
  return { node: node.name, reason: reasons[0] ?? `${node.name} has no devices`, unhealthy: false };
}

/** Why the node takes no load of the model, however much room there is; null = it may. */
export function refusalOf(
  node: NodeView,
  model: string,
  entry: CatalogueEntry | undefined,
  held: ModelView | undefined,
  explicit = false,
): NodeRejection | null {
  const barred = barredFrom(node, model, entry, held, explicit);
  if (barred !== null) return { node: node.name, reason: barred, unhealthy: false };
  if (!node.healthy) {
    return { node: node.name, reason: `${node.name} ${node.refusal ?? 'does not answer'}`, unhealthy: true };
  }
  if (node.cordoned === true) {
    return { node: node.name, reason: `${node.name} is cordoned by an operator`, unhealthy: true };
  }
  return null;
}

type Found = Pick<Placement, 'evict' | 'moves' | 'why'> &
  Pick<RoomPlan, 'devices' | 'freeMb'> &
  Pick<NodePlan, 'cost'>;

const nobody: ReadonlySet<string> = new Set();

/** Free, else after moves where those pay, else after evictions. */
function fitOn(
  view: FleetView,
  part: NodeView,
  need: MemoryNeed,
  mayMove: boolean,
  spared: ReadonlySet<string>,
): Found | { readonly reason: string } {
  const fit = planFit(view, part, need, spared);
  const room = mayMove ? roomByMoves(view, part, need, fit) : null;
  if (room !== null) {
    const { moves, devices, freeMb } = room;
    const names = moves.map((move) => `${move.model} to device ${move.to}`);
    return { evict: [], moves, devices, freeMb, cost: 0, why: `loads after moving ${names.join(', ')}` };
  }
  if (!fit.ok) return fit;
  const { evict, devices, freeMb, cost } = fit;
  const count = evict.length;
  const why =
    count === 0 ? 'loads where it fits free' : `loads after ${count} other${count > 1 ? 's' : ''} left`;
  return { evict, devices, freeMb, cost, why };
}

/** Where fragments alone are in the way, and moves do not cost more than what would have to go. */
function roomByMoves(view: FleetView, node: NodeView, need: MemoryNeed, fit: Fit): RoomPlan | null {
  if (node.devices.length < 2 || (fit.ok && fit.evict.length === 0)) return null;
  const evictedMb = fit.ok ? fit.evict.reduce((total, victim) => total + victim.vramMb, 0) : null;
  const decision = planRoom(view, node, need, evictedMb);
  return decision.kind === 'room' ? decision.plan : null;
}

/**
 * The plan for a load that is not wanted there yet, and its expected time. What the node's queued loads will
 * take counts as taken, as long as the model fits besides them. null = it is there already, or comes or goes.
 */
export function considerCold(
  weighing: Weighing,
  node: NodeView,
  mayMove: boolean,
): ColdCandidate | NodeRejection | null {
  const { view, model } = weighing;
  if (node.pending.includes(model) || isThere(node.models.get(model))) return null;
  let plan = considerNode(view, withReservations(view, node), model, { mayMove });
  const displacesQueued = 'reason' in plan && !plan.unhealthy && node.pending.length > 0;
  if (displacesQueued) plan = considerNode(view, node, model, { mayMove });
  if ('reason' in plan) return plan;
  const { evict, moves = [] } = plan.placement;
  const viewOf = ({ model: id }: { readonly model: string }) => node.models.get(id) ?? [];
  const terms = noTerms();
  const queued = displacesQueued ? node.pending : [];
  weighCold(weighing, node, { evict: evict.flatMap(viewOf), moved: moves.flatMap(viewOf), queued }, terms);
  return { ...plan, terms };
}

/** It serves, or its state decides whether and when: another load of it there is out of the question. */
function isThere(held: ModelView | undefined): boolean {
  if (held === undefined) return false;
  if (held.status === 'loaded') return held.unservable === null;
  return held.status === 'loading' || held.status === 'unloading' || held.status === 'recovering';
}

function withReservations(view: FleetView, node: NodeView): NodeView {
  if (node.pending.length === 0) return node;
  const free = freeByDevice(view, node);
  for (const id of node.pending) {
    const held = node.models.get(id);
    if (held?.status === 'loaded') continue;
    const need = needOf(id, view.catalogue.get(id), held);
    const freest = [...free].sort((a, b) => b[1] - a[1]).slice(0, need.minDevices);
    for (const [index, mb] of freest) free.set(index, mb - need.vramMb / freest.length);
  }
  const devices = node.devices.map((device) => ({
    ...device,
    freeMb: free.get(device.index) ?? 0,
  }));
  // what leaves is counted in these readings already
  const models = new Map([...node.models].filter(([, { status }]) => status !== 'unloading'));
  return { ...node, devices, models };
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
