/** From a node's view to those whose turn it could be: what each would displace, and what that costs. */
import { sizeOf } from './eviction.ts';
import type { FleetView, NodeView } from './fleet-view.ts';
import { type Habits, noHabits } from './habits.ts';
import { considerNode } from './placement.ts';
import type { Contender, Occupant } from './turns.ts';
import { isBusy, loadMsOf } from './victim-cost.ts';

/** A load that somebody wants on a node. */
export interface Wanted {
  readonly model: string;
  /** When its oldest request began to wait, ms. */
  readonly sinceMs: number;
  readonly priority: number;
  readonly urgent: boolean;
}

export interface Lookups {
  readonly habits: (node: string, model: string) => Habits | undefined;
  /** Requests that stand in line for a model. */
  readonly waiting: (model: string) => number;
}

/** Expected time of a request where none was measured, ms. */
const serviceMsGuess = 5000;

/** A load that cannot be placed displaces nobody: its turn comes at once, and it fails with the reason. */
export function toContender(view: FleetView, node: NodeView, wanted: Wanted, lookups: Lookups): Contender {
  const candidate = considerNode(view, node, wanted.model, { explicit: wanted.urgent });
  const isThere = isComing(node, wanted.model);
  const evict = 'reason' in candidate || isThere ? [] : candidate.placement.evict;
  const mb = view.catalogue.get(wanted.model)?.vramMb ?? node.models.get(wanted.model)?.vramMb ?? 0;
  return {
    ...wanted,
    loadMs: loadMsOf(view.terms, node.name, wanted.model, mb),
    evict: evict.map((victim) => toOccupant(view, node, victim.model, lookups)),
  };
}

function toOccupant(view: FleetView, node: NodeView, model: string, lookups: Lookups): Occupant {
  const held = node.models.get(model);
  const habits = lookups.habits(node.name, model) ?? noHabits;
  return {
    model,
    busy: held !== undefined && isBusy(held),
    waiting: lookups.waiting(model),
    residentSinceMs: habits.residentSinceMs,
    idleSinceMs: habits.idleSinceMs,
    loadMs: loadMsOf(view.terms, node.name, model, held === undefined ? 0 : sizeOf(view, held)),
    gapMs: habits.gapMs,
    serviceMs: view.rates?.of(node.name, model)?.serviceMs ?? serviceMsGuess,
  };
}

/** Up already, or somebody else loads it: it has its room. */
function isComing(node: NodeView, model: string): boolean {
  const status = node.models.get(model)?.status;
  return status === 'loaded' || status === 'loading';
}
