/**
 * The one place where the simulator asks for a route. A node that neither has a model nor brings it up adds
 * nothing to the choice of a replica, so only the holders are asked first; the whole fleet is looked at when
 * the model has to be loaded somewhere.
 */
import type { NodeView } from '../decide/fleet-view.ts';
import { type RouteDecision, route } from '../decide/route.ts';
import type { SimFleet } from './sim-fleet.ts';

export function decideRoute(fleet: SimFleet, model: string): RouteDecision {
  const holders = fleet.holders.get(model);
  if (holders !== undefined && holders.size > 0) {
    const slots = [...holders].map((node) => node.slot).sort((a, b) => a - b);
    const nodes = slots.map((slot) => fleet.view.nodes[slot] as NodeView);
    const decision = route({ ...fleet.view, nodes }, model);
    if (decision.kind === 'forward' || decision.kind === 'wait') return decision;
  }
  return route(fleet.view, model);
}
