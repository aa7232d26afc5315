/** Which nodes can say how many tokens a request has: those that hold the model, then those with its file. */
import { type FleetView, type ModelView, type NodeView, resolveAlias } from './fleet-view.ts';
import { reject, rejectUnhealthy, rejectUnknown } from './refusals.ts';
import type { Rejection } from './route.ts';

export interface CountingNode {
  readonly node: string;
  readonly wireId: string;
  readonly capabilities: readonly string[];
  readonly why: string;
}

export type CountPlan =
  | { readonly kind: 'ask'; readonly model: string; readonly nodes: readonly CountingNode[] }
  | Rejection;

/** In the order in which to ask them. Nothing is loaded for it, so no memory is looked at. */
export function planCount(view: FleetView, requested: string): CountPlan {
  const model = resolveAlias(view, requested);
  const healthy = view.nodes.filter((node) => node.healthy);
  const found = healthy.flatMap((node) => {
    const held = node.models.get(model);
    return held === undefined || held.status === 'unknown' ? [] : [{ node, held }];
  });
  if (found.length > 0) return { kind: 'ask', model, nodes: found.sort(compare).map(toCountingNode) };
  if (healthy.length === 0) return rejectUnhealthy(view, model);
  const away = view.nodes.find((node) => node.models.has(model));
  if (away !== undefined) {
    const message = `model "${requested}" is on ${away.name} alone, which does not answer now; try again`;
    return reject(model, 'node_unhealthy', message, 5);
  }
  if (!view.catalogue.has(model)) return rejectUnknown(view, requested, model);
  const message =
    `model "${requested}" is in the catalogue and on no node's disk yet, so nobody has its tokenizer; ` +
    'load it once';
  return reject(model, 'model_not_loaded', message, null);
}

interface Found {
  readonly node: NodeView;
  readonly held: ModelView;
}

/** Loaded first, least busy first; the name last, so that a burst opens the file on one node. */
function compare(a: Found, b: Found): number {
  const rank = ({ held }: Found): number => (held.status === 'loaded' ? 0 : 1);
  const busy = ({ held }: Found): number => held.leases + held.foreignLoad;
  return rank(a) - rank(b) || busy(a) - busy(b) || (a.node.name < b.node.name ? -1 : 1);
}

function toCountingNode({ node, held }: Found): CountingNode {
  const why = held.status === 'loaded' ? 'has it loaded' : 'has its file';
  return { node: node.name, wireId: held.wireId, capabilities: held.capabilities, why };
}
