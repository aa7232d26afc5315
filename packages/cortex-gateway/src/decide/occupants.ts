/** What a turn asks of a model that would have to leave. */
import type { FleetView, NodeView } from './fleet-view.ts';
import { noHabits } from './habits.ts';
import { loadMsOf } from './load-time.ts';
import type { Occupant } from './turns.ts';
import { isBusy } from './victim-cost.ts';

/** Expected time of a request where none was measured, ms. */
const serviceMsGuess = 5000;

export function toOccupant(view: FleetView, node: NodeView, model: string): Occupant {
  const held = node.models.get(model);
  const { residentSinceMs, idleSinceMs, gapMs } = view.turns?.habits(node.name, model) ?? noHabits;
  return {
    model,
    busy: held !== undefined && isBusy(held),
    waiting: view.turns?.waiting(model) ?? 0,
    residentSinceMs,
    idleSinceMs,
    loadMs: loadMsOf(view, node, model),
    gapMs,
    serviceMs: view.rates?.of(node.name, model)?.serviceMs ?? serviceMsGuess,
  };
}
