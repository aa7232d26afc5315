/** From a node's view to those whose turn it could be: what each would displace, and what that costs. */
import type { FleetView, NodeView } from './fleet-view.ts';
import { loadMsOf } from './load-time.ts';
import { toOccupant } from './occupants.ts';
import { considerNode } from './placement.ts';
import type { Contender } from './turns.ts';

/** A load that somebody wants on a node. */
export interface Wanted {
  readonly model: string;
  /** When its oldest request began to wait, ms. */
  readonly sinceMs: number;
  readonly priority: number;
  readonly urgent: boolean;
}

/** A load that cannot be placed displaces nobody: its turn comes at once, and it fails with the reason. */
export function toContender(view: FleetView, node: NodeView, wanted: Wanted): Contender {
  const candidate = considerNode(view, node, wanted.model, { explicit: wanted.urgent });
  const isThere = isComing(node, wanted.model);
  const evict = 'reason' in candidate || isThere ? [] : candidate.placement.evict;
  return {
    ...wanted,
    loadMs: loadMsOf(view, node, wanted.model),
    evict: evict.map((victim) => toOccupant(view, node, victim.model)),
  };
}

/** Up already, or somebody else loads it: it has its room. */
function isComing(node: NodeView, model: string): boolean {
  const status = node.models.get(model)?.status;
  return status === 'loaded' || status === 'loading';
}
