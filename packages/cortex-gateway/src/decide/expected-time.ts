/**
 * The number that routing compares: the expected time to a request's first token on one node.
 *
 *   queue + (0 | rest of a load | load | turn + evict + load) + uncached prompt tokens / prefill rate
 *
 * All in milliseconds. A rate is what that node measured with that model, else the mean of the nodes that
 * did, else a prior from the model's size. Priors are meant to rank nodes sensibly on a first day, no more.
 */
import type { FleetIndex } from './fleet-index.ts';
import type { CatalogueEntry, ComingView, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { sizeElsewhere } from './fleet-view.ts';
import { loadMsOf } from './load-time.ts';
import { toOccupant } from './occupants.ts';
import type { Rates } from './rate-book.ts';
import type { RouteRequest } from './route-request.ts';
import { turnWaitMs } from './turn-wait.ts';
import { residencyMs } from './turns.ts';

export interface RouteTerms {
  /** Until a slot is free, or until the node's earlier loads are through. */
  readonly queueMs: number;
  /** Until the fair line lets a load begin: `turn-wait.ts`. */
  readonly turnMs: number;
  /** Draining and unloading what makes room. */
  readonly evictMs: number;
  /** The load, or the rest of it. */
  readonly loadMs: number;
  /** The prompt's tokens that are not cached there. */
  readonly prefillMs: number;
  /** The sum: expected time to the first token. */
  readonly totalMs: number;
  /** What the victims' next requests would wait, by how recently they were used: weighs, is not waited. */
  readonly displacedMs: number;
  /** Prompt tokens that the node is believed to have. */
  readonly cachedTokens: number;
  /** Requests before this one. */
  readonly ahead: number;
}

export type MutableTerms = { -readonly [K in keyof RouteTerms]: number };

/** What is the same for every node of one decision. */
export interface Weighing {
  readonly view: FleetView;
  readonly request: RouteRequest;
  /** Resolved. */
  readonly model: string;
  readonly entry: CatalogueEntry | undefined;
  /** MiB, as the catalogue says or else a node that has it; null = unknown. */
  readonly sizeMb: number | null;
  /** Of the model, by node, and their mean. */
  readonly rates: ReadonlyMap<string, Rates>;
  readonly mean: Rates | null;
  readonly nowMs: number | null;
}

/** Slots of a model whose node does not tell. */
const slotsPrior = 4;
/** A running request takes a share of each step: what one does to the others' prefill. */
const crowding = 0.1;
const unloadMs = 500;
const sizeMbPrior = 4096;
/** Of a load that takes longer than expected, this share is still expected. */
const restShareMin = 0.1;
/** A victim used just now will be wanted back; one idle for this long will not. */
const missedForMs = 600_000;
const answerTokensPrior = 256;
const noRates: ReadonlyMap<string, Rates> = new Map();

export const leastEvictMs = unloadMs;

export function noTerms(): MutableTerms {
  return {
    queueMs: 0,
    turnMs: 0,
    evictMs: 0,
    loadMs: 0,
    prefillMs: 0,
    totalMs: 0,
    displacedMs: 0,
    cachedTokens: 0,
    ahead: 0,
  };
}

/** What a decision knows before it looks at a node. `model`: resolved. */
export function toWeighing(
  view: FleetView,
  index: FleetIndex,
  request: RouteRequest,
  model: string,
): Weighing {
  const entry = view.catalogue.get(model);
  const indexed = view.index === undefined ? { ...view, index } : view;
  return {
    view: indexed,
    request,
    model,
    entry,
    sizeMb: entry?.vramMb ?? sizeElsewhere(indexed, model),
    rates: view.rates?.byNode(model) ?? noRates,
    mean: view.rates?.ofModel(model) ?? null,
    nowMs: request.nowMs ?? null,
  };
}

/** What candidates are compared by. */
export function scoreOf(terms: RouteTerms): number {
  return terms.totalMs + terms.displacedMs;
}

/** Requests that stand before a new one: those of others as last polled, and our own as of now. */
export function loadScore(model: ModelView): number {
  return model.foreignLoad + model.leases;
}

export function slotsOf(model: ModelView | undefined): number {
  const told = model?.slots ?? 0;
  return told > 0 ? told : slotsPrior;
}

/**
 * A loaded model. Writes into `terms`: a decision makes nothing per replica. `own`: what the node measured
 * with it, here and below.
 */
export function weighLoaded(
  weighing: Weighing,
  node: NodeView,
  held: ModelView,
  own: Rates | null,
  terms: MutableTerms,
): void {
  terms.turnMs = 0;
  terms.evictMs = 0;
  terms.loadMs = 0;
  terms.displacedMs = 0;
  addQueue(weighing, held, loadScore(held), own, terms);
  addPrefill(weighing, node, held, own, terms);
}

/** A model that comes up, with those that already wait for it. */
export function weighComing(
  weighing: Weighing,
  node: NodeView,
  own: Rates | null,
  terms: MutableTerms,
): void {
  const held = node.models.get(weighing.model);
  const coming = node.coming?.get(weighing.model);
  // what another gateway loads waits for no turn here
  const isOurs = node.pending.includes(weighing.model);
  terms.turnMs = isOurs ? firstTurnMs(weighing, node) : 0;
  terms.evictMs = 0;
  terms.displacedMs = 0;
  terms.loadMs = restOfLoad(weighing, node, weighing.model, coming);
  addQueue(weighing, held, (coming?.waiting ?? 0) + (held === undefined ? 0 : loadScore(held)), own, terms);
  for (const earlier of isOurs ? node.pending : []) {
    if (earlier === weighing.model) break;
    terms.queueMs += restOfLoad(weighing, node, earlier, node.coming?.get(earlier));
  }
  addPrefill(weighing, node, held, own, terms);
}

/** A model that leaves and has to come back to the same node. */
export function weighLeaving(
  weighing: Weighing,
  node: NodeView,
  held: ModelView,
  own: Rates | null,
  terms: MutableTerms,
): void {
  terms.displacedMs = 0;
  terms.turnMs = stayMs(weighing, node, node.pending.slice(0, 1));
  terms.evictMs = unloadMs + drainMs(weighing, node, held);
  terms.loadMs = loadMsAt(weighing, node, weighing.model);
  terms.queueMs = jobsMs(weighing, node);
  terms.ahead = loadScore(held);
  addPrefill(weighing, node, undefined, own, terms);
}

/** What a load changes on its node. */
export interface Upheaval {
  readonly evict: readonly ModelView[];
  /** They go to other devices of the node. */
  readonly moved: readonly ModelView[];
  /** Loads of that node that it would have to displace again. */
  readonly queued: readonly string[];
}

/** A load yet to begin, after its victims are gone. */
export function weighCold(
  weighing: Weighing,
  node: NodeView,
  { evict, moved, queued }: Upheaval,
  terms: MutableTerms,
): void {
  terms.evictMs = 0;
  terms.displacedMs = 0;
  for (const victim of moved.length === 0 ? evict : [...evict, ...moved]) {
    terms.evictMs += unloadMs + drainMs(weighing, node, victim);
    terms.displacedMs += missedShare(weighing, victim) * loadMsAt(weighing, node, victim.id);
  }
  terms.loadMs = loadMsAt(weighing, node, weighing.model);
  terms.queueMs = jobsMs(weighing, node);
  terms.ahead = 0;
  for (const model of queued) terms.displacedMs += loadMsAt(weighing, node, model);
  terms.turnMs = turnMsOf(weighing, node, evict, queued, terms);
  addPrefill(weighing, node, undefined, ownRates(weighing, node), terms);
}

function turnMsOf(
  weighing: Weighing,
  node: NodeView,
  evict: readonly ModelView[],
  queued: readonly string[],
  { loadMs, queueMs }: RouteTerms,
): number {
  const { view, nowMs } = weighing;
  if (view.turns === undefined || nowMs === null || evict.length === 0) return 0;
  const staysMs = stayMs(weighing, node, queued);
  const outlook = { nowMs, loadMs, queueMs, firstMs: firstTurnMs(weighing, node), staysMs };
  const victims = evict.map(({ id }) => toOccupant(view, node, id));
  return turnWaitMs(outlook, victims, view.turns.rules());
}

/** How long these stay after their loads, one after the other. */
function stayMs(weighing: Weighing, node: NodeView, models: readonly string[]): number {
  const { turns } = weighing.view;
  if (turns === undefined || models.length === 0) return 0;
  const rules = turns.rules();
  return models.reduce((ms, model) => ms + residencyMs(loadMsAt(weighing, node, model), rules), 0);
}

/** Until a load that waits there begins. */
function firstTurnMs({ nowMs }: Weighing, { turnMs }: NodeView): number {
  return nowMs === null || turnMs == null ? 0 : Math.max(0, turnMs - nowMs);
}

/** Until the loads that run or wait there are through. */
export function jobsMs(weighing: Weighing, node: NodeView): number {
  let sum = 0;
  for (const model of node.pending) sum += restOfLoad(weighing, node, model, node.coming?.get(model));
  return sum;
}

/** How long a load of that model would take there. */
function loadMsAt({ view, model: asked, sizeMb }: Weighing, node: NodeView, model: string): number {
  return model === asked ? loadMsOf(view, node, model, sizeMb) : loadMsOf(view, node, model);
}

/** How long the prompt takes at that rate, with as many others running. */
export function prefillMsAt(tokens: number, tokS: number, crowd: number): number {
  return (tokens * 1000 * (1 + crowding * crowd)) / tokS;
}

/** Prompt tokens per second where the node itself has not measured any. */
export function prefillElsewhere({ mean, sizeMb }: Weighing): number {
  return mean?.prefillTokS ?? prefillPrior(sizeMb ?? sizeMbPrior);
}

/** Whether the queue's number rests on what this node or another measured. */
export function isServiceMeasured({ rates, mean }: Weighing, node: NodeView): boolean {
  return (rates.get(node.name)?.serviceMs ?? mean?.serviceMs ?? null) !== null;
}

/** What that node measured with the asked model. */
export function ownRates({ rates }: Weighing, node: NodeView): Rates | null {
  return rates.get(node.name) ?? null;
}

function addQueue(
  weighing: Weighing,
  held: ModelView | undefined,
  ahead: number,
  own: Rates | null,
  terms: MutableTerms,
): void {
  const slots = slotsOf(held);
  terms.ahead = ahead;
  // of those ahead all but slots - 1 have to end, and `slots` of them end per service time
  const mustEnd = Math.max(0, ahead + 1 - slots);
  terms.queueMs = mustEnd === 0 ? 0 : (mustEnd * serviceOf(own, weighing.mean, weighing.sizeMb)) / slots;
}

function addPrefill(
  weighing: Weighing,
  node: NodeView,
  held: ModelView | undefined,
  own: Rates | null,
  terms: MutableTerms,
): void {
  const { request } = weighing;
  const prompt = promptTokensOf(request);
  // what comes up comes up empty
  const cached = held?.status === 'loaded' ? cachedOn(request, node.name) : 0;
  terms.cachedTokens = Math.min(cached, prompt - 1);
  const rate = own?.prefillTokS ?? prefillElsewhere(weighing);
  const crowd = Math.min(terms.ahead, slotsOf(held));
  terms.prefillMs = prefillMsAt(prompt - terms.cachedTokens, rate, crowd);
  terms.totalMs = terms.queueMs + terms.turnMs + terms.evictMs + terms.loadMs + terms.prefillMs;
}

export function promptTokensOf(request: RouteRequest): number {
  return Math.max(1, request.promptTokens ?? 1);
}

function cachedOn(request: RouteRequest, node: string): number {
  if (request.cached === undefined) return 0;
  for (const each of request.cached) if (each.node === node) return each.tokens;
  return 0;
}

/** The least that any loaded replica could be expected to take, by requests before this one and slots. */
export interface ReplicaBound {
  /** No node reads the prompt faster, none frees its slots sooner. */
  readonly prefillTokS: number;
  readonly serviceMs: number;
  readonly promptTokens: number;
}

export function toReplicaBound(weighing: Weighing): ReplicaBound {
  const { view, model, mean, request } = weighing;
  const best = view.rates?.bestOf(model) ?? null;
  const measuredMs = best?.serviceMs ?? Number.POSITIVE_INFINITY;
  return {
    prefillTokS: Math.max(best?.prefillTokS ?? 0, prefillElsewhere(weighing)),
    // where no service was measured each node's own rate decides
    serviceMs: mean?.serviceMs == null ? 0 : Math.min(measuredMs, mean.serviceMs),
    promptTokens: promptTokensOf(request),
  };
}

/** Of a replica that has nothing of the prompt cached, ms. Same terms as `weighLoaded`, at the best rates. */
export function replicaBoundMs(bound: ReplicaBound, ahead: number, slots: number): number {
  const mustEnd = Math.max(0, ahead + 1 - slots);
  const queueMs = mustEnd === 0 ? 0 : (mustEnd * bound.serviceMs) / slots;
  return queueMs + prefillMsAt(bound.promptTokens, bound.prefillTokS, Math.min(ahead, slots));
}

/** How long a request holds its slot, by what the node measured, else the others. */
function serviceOf(own: Rates | null, mean: Rates | null, sizeMb: number | null): number {
  const measured = own?.serviceMs ?? mean?.serviceMs ?? null;
  if (measured !== null) return measured;
  const decode = own?.decodeTokS ?? mean?.decodeTokS ?? decodePrior(sizeMb ?? sizeMbPrior);
  return (answerTokensPrior * 1000) / decode;
}

/** Until the last of its requests has ended. */
function drainMs({ view, model, sizeMb }: Weighing, node: NodeView, held: ModelView): number {
  const running = loadScore(held);
  if (running === 0) return 0;
  const own = view.rates?.of(node.name, held.id) ?? null;
  const mean = view.rates?.ofModel(held.id) ?? null;
  const serviceMs = serviceOf(own, mean, held.id === model ? sizeMb : held.vramMb);
  return serviceMs * Math.max(1, running / slotsOf(held));
}

function restOfLoad(
  weighing: Weighing,
  node: NodeView,
  model: string,
  coming: ComingView | undefined,
): number {
  const { nowMs } = weighing;
  const whole = loadMsAt(weighing, node, model);
  if (nowMs === null || coming === undefined) return whole;
  if (coming.readyMs !== null) return Math.max(0, coming.readyMs - nowMs);
  if (coming.sinceMs === null) return whole;
  return Math.max(whole * restShareMin, whole - (nowMs - coming.sinceMs));
}

/** 1 = in use, falling to 0 with the time it was idle. */
function missedShare({ nowMs }: Weighing, victim: ModelView): number {
  if (loadScore(victim) > 0 || victim.status === 'loading') return 1;
  if (nowMs === null || victim.lastUsedMs === null) return 0;
  return Math.min(1, Math.max(0, 1 - (nowMs - victim.lastUsedMs) / missedForMs));
}

/** As a mid-range GPU does: about 1,000 tokens/s with 8 GiB of weights. */
function prefillPrior(sizeMb: number): number {
  return Math.min(5000, Math.max(20, 8_000_000 / Math.max(1, sizeMb)));
}

function decodePrior(sizeMb: number): number {
  return Math.min(200, Math.max(2, 400_000 / Math.max(1, sizeMb)));
}
