/** Where a request goes: to a replica, to a load, to wait, or back with a reason for every node. */
import type { ErrorCode } from 'cortex-core/wire/errors';
import type { FleetView, ModelView, NodeView } from './fleet-view.ts';
import { resolveAlias } from './fleet-view.ts';
import { choosePlacement, type NodeRejection, type Placement } from './placement.ts';

export type RouteDecision =
  | {
      readonly kind: 'forward';
      readonly node: string;
      readonly model: string;
      readonly wireId: string;
      readonly why: string;
    }
  | {
      readonly kind: 'load';
      readonly node: string;
      readonly model: string;
      readonly placement: Placement;
      readonly why: string;
    }
  /** The node is already bringing it up, or letting it go. */
  | { readonly kind: 'wait'; readonly node: string; readonly model: string; readonly why: string }
  | Rejection;

export interface Rejection {
  readonly kind: 'reject';
  readonly model: string;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryAfterSecs: number | null;
  readonly nodes: readonly NodeRejection[];
}

interface Survey {
  readonly model: string;
  healthy: number;
  replicas: number;
  best: NodeView | null;
  bestModel: ModelView | null;
  bestScore: number;
  waiting: { node: string; why: string } | null;
  recovering: string | null;
  known: boolean;
  /** A node that answers but has not told yet what it has: another neuron than before is there. */
  unread: string | null;
  heldByUnhealthy: string | null;
}

export function route(
  view: FleetView,
  requested: string,
  exclude: ReadonlySet<string> = new Set(),
): RouteDecision {
  const model = resolveAlias(view, requested);
  const seen = survey(view, model, exclude);
  if (seen.healthy === 0) {
    return reject(
      model,
      'no_healthy_nodes',
      'no healthy nodes available; check that a neuron runs and answers',
      5,
    );
  }
  if (seen.best !== null && seen.bestModel !== null) {
    const why = seen.replicas === 1 ? 'only replica' : `least busy of ${seen.replicas}`;
    return { kind: 'forward', node: seen.best.name, model, wireId: seen.bestModel.wireId, why };
  }
  if (seen.waiting !== null) return { kind: 'wait', node: seen.waiting.node, model, why: seen.waiting.why };
  if (seen.recovering !== null) {
    const message = `model "${model}" is recovering on ${seen.recovering}; try again shortly`;
    return reject(model, 'model_recovering', message, 2);
  }
  if (!seen.known && seen.unread !== null) return waitForPoll(seen.unread, model);
  if (!seen.known) {
    const message = `model "${requested}" not found on any node and not in catalogue; see GET /v1/models`;
    return reject(model, 'model_not_found', message, null);
  }
  const choice = choosePlacement(view, model, exclude);
  if (choice.kind === 'place') {
    const { placement } = choice;
    return { kind: 'load', node: placement.node, model, placement, why: placement.why };
  }
  if (seen.unread !== null) return waitForPoll(seen.unread, model);
  return rejectUnplaced(view, model, choice.rejected, seen.heldByUnhealthy);
}

function waitForPoll(node: string, model: string): RouteDecision {
  return { kind: 'wait', node, model, why: 'another neuron answers there and is asked what it has' };
}

/** Requests that stand before a new one: those of others as last polled, and our own as of now. */
export function loadScore(model: ModelView): number {
  return model.foreignLoad + model.leases;
}

function survey(view: FleetView, model: string, exclude: ReadonlySet<string>): Survey {
  const seen: Survey = {
    model,
    healthy: 0,
    replicas: 0,
    best: null,
    bestModel: null,
    bestScore: Number.POSITIVE_INFINITY,
    waiting: null,
    recovering: null,
    known: view.catalogue.has(model),
    unread: null,
    heldByUnhealthy: null,
  };
  for (const node of view.nodes) {
    const held = node.models.get(model);
    if (held !== undefined) seen.known = true;
    if (!node.healthy) {
      if (held?.status === 'loaded') seen.heldByUnhealthy ??= node.name;
      continue;
    }
    seen.healthy++;
    if (!node.discovered) seen.unread ??= node.name;
    if (exclude.has(node.name)) continue;
    if (node.pending.includes(model)) seen.waiting ??= { node: node.name, why: 'is being loaded' };
    if (held !== undefined) weigh(seen, node, held);
  }
  return seen;
}

function weigh(seen: Survey, node: NodeView, held: ModelView): void {
  switch (held.status) {
    case 'loaded': {
      if (held.draining) {
        seen.waiting ??= { node: node.name, why: 'is making room and comes back' };
        return;
      }
      if (held.unservable !== null) return;
      seen.replicas++;
      const score = loadScore(held);
      if (score >= seen.bestScore) return;
      seen.best = node;
      seen.bestModel = held;
      seen.bestScore = score;
      return;
    }
    case 'loading':
      seen.waiting ??= { node: node.name, why: 'is being loaded' };
      return;
    case 'unloading':
      seen.waiting ??= { node: node.name, why: 'is being unloaded' };
      return;
    case 'recovering':
      seen.recovering ??= node.name;
      return;
    case 'available':
    case 'failed':
    case 'poisoned':
    case 'unknown':
      return;
    default:
      held.status satisfies never;
  }
}

function rejectUnplaced(
  view: FleetView,
  model: string,
  nodes: readonly NodeRejection[],
  heldByUnhealthy: string | null,
): Rejection {
  const reasons = nodes.slice(0, 8).map((each) => each.reason);
  if (nodes.length > 8) reasons.push(`and ${nodes.length - 8} more`);
  const down = heldByUnhealthy ?? nodes.find((each) => each.unhealthy)?.node;
  if (down !== undefined) {
    const message = `model "${model}" needs ${down}, which does not answer; try again shortly`;
    return { ...reject(model, 'node_unhealthy', message, 3), nodes };
  }
  const holders = view.nodes.flatMap((node) => node.models.get(model) ?? []);
  if (holders.some((held) => held.status === 'poisoned')) {
    return {
      ...reject(model, 'model_poisoned', `model "${model}" cannot serve: ${reasons.join('; ')}`, null),
      nodes,
    };
  }
  if (holders.some((held) => held.status === 'loaded' && held.unservable !== null)) {
    return {
      ...reject(model, 'overloaded', `model "${model}" cannot serve now: ${reasons.join('; ')}`, 5),
      nodes,
    };
  }
  const message = `model "${model}" cannot be placed: ${reasons.join('; ')}; unload or unpin something`;
  return { ...reject(model, 'no_feasible_node', message, null), nodes };
}

function reject(model: string, code: ErrorCode, message: string, retryAfterSecs: number | null): Rejection {
  return { kind: 'reject', model, code, message, retryAfterSecs, nodes: [] };
}
