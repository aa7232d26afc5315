/** On which node a model is loaded, and why not on the others. */
import type { ModelSpec } from 'cortex-core/wire/neuron';
import { needOf, planFit, type Victim } from './eviction.ts';
import type { CatalogueEntry, FleetView, ModelView, NodeView } from './fleet-view.ts';

export interface Placement {
  readonly node: string;
  readonly model: string;
  readonly spec: ModelSpec;
  readonly evict: readonly Victim[];
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
  /** What its victims cost in the strategy's measure. */
  readonly cost: number;
}

/** The best node for a model that no healthy node serves. `exclude` names nodes not to consider. */
export function choosePlacement(
  view: FleetView,
  model: string,
  exclude: ReadonlySet<string> = new Set(),
): PlacementChoice {
  const rejected: NodeRejection[] = [];
  let best: Candidate | null = null;
  for (const node of view.nodes) {
    if (exclude.has(node.name)) continue;
    const candidate = considerNode(view, node, model);
    if ('reason' in candidate) rejected.push(candidate);
    else if (best === null || compare(candidate, best) < 0) best = candidate;
  }
  return best === null ? { kind: 'none', rejected } : { kind: 'place', placement: best.placement, rejected };
}

/**
 * The plan for one given node, e.g. again when a queued load's turn comes. `explicit`: a person asked.
 * `spared`: models that may not leave now.
 */
export function considerNode(
  view: FleetView,
  node: NodeView,
  model: string,
  explicit = false,
  spared?: ReadonlySet<string>,
): Candidate | NodeRejection {
  const entry = view.catalogue.get(model);
  const held = node.models.get(model);
  const barred = barredFrom(node, model, entry, held, explicit);
  if (barred !== null) return { node: node.name, reason: barred, unhealthy: false };
  if (!node.healthy) {
    return { node: node.name, reason: `${node.name} does not answer`, unhealthy: true };
  }
  const fit = planFit(view, node, needOf(model, entry, held), spared);
  if (!fit.ok) return { node: node.name, reason: fit.reason, unhealthy: false };
  const names = fit.evict.map((victim) => victim.model);
  return {
    placement: {
      node: node.name,
      model,
      spec: specOf(node, model, entry, held, fit.devices),
      evict: fit.evict,
      why: names.length === 0 ? 'loads where it fits free' : `loads after evicting ${names.join(', ')}`,
    },
    pinned: entry?.pinnedOn.includes(node.name) ?? false,
    onDisk: held !== undefined,
    jobs: node.pending.length,
    freeMb: fit.freeMb,
    cost: fit.cost,
  };
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

/** Pinned first, then on disk, no other load under way, cheapest victims, most free, name. */
function compare(a: Candidate, b: Candidate): number {
  return (
    Number(b.pinned) - Number(a.pinned) ||
    Number(b.onDisk) - Number(a.onDisk) ||
    Number(a.placement.evict.length > 0) - Number(b.placement.evict.length > 0) ||
    a.jobs - b.jobs ||
    a.cost - b.cost ||
    a.placement.evict.length - b.placement.evict.length ||
    b.freeMb - a.freeMb ||
    (a.placement.node < b.placement.node ? -1 : 1)
  );
}
