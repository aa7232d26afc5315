/** Every candidate for a request with its terms, and why it lost. For a person who asks "why there?". */
import { compareCold } from './cold-scan.ts';
import { noTerms, ownRates, type RouteTerms, scoreOf, toWeighing, type Weighing } from './expected-time.ts';
import type { FleetView, NodeView } from './fleet-view.ts';
import { resolveAlias } from './fleet-view.ts';
import { type ColdCandidate, considerCold } from './placement.ts';
import { indexOf, type RouteDecision, replicaGain, route, type Standing, weighHolder } from './route.ts';
import type { RouteRequest } from './route-request.ts';

export interface Explanation {
  readonly model: string;
  readonly decision: RouteDecision['kind'];
  /** null when nobody can serve it. */
  readonly node: string | null;
  readonly why: string;
  /** The chosen one first, then by expected time, then those that cannot. */
  readonly candidates: readonly ExplainedCandidate[];
}

export interface ExplainedCandidate {
  readonly node: string;
  /** `hosted`: a provider. */
  readonly state: Standing | 'cold' | 'hosted';
  readonly verdict: 'chosen' | 'lost' | 'cannot';
  readonly terms: RouteTerms | null;
  /** Models that would have to leave. */
  readonly evict: readonly string[];
  readonly why: string;
}

export function explain(view: FleetView, request: RouteRequest): Explanation {
  const decision = route(view, request);
  const model = resolveAlias(view, request.model);
  const weighing = toWeighing(view, indexOf(view), request, model);
  const node = decision.kind === 'reject' ? null : decision.node;
  const all = view.nodes.map((each) => lookAt(weighing, each));
  const chosen = all.find((each) => each.node === node) ?? null;
  const candidates = all.map((each) => toCandidate(each, chosen, decision));
  const order = { chosen: 0, lost: 1, cannot: 2 };
  candidates.sort((a, b) => order[a.verdict] - order[b.verdict] || timeOf(a) - timeOf(b));
  const why = decision.kind === 'reject' ? decision.message : decision.why;
  return { model, decision: decision.kind, node, why, candidates };
}

interface Look {
  readonly node: string;
  readonly state: Standing | 'cold';
  readonly terms: RouteTerms | null;
  readonly cold: ColdCandidate | null;
  /** Why it cannot serve, or not now. */
  readonly reason: string;
}

function lookAt(weighing: Weighing, node: NodeView): Look {
  const { name } = node;
  const cannot = (state: Standing, reason: string): Look => {
    return { node: name, state, terms: null, cold: null, reason };
  };
  if (weighing.request.exclude?.has(name)) return cannot('cannot', 'it already failed this request');
  if (!node.healthy) return cannot('cannot', `${name} ${node.refusal ?? 'does not answer'}`);
  const terms = noTerms();
  if (node.isStranger === true) return { node: name, state: 'coming', terms, cold: null, reason: '' };
  const state = weighHolder(weighing, node, node.models.get(weighing.model), ownRates(weighing, node), terms);
  if (state === 'recovering') return cannot(state, 'the model is recovering there');
  if (state !== 'cannot') {
    const isFull = state === 'ready' && weighing.request.hasSlot?.(name, weighing.model) === false;
    return { node: name, state, terms, cold: null, reason: isFull ? 'its slots and its queue are full' : '' };
  }
  const cold = considerCold(weighing, node, true);
  if (cold === null) return cannot('cannot', 'the model is on its way out there');
  if ('reason' in cold) return cannot('cannot', cold.reason);
  return { node: name, state: 'cold', terms: cold.terms, cold, reason: '' };
}

function toCandidate(look: Look, chosen: Look | null, decision: RouteDecision): ExplainedCandidate {
  const { node, state, terms, cold } = look;
  const evict = cold?.placement.evict.map((victim) => victim.model) ?? [];
  const base = { node, state, terms, evict };
  if (look === chosen) {
    return { ...base, verdict: 'chosen', why: decision.kind === 'reject' ? '' : decision.why };
  }
  if (terms === null) return { ...base, verdict: 'cannot', why: look.reason };
  return { ...base, verdict: 'lost', why: whyLost(look, terms, chosen) };
}

function whyLost(look: Look, terms: RouteTerms, chosen: Look | null): string {
  const best = chosen?.terms ?? null;
  if (chosen === null || best === null) return 'the request is refused';
  const laterMs = scoreOf(terms) - scoreOf(best);
  if (look.cold !== null && chosen.state !== 'cold' && laterMs <= 0) {
    if (look.cold.placement.evict.length > 0) return 'a further replica never evicts another model';
    if (best.queueMs === 0) return 'a further replica is loaded only when all slots are taken';
    return `a further replica has to be ${replicaGain} times as fast, by measured service times`;
  }
  // when all are full the best of them is chosen
  if (laterMs <= 0 && look.reason !== '' && chosen.reason === '') return look.reason;
  if (laterMs === 0) return whyTie(look, chosen);
  if (laterMs < 0) return `${chosen.node} serves it without another load`;
  const parts = [
    ['waits', terms.queueMs - best.queueMs, 'in the queue'],
    ['waits', terms.turnMs - best.turnMs, 'for its turn'],
    ['needs', terms.evictMs - best.evictMs, 'to make room'],
    ['needs', terms.loadMs - best.loadMs, 'to load'],
    ['needs', terms.prefillMs - best.prefillMs, 'to read the prompt'],
    ['costs others', terms.displacedMs - best.displacedMs, 'to come back'],
  ] as const;
  const [verb, ms, what] = parts.reduce((most, part) => (part[1] > most[1] ? part : most));
  return `${secs(laterMs)} behind ${chosen.node}: it ${verb} ${secs(ms)} more ${what}`;
}

function whyTie(look: Look, chosen: Look): string {
  if (look.cold !== null && chosen.cold !== null && compareCold(look.cold, chosen.cold) > 0) {
    if (look.cold.freeMb < chosen.cold.freeMb) return `as fast as ${chosen.node}, which has more memory free`;
  }
  return `as fast as ${chosen.node}, which is less busy or comes first by name`;
}

function timeOf({ terms }: ExplainedCandidate): number {
  return terms === null ? Number.POSITIVE_INFINITY : scoreOf(terms);
}

function secs(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
