/** Which nodes can say how many tokens a request has: those that hold the model, then those with its file. */
import { type FleetView, type ModelView, type NodeView, resolveAlias } from './fleet-view.ts';
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
  const rejection = { kind: 'reject', model, retryAfterSecs: 5, nodes: [] } as const;
  if (healthy.length === 0) {
    const message = 'no healthy nodes available; check that a neuron runs and answers';
    return { ...rejection, code: 'no_healthy_nodes', message };
  }
  const away = view.nodes.find((node) => node.models.has(model));
  if (away !== undefined) {
    const message = `model "${requested}" is on ${away.name} alone, which does not answer now; try again`;
    return { ...rejection, code: 'node_unhealthy', message };
  }
  if (view.catalogue.has(model)) {
    const message =
      `model "${requested}" is in the catalogue and on no node's disk yet, so nobody has its tokenizer; ` +
      'load it once';
    return { ...rejection, code: 'model_not_loaded', message, retryAfterSecs: null };
  }
  const message = `model "${requested}" not found on any node and not in catalogue; see GET /v1/models`;
  return { ...rejection, code: 'model_not_found', message, retryAfterSecs: null };
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
