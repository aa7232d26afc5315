/** The one place where the simulator asks for a route. */
import { type RouteDecision, route } from '../decide/route.ts';
import type { SimFleet } from './sim-fleet.ts';
import type { TraceRequest } from './trace.ts';

/** `mayReplicate`: it has not waited yet. */
export function decideRoute(
  fleet: SimFleet,
  { model, promptTokens }: TraceRequest,
  nowMs: number,
  mayReplicate: boolean,
): RouteDecision {
  const hasSlot = (node: string): boolean => {
    const at = fleet.byName.get(node);
    return at !== undefined && (at.models.get(model)?.leases ?? 0) < at.spec.slots;
  };
  return route(fleet.view, { model, promptTokens, nowMs, mayReplicate, hasSlot });
}
