/**
 * Where a request goes: to a replica, to a load, to wait, or back with a reason for every node.
 *
 * Every node that has the model, or is getting it, is weighed by the expected time to the first token; the
 * least wins, equal ones by fewest requests ahead, then by name. A replica that is full is chosen only when
 * all are. A model that nobody has is loaded where that time is least (`chooseCold`), a further replica only
 * where it pays: see `paysForReplica`.
 */
import type { ErrorCode } from 'cortex-core/wire/errors';
import { chooseCold } from './cold-scan.ts';
import {
  isServiceMeasured,
  type MutableTerms,
  noTerms,
  type RouteTerms,
  scoreOf,
  toWeighing,
  type Weighing,
  weighComing,
  weighLeaving,
  weighLoaded,
} from './expected-time.ts';
import { FleetIndex } from './fleet-index.ts';
import type { FleetView, ModelView, NodeView } from './fleet-view.ts';
import { resolveAlias } from './fleet-view.ts';
import type { ColdCandidate, NodeRejection, Placement } from './placement.ts';
import type { Rates } from './rate-book.ts';
import type { RouteRequest } from './route-request.ts';

export type RouteDecision = Forward | Load | Wait | Rejection;

export interface Forward {
  readonly kind: 'forward';
  readonly node: string;
  readonly model: string;
  readonly wireId: string;
  readonly why: string;
  readonly terms: RouteTerms;
}

export interface Load {
  readonly kind: 'load';
  readonly node: string;
  readonly model: string;
  readonly placement: Placement;
  readonly why: string;
  readonly terms: RouteTerms;
}

/** The node is already bringing it up, or letting it go. */
export interface Wait {
  readonly kind: 'wait';
  readonly node: string;
  readonly model: string;
  readonly why: string;
  readonly terms: RouteTerms;
}

export interface Rejection {
  readonly kind: 'reject';
  readonly model: string;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryAfterSecs: number | null;
  readonly nodes: readonly NodeRejection[];
}

/** A further replica has to halve the wait, so that a wrong estimate or a short burst does not load it. */
export const replicaGain = 2;

/** How a node that has the model stands to a request. */
export type Standing = 'ready' | 'coming' | 'leaving' | 'recovering' | 'cannot';

export function route(view: FleetView, request: RouteRequest): RouteDecision {
  const model = resolveAlias(view, request.model);
  const index = indexOf(view);
  if (index.healthyCount === 0) return reject(model, 'no_healthy_nodes', describeNone(view), 5);
  const weighing = toWeighing(view, index, request, model);
  const seen = survey(weighing, index);
  const { ready, coming, leaving } = seen;
  const now = request.mustServeNow === true || coming.node === null;
  if (ready.node !== null && (now || scoreOf(ready.terms) <= scoreOf(coming.terms))) {
    const cold = paysForReplica(weighing, index, seen);
    return cold === null ? toReplica(weighing, index, seen) : toLoad(model, cold, 'halves the wait');
  }
  if (coming.node !== null) return toWait(model, coming, 'is being loaded');
  if (seen.recovering !== null && leaving.node === null) {
    const message = `model "${model}" is recovering on ${seen.recovering}; try again shortly`;
    return reject(model, 'model_recovering', message, 2);
  }
  const isKnown = weighing.entry !== undefined || index.presentSlots(model).length > 0;
  const unread = isKnown ? null : unreadNode(index);
  if (unread !== null) return waitForPoll(unread, model);
  if (!isKnown) {
    const mute = index.nodes.find((node) => !node.healthy && !node.discovered)?.name;
    if (mute !== undefined) return rejectUntold(request.model, mute, model);
    const message = `model "${request.model}" not found on any node and not in catalogue; see GET /v1/models`;
    return reject(model, 'model_not_found', message, null);
  }
  const { best, rejected } = chooseCold(weighing, index);
  if (leaving.node !== null && (best === null || scoreOf(leaving.terms) <= scoreOf(best.terms))) {
    return toWait(model, leaving, 'is making room and comes back');
  }
  if (best !== null) return toLoad(model, best, best.placement.why);
  const other = unreadNode(index);
  return other === null ? rejectUnplaced(index, model, rejected) : waitForPoll(other, model);
}

/** A node that never answered may have it: what is not known yet is not called missing. */
function rejectUntold(requested: string, node: string, model: string): Rejection {
  const why = `${node} has not answered yet and may have it; try again`;
  return reject(model, 'node_unhealthy', `model "${requested}" is on no node that answers; ${why}`, 3);
}

function unreadNode(index: FleetIndex): string | null {
  return index.nodes.find((node) => node.healthy && node.isStranger === true)?.name ?? null;
}

function waitForPoll(node: string, model: string): Wait {
  const why = 'another neuron answers there and is asked what it has';
  return { kind: 'wait', node, model, why, terms: noTerms() };
}

export function indexOf(view: FleetView): FleetIndex {
  return view.index ?? new FleetIndex(view.nodes, view);
}

/**
 * Weighs the model on a node that has it or gets it; `terms` say nothing where it recovers or cannot. `own`:
 * what that node measured with it.
 */
export function weighHolder(
  weighing: Weighing,
  node: NodeView,
  held: ModelView | undefined,
  own: Rates | null,
  terms: MutableTerms,
): Standing {
  if (held?.status === 'loaded' && held.unservable === null && !held.draining) {
    weighLoaded(weighing, node, held, own, terms);
    return 'ready';
  }
  if (node.pending.includes(weighing.model) || held?.status === 'loading') {
    weighComing(weighing, node, own, terms);
    return 'coming';
  }
  if (held?.status === 'unloading' || (held?.status === 'loaded' && held.draining)) {
    weighLeaving(weighing, node, held, own, terms);
    return 'leaving';
  }
  return held?.status === 'recovering' ? 'recovering' : 'cannot';
}

interface Best {
  node: NodeView | null;
  held: ModelView | undefined;
  terms: MutableTerms;
}

interface Survey {
  readonly ready: Best;
  readonly coming: Best;
  readonly leaving: Best;
  replicas: number;
  recovering: string | null;
}

function survey(weighing: Weighing, index: FleetIndex): Survey {
  const seen: Survey = {
    ready: noBest(),
    coming: noBest(),
    leaving: noBest(),
    replicas: 0,
    recovering: null,
  };
  const replicas = index.replicasOf(weighing.model);
  if (replicas === null) return seen;
  const { nodes, held } = replicas;
  const rates = replicas.ratesIn(weighing.rates);
  const { exclude } = weighing.request;
  let terms = noTerms();
  for (let row = 0; row < nodes.length; row++) {
    const node = nodes[row];
    if (node === undefined || !node.healthy || exclude?.has(node.name)) continue;
    const standing = weighHolder(weighing, node, held[row], rates[row] ?? null, terms);
    if (standing === 'recovering') seen.recovering ??= node.name;
    if (standing === 'recovering' || standing === 'cannot') continue;
    if (standing === 'ready') seen.replicas++;
    const leader = standing === 'ready' ? seen.ready : seen[standing];
    if (isBetter(terms, node, leader)) terms = lead(leader, node, held[row], terms);
  }
  return seen;
}

/** The best replica, or where that one is full, the best of those that are not; all full: the best. */
function toReplica(weighing: Weighing, index: FleetIndex, { ready, replicas }: Survey): Forward {
  const { model, request } = weighing;
  const why = replicas === 1 ? 'only replica' : `least expected wait of ${replicas} replicas`;
  if (request.hasSlot === undefined || ready.node === null || request.hasSlot(ready.node.name, model)) {
    return toForward(model, ready, why);
  }
  const free = bestWithSlot(weighing, index, request.hasSlot);
  if (free.node === null) return toForward(model, ready, why);
  return toForward(model, free, `${why}, of those with a free slot`);
}

function bestWithSlot(
  weighing: Weighing,
  index: FleetIndex,
  hasSlot: (node: string, model: string) => boolean,
): Best {
  const { model, request } = weighing;
  const best = noBest();
  const replicas = index.replicasOf(model);
  if (replicas === null) return best;
  const { nodes, held } = replicas;
  const rates = replicas.ratesIn(weighing.rates);
  let terms = noTerms();
  for (let row = 0; row < nodes.length; row++) {
    const node = nodes[row];
    if (node === undefined || !node.healthy || request.exclude?.has(node.name)) continue;
    if (weighHolder(weighing, node, held[row], rates[row] ?? null, terms) !== 'ready') continue;
    // most are behind the best one, and need not be asked
    if (isBetter(terms, node, best) && hasSlot(node.name, model)) terms = lead(best, node, held[row], terms);
  }
  return best;
}

function noBest(): Best {
  return { node: null, held: undefined, terms: noTerms() };
}

/** Returns the terms that are not needed any more. */
function lead(leader: Best, node: NodeView, held: ModelView | undefined, terms: MutableTerms): MutableTerms {
  const spare = leader.terms;
  leader.node = node;
  leader.held = held;
  leader.terms = terms;
  return spare;
}

function isBetter(terms: RouteTerms, node: NodeView, leader: Best): boolean {
  if (leader.node === null) return true;
  const order = scoreOf(terms) - scoreOf(leader.terms) || terms.ahead - leader.terms.ahead;
  return order < 0 || (order === 0 && node.name < leader.node.name);
}

/**
 * Where a further replica is loaded: nowhere unless all slots of the best replica are taken, its wait rests
 * on measured service times, none is coming up yet, another node has the memory free (nothing is evicted for
 * it), and the request would have to wait at least `replicaGain` times as long as with the load.
 */
function paysForReplica(weighing: Weighing, index: FleetIndex, seen: Survey): ColdCandidate | null {
  const { ready, coming } = seen;
  if (weighing.request.mayReplicate === false) return null;
  if (ready.node === null || ready.terms.queueMs === 0 || coming.node !== null) return null;
  if (!isServiceMeasured(weighing, ready.node)) return null;
  const { best } = chooseCold(weighing, index, true);
  return best !== null && scoreOf(best.terms) * replicaGain <= scoreOf(ready.terms) ? best : null;
}

function toForward(model: string, { node, held, terms }: Best, why: string): Forward {
  return { kind: 'forward', node: node?.name ?? '', model, wireId: held?.wireId ?? model, why, terms };
}

function toWait(model: string, { node, terms }: Best, why: string): Wait {
  return { kind: 'wait', node: node?.name ?? '', model, why, terms };
}

function toLoad(model: string, { placement, terms }: ColdCandidate, why: string): Load {
  return { kind: 'load', node: placement.node, model, placement, why, terms };
}

function rejectUnplaced(index: FleetIndex, model: string, nodes: readonly NodeRejection[]): Rejection {
  const reasons = nodes.slice(0, 8).map((each) => each.reason);
  if (nodes.length > 8) reasons.push(`and ${nodes.length - 8} more`);
  const holders = index.presentSlots(model).flatMap((slot) => index.nodes[slot] ?? []);
  const heldByUnhealthy = holders.find(
    (node) => !node.healthy && node.models.get(model)?.status === 'loaded',
  );
  const down = heldByUnhealthy?.name ?? nodes.find((each) => each.unhealthy)?.node;
  if (down !== undefined) {
    const why = whyClosed(index.nodeNamed(down));
    const message = `model "${model}" needs ${down}, which ${why}; try again shortly`;
    return { ...reject(model, 'node_unhealthy', message, 3), nodes };
  }
  const states = holders.flatMap((node) => node.models.get(model) ?? []);
  if (states.some((held) => held.status === 'poisoned')) {
    const message = `model "${model}" cannot serve: ${reasons.join('; ')}`;
    return { ...reject(model, 'model_poisoned', message, null), nodes };
  }
  if (states.some((held) => held.status === 'loaded' && held.unservable !== null)) {
    const message = `model "${model}" cannot serve now: ${reasons.join('; ')}`;
    return { ...reject(model, 'overloaded', message, 5), nodes };
  }
  if (nodes.length === 0) {
    const message = `every node that could serve "${model}" failed this request; try again`;
    return { ...reject(model, 'node_unhealthy', message, 3), nodes };
  }
  const message = `model "${model}" cannot be placed: ${reasons.join('; ')}; unload or unpin something`;
  return { ...reject(model, 'no_feasible_node', message, null), nodes };
}

function whyClosed(node: NodeView | undefined): string {
  if (node?.healthy === true && node.cordoned === true) return 'is cordoned by an operator';
  return node?.refusal ?? 'does not answer';
}

function describeNone(view: FleetView): string {
  const kept = view.nodes.flatMap(({ name, refusal }) => (refusal == null ? [] : `${name} ${refusal}`));
  if (kept.length === 0) return 'no healthy nodes available; check that a neuron runs and answers';
  return `no healthy nodes available: ${kept.slice(0, 8).join(', ')}`;
}

function reject(model: string, code: ErrorCode, message: string, retryAfterSecs: number | null): Rejection {
  return { kind: 'reject', model, code, message, retryAfterSecs, nodes: [] };
}
