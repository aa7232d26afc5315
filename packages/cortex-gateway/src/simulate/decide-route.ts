/** The one place where the simulator asks for a route. */
import type { RouteDecision } from '../decide/route.ts';
import { routeToSlot } from '../decide/route-to-slot.ts';
import type { SimFleet } from './sim-fleet.ts';
import type { TraceRequest } from './trace.ts';

/** `mayReplicate`: it has not waited yet. */
export function decideRoute(
  fleet: SimFleet,
  { model, promptTokens }: TraceRequest,
  nowMs: number,
  mayReplicate: boolean,
): RouteDecision {
  return routeToSlot(fleet.view, { model, promptTokens, nowMs, mayReplicate }, ({ node }) => {
    const at = fleet.byName.get(node);
    return at !== undefined && (at.models.get(model)?.leases ?? 0) < at.spec.slots;
  });
}
