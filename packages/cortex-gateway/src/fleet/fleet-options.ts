import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { EvictionStrategy } from '../decide/fleet-view.ts';
import type { RateBook } from '../decide/rate-book.ts';
import type { TurnRules } from '../decide/turns.ts';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import type { Catalogue } from './catalogue.ts';
import type { Lease } from './lease.ts';
import type { DrainRules, FleetEvent } from './lifecycle-deps.ts';
import type { NodeSpec } from './node-set.ts';
import type { ProviderDeps, ProviderSpec } from './provider.ts';

export interface FleetOptions {
  readonly settings: FleetSettings;
  readonly connect: (spec: NodeSpec) => NeuronClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly onEvent?: (event: FleetEvent) => void;
  readonly random?: () => number;
  /** What was measured so far; made anew when absent. */
  readonly rates?: RateBook;
  /** How providers are reached; needed where the settings name any. */
  readonly providerDeps?: ProviderDeps;
}

/** What a reload may change while requests run. */
export interface FleetSettings {
  readonly nodes: readonly NodeSpec[];
  readonly catalogue: Catalogue;
  /** Asked in this order; absent = there are none. */
  readonly providers?: readonly ProviderSpec[];
  readonly strategy: EvictionStrategy;
  readonly pollIntervalMs: number;
  readonly pollTimeoutMs: number;
  readonly missesMax: number;
  /** Failed requests in a row after which a node rests; 0 = never. */
  readonly failuresMax: number;
  readonly loadTimeoutMs: number;
  readonly waitersMax: number;
  /** Unloads of a node after which it is defragmented by itself; 0 = never. */
  readonly defragAfterCycles: number;
  readonly turns: TurnRules;
  readonly drain: DrainRules;
  /** How long a model may be idle before it is unloaded, ms; null = it stays. */
  readonly ttlMs: (model: string) => number | null;
}

/** `lease` now, or `ready` later; `ready` rejects with the cause when it cannot be had. */
export interface Ticket {
  readonly node: string;
  readonly why: string;
  /** Expected time to the first token, ms; null = not known, as of a provider. */
  readonly expectedMs: number | null;
  readonly lease: Lease | null;
  readonly ready: Promise<Lease>;
}
