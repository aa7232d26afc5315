/**
 * What a decision sees: a frozen picture of the fleet. Sizes in MiB, times in milliseconds of the fleet's
 * clock.
 */
import type { ModelCost, ModelLimit, ModelStatus } from 'cortex-core/wire/neuron';

export interface FleetView {
  /** Sorted by name. */
  readonly nodes: readonly NodeView[];
  readonly catalogue: ReadonlyMap<string, CatalogueEntry>;
  readonly aliases: ReadonlyMap<string, string>;
  readonly strategy: EvictionStrategy;
  /** What `cost` weighs; without it every load is guessed from its size and every model is long idle. */
  readonly terms?: EvictionTerms;
}

/**
 * `lru`: longest idle first. `priority`: lowest residency priority first, then longest idle. `cost`: least
 * waiting for a reload to be expected.
 */
export type EvictionStrategy = 'lru' | 'priority' | 'cost';

/** What was measured of models on nodes, as lookups: a decision asks for a few of many. */
export interface EvictionTerms {
  readonly nowMs: number;
  /** Of a load of that model there, ms; null = none was measured. */
  readonly loadMs: (node: string, model: string) => number | null;
  /** How long it usually is idle there before it is used again, ms; null = not known. */
  readonly gapMs: (node: string, model: string) => number | null;
}

export interface NodeView {
  readonly name: string;
  readonly healthy: boolean;
  /** Whether it ever answered: before that, nothing is known of its devices. */
  readonly discovered: boolean;
  readonly harnesses: readonly string[];
  readonly devices: readonly DeviceView[];
  /** By catalogue id where the catalogue knows the model, else by the neuron's id. */
  readonly models: ReadonlyMap<string, ModelView>;
  /** Models that a load job is bringing up here, running job first. */
  readonly pending: readonly string[];
}

export interface DeviceView {
  readonly index: number;
  readonly totalMb: number;
  /** null when the neuron gave no reading. */
  readonly freeMb: number | null;
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

/** One level, no chaining. */
export function resolveAlias(view: FleetView, requested: string): string {
  return view.aliases.get(requested) ?? requested;
}

export function priorityOf(view: FleetView, model: string): number {
  return view.catalogue.get(model)?.residencyPriority ?? defaultPriority;
}
