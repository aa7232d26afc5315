/**
 * What a decision sees: a picture of the fleet. Sizes in MiB, times in milliseconds of the fleet's clock.
 * The fleet keeps one picture up to date rather than make one per request, so it holds until the next await;
 * nobody but the fleet writes it. `toFleetView` makes one by hand.
 */
import type { ModelCost, ModelLimit, ModelStatus } from 'cortex-core/wire/neuron';
import type { FleetIndex } from './fleet-index.ts';
import type { Habits } from './habits.ts';
import type { RateSource } from './rate-book.ts';
import type { TurnRules } from './turns.ts';

export interface FleetView {
  /** Sorted by name. */
  readonly nodes: readonly NodeView[];
  readonly catalogue: ReadonlyMap<string, CatalogueEntry>;
  readonly aliases: ReadonlyMap<string, string>;
  readonly strategy: EvictionStrategy;
  /** What was measured; absent = nothing, priors hold. */
  readonly rates?: RateSource;
  /** Who holds what, and where there is room; absent = made for each decision. */
  readonly index?: FleetIndex;
  /** What `cost` weighs besides the loads; without it every model is long idle. */
  readonly terms?: EvictionTerms;
  /** What a load's turn depends on; without it every turn comes at once. */
  readonly turns?: TurnTerms;
  /** No load fetches files first, whatever the nodes list. */
  readonly isOnEveryDisk?: boolean;
  /** What providers have; for listings, no decision reads it. */
  readonly hosted?: HostedModels;
}

export interface HostedModels {
  readonly ids: () => readonly string[];
  readonly of: (model: string) => readonly HostedModel[];
}

/** A model at a provider. */
export interface HostedModel {
  readonly provider: string;
  /** Why it does not serve now, as the end of a sentence about the provider; null = it does. */
  readonly refusal: string | null;
  readonly capabilities: readonly string[];
  readonly limit: ModelLimit | null;
  readonly cost: ModelCost | null;
}

/**
 * `lru`: longest idle first. `priority`: lowest residency priority first, then longest idle. `cost`: least
 * waiting for a reload to be expected.
 */
export type EvictionStrategy = 'lru' | 'priority' | 'cost';

/** What was seen of models on nodes, as lookups: a decision asks for a few of many. */
export interface EvictionTerms {
  readonly nowMs: number;
  /** How long it usually is idle there before it is used again, ms; null = not known. */
  readonly gapMs: (node: string, model: string) => number | null;
}

export interface TurnTerms {
  /** As they are now. */
  readonly rules: () => TurnRules;
  readonly habits: (node: string, model: string) => Habits | undefined;
  /** Requests that stand in line for a model. */
  readonly waiting: (model: string) => number;
}

export interface NodeView {
  readonly name: string;
  /** Takes new requests: it answers polls, and nothing of `refusal` keeps it from them. */
  readonly healthy: boolean;
  /** Why it takes none although it answers, as the end of a sentence about it: drained, its circuit open. */
  readonly refusal?: string | null;
  /** Serves what it has, loads nothing. */
  readonly cordoned?: boolean;
  /** Whether it ever answered: before that, nothing is known of its devices. */
  readonly discovered: boolean;
  /** It never answered, and was not asked often enough to give it up. */
  readonly isAwaited?: boolean;
  readonly harnesses: readonly string[];
  readonly devices: readonly DeviceView[];
  /** By catalogue id where the catalogue knows the model, else by the neuron's id. */
  readonly models: ReadonlyMap<string, ModelView>;
  /** Models that a load job is bringing up here, running job first. */
  readonly pending: readonly string[];
  /** When the next of those that wait has its turn at the latest, ms; null = one has it, or none waits. */
  readonly turnMs?: number | null;
  /** What is known of those loads, and of loads that others began. */
  readonly coming?: ReadonlyMap<string, ComingView>;
  /** Models whose load failed a short while ago: they evict nobody. The reason, as a sentence. */
  readonly failedLoads?: ReadonlyMap<string, string>;
  /** Another neuron than before answers there, and has not told yet what it has. */
  readonly isStranger?: boolean;
  /** A move between its devices failed a short while ago: plan none. */
  readonly movesFail?: boolean;
}

/** A model that comes up on a node. */
export interface ComingView {
  /** When the load itself began; null = it waits for its turn. */
  readonly sinceMs: number | null;
  /** When the neuron says it is up; null = it does not say. */
  readonly readyMs: number | null;
  /** Requests of this gateway that wait for it. */
  readonly waiting: number;
}

export interface DeviceView {
  readonly index: number;
  readonly totalMb: number;
  /** null when the neuron gave no reading. */
  readonly freeMb: number | null;
  /** `cpu`, `cuda`, ...: devices of one kind stand in for each other. */
  readonly kind?: string;
  /** Models unloaded there since its owner started. */
  readonly loadCycles?: number;
}

export interface ModelView {
  readonly id: string;
  /** The id under which the neuron knows it. */
  readonly wireId: string;
  readonly harness: string;
  readonly status: ModelStatus;
  readonly devices: readonly number[];
  readonly vramMb: number | null;
  /** Requests there that are not this gateway's, as of the last poll. */
  readonly foreignLoad: number;
  /** Requests of this gateway that hold the model now. */
  readonly leases: number;
  /** Requests that it runs at once; null or absent = the neuron does not tell. */
  readonly slots?: number | null;
  /** By whomever, as far as it is known; less than 0 = before this clock began. */
  readonly lastUsedMs: number | null;
  /** Chosen as a victim: takes no new request. */
  readonly draining: boolean;
  /** Why it cannot serve although loaded; null = it can. */
  readonly unservable: string | null;
  readonly capabilities: readonly string[];
  readonly limit: ModelLimit | null;
  readonly cost: ModelCost | null;
  readonly toolCall: boolean;
  readonly reasoning: boolean;
}

export interface CatalogueEntry {
  readonly id: string;
  /** `source:id` where a source is set, else the id. */
  readonly wireId: string;
  readonly harness: string;
  readonly quant: string | null;
  readonly vramMb: number | null;
  readonly minDevices: number;
  readonly minDeviceVramMb: number | null;
  readonly pinnedOn: readonly string[];
  readonly residencyPriority: number;
  readonly limit: ModelLimit | null;
  readonly cost: ModelCost | null;
  readonly capabilities: readonly string[];
}

export const defaultPriority = 100;
/** The rank of a pinned model whose entry names none. */
export const pinnedPriority = 1000;

/** One level, no chaining. A pattern takes only what is the name of no model. */
export function resolveAlias(view: FleetView, requested: string): string {
  const exact = view.aliases.get(requested);
  if (exact !== undefined) return exact;
  const alias = findPattern(view.aliases, requested);
  if (alias === null || view.catalogue.has(requested)) return requested;
  const { index, nodes } = view;
  const isHeld =
    index === undefined
      ? nodes.some((node) => node.models.has(requested))
      : (index.presentSlots(requested)[0] ?? null) !== null;
  return isHeld ? requested : (view.aliases.get(alias) ?? requested);
}

/** The alias with a `*` at its end that begins as `requested` does, the longest of several; null = none. */
export function findPattern(aliases: ReadonlyMap<string, unknown>, requested: string): string | null {
  if (requested.length > modelIdMax) return null;
  for (let length = requested.length; length >= 0; length--) {
    const pattern = `${requested.slice(0, length)}*`;
    if (aliases.has(pattern)) return pattern;
  }
  return null;
}

/** Stands for many names, and is none itself. */
export function isPattern(alias: string): boolean {
  return alias.endsWith('*');
}

/** As models.toml takes them. */
const modelIdMax = 512;

export function priorityOf(view: FleetView, model: string): number {
  return view.catalogue.get(model)?.residencyPriority ?? defaultPriority;
}

/** MiB that a node which has the model says it takes; null = none says. */
export function sizeElsewhere({ index }: FleetView, model: string): number | null {
  const slot = index?.presentSlots(model)[0];
  return slot === undefined ? null : (index?.nodes[slot]?.models.get(model)?.vramMb ?? null);
}
