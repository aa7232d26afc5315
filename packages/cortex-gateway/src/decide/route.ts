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
  ownRates,
  type RouteTerms,
  replicaBoundMs,
  scoreOf,
  toReplicaBound,
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
import { reject, rejectUnhealthy, rejectUnknown } from './refusals.ts';
import { isReady, type Replicas } from './replicas.ts';
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
  if (index.healthyCount === 0) return rejectUnhealthy(view, model);
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
  if (!isKnown) return rejectUnknown(view, request.model, model);
  const { best, rejected } = chooseCold(weighing, index);
  if (leaving.node !== null && (best === null || scoreOf(leaving.terms) <= scoreOf(best.terms))) {
    return toWait(model, leaving, 'is making room and comes back');
  }
  if (best !== null) return toLoad(model, best, best.placement.why);
  const other = unreadNode(index);
  return other === null ? rejectUnplaced(index, model, rejected) : waitForPoll(other, model);
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
  if (held !== undefined && isReady(held)) {
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
  const { nodes, held, serves } = replicas;
  const { exclude } = weighing.request;
  leadOfReady(weighing, index, replicas, seen.ready);
  let terms = noTerms();
  for (let row = 0; row < nodes.length; row++) {
    if (serves[row] === true && exclude === undefined) {
      seen.replicas++;
      continue;
    }
    const node = nodes[row];
    if (node === undefined || !node.healthy || exclude?.has(node.name)) continue;
    if (serves[row] === true) {
      seen.replicas++;
      continue;
    }
    const standing = weighHolder(weighing, node, held[row], ownRates(weighing, node), terms);
    if (standing === 'recovering') seen.recovering ??= node.name;
    if (standing !== 'coming' && standing !== 'leaving') continue;
    if (isBetter(terms, node, seen[standing])) terms = lead(seen[standing], node, held[row], terms);
  }
  return seen;
}

/**
 * Finds the best of those that serve and, where `hasSlot` is given, take another request. Those that could
 * not be better at the best rates of any node are passed by without a look at theirs.
 */
function leadOfReady(
  weighing: Weighing,
  index: FleetIndex,
  replicas: Replicas,
  leader: Best,
  hasSlot?: RouteRequest['hasSlot'],
): void {
  const { held, serves, capacity, foreign } = replicas;
  const rates = replicas.ratesIn(weighing.rates);
  const bound = toReplicaBound(weighing);
  const { exclude, cached } = weighing.request;
  let leaderMs = Number.POSITIVE_INFINITY;
  let leaderAhead = 0;
  let leaderRow = -1;
  let terms = noTerms();
  const look = (row: number): void => {
    const model = held[row] as ModelView;
    const node = replicas.nodes[row] as NodeView;
    if (exclude?.has(node.name)) return;
    weighLoaded(weighing, node, model, rates[row] ?? null, terms);
    if (!isBetter(terms, node, leader) || hasSlot?.(node.name, weighing.model) === false) return;
    terms = lead(leader, node, model, terms);
    leaderMs = scoreOf(leader.terms);
    leaderAhead = leader.terms.ahead;
    leaderRow = row;
  };
  // the bound does not know of cached prompts: those that have one are looked at in any case
  for (const { node } of cached ?? []) {
    const row = replicas.rowOf(index.slotOf(node) ?? -1);
    if (row !== null && serves[row] === true) look(row);
  }
  for (let row = 0; row < serves.length; row++) {
    if (serves[row] !== true) continue;
    const ahead = (foreign[row] ?? 0) + (held[row]?.leases ?? 0);
    const boundMs = replicaBoundMs(bound, ahead, capacity[row] ?? 1);
    if (boundMs > leaderMs) continue;
    // as fast, as busy and later by name at best
    if (boundMs === leaderMs && (ahead > leaderAhead || (ahead === leaderAhead && row >= leaderRow)))
      continue;
    look(row);
  }
}

/** The best replica, or where that one is full, the best of those that are not; all full: the best. */
function toReplica(weighing: Weighing, index: FleetIndex, { ready, replicas }: Survey): Forward {
  const { model, request } = weighing;
  const why = replicas === 1 ? 'only replica' : `least expected wait of ${replicas} replicas`;
  if (request.hasSlot === undefined || ready.node === null || request.hasSlot(ready.node.name, model)) {
    return toForward(model, ready, why);
  }
  const free = noBest();
  const all = index.replicasOf(model);
  if (all !== null) leadOfReady(weighing, index, all, free, request.hasSlot);
  if (free.node === null) return toForward(model, ready, why);
  return toForward(model, free, `${why}, of those with a free slot`);
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
  if (index.nodes.some((node) => node.failedLoads?.has(model))) {
    const message = `model "${model}" cannot be loaded now: ${reasons.join('; ')}`;
    return { ...reject(model, 'insufficient_vram', message, 10), nodes };
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
