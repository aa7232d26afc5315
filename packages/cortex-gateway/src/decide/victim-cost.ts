/**
 * What it costs to let a model go.
 *
 * `lru` and `priority` are orders. `cost` is a price: the time a reload takes over the time until the model
 * is wanted again, times its rank. When it is wanted again nobody knows: the longer of how long it has been
 * idle and how long it usually is (an idle time that exceeds the habit says that the habit ended). The price
 * is the waiting a reload will cause per unit of time, so prices of models add up and compare across nodes.
 */
import type { FleetView, ModelView, NodeView } from './fleet-view.ts';
import { defaultPriority, priorityOf } from './fleet-view.ts';
import { loadMsOf } from './load-time.ts';

/** A model in use is wanted again at once; ms. */
const soonestMs = 1000;
/** Stands for "never": before whatever the clock says of a use, which may be less than 0. */
const neverMs = -1e11;

/** Who leaves first: the idle before the busy, then the strategy's order. */
export function inOrder(view: FleetView, node: NodeView, models: readonly ModelView[]): ModelView[] {
  return [...models].sort((a, b) => {
    const busy = Number(isBusy(a)) - Number(isBusy(b));
    if (busy !== 0) return busy;
    if (view.strategy === 'cost') {
      const price = priceOf(view, node, a) - priceOf(view, node, b);
      if (price !== 0) return price;
    }
    const rank = view.strategy === 'priority' ? priorityOf(view, a.id) - priorityOf(view, b.id) : 0;
    return rank || usedMs(a) - usedMs(b) || (a.id < b.id ? -1 : 1);
  });
}

/** Of a set of victims, in a measure that compares sets on different nodes. 0 for nobody. */
export function costOf(view: FleetView, node: NodeView, victims: readonly ModelView[]): number {
  if (victims.length === 0) return 0;
  if (view.strategy === 'cost')
    return victims.reduce((total, victim) => total + priceOf(view, node, victim), 0);
  // of an order: who leaves last decides
  return Math.max(
    ...victims.map((victim) => {
      const rank = view.strategy === 'priority' ? priorityOf(view, victim.id) : 0;
      return (isBusy(victim) ? 1e15 : 0) + rank * 1e12 + usedMs(victim) - neverMs + 1;
    }),
  );
}

/** Of the last use. */
export function usedMs({ lastUsedMs }: ModelView): number {
  return lastUsedMs ?? neverMs;
}

/** It answers, or somebody waits for the end of its load. */
export function isBusy(model: ModelView): boolean {
  return model.leases + model.foreignLoad > 0 || model.status === 'loading';
}

function priceOf(view: FleetView, node: NodeView, model: ModelView): number {
  const terms = view.terms;
  const idleMs =
    terms === undefined || model.lastUsedMs === null
      ? Number.POSITIVE_INFINITY
      : terms.nowMs - model.lastUsedMs;
  const wantedInMs = isBusy(model)
    ? soonestMs
    : Math.max(soonestMs, Math.min(idleMs, unusedMs), terms?.gapMs(node.name, model.id) ?? 0);
  const rank = Math.max(0.01, priorityOf(view, model.id) / defaultPriority);
  return (loadMsOf(view, node, model.id) / wantedInMs) * rank;
}

/** Idle time of a model that was never used, ms. */
const unusedMs = 7 * 24 * 3_600_000;
