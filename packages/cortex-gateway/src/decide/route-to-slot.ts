/** A route that prefers a replica with a free slot: one that is full is chosen only when all of them are. */
import type { FleetView } from './fleet-view.ts';
import { type Forward, type RouteDecision, route } from './route.ts';
import type { RouteRequest } from './route-request.ts';

/** `hasSlot`: whether the replica takes another request now, running or in the neuron's own queue. */
export function routeToSlot(
  view: FleetView,
  request: RouteRequest,
  hasSlot: (replica: Forward) => boolean,
): RouteDecision {
  const decision = route(view, request);
  if (decision.kind !== 'forward' || hasSlot(decision)) return decision;
  const exclude = new Set(request.exclude);
  for (let full = decision; ; ) {
    exclude.add(full.node);
    const other = route(view, { ...request, exclude, mustServeNow: true, mayReplicate: false });
    if (other.kind !== 'forward') return decision;
    if (hasSlot(other)) return other;
    full = other;
  }
}
