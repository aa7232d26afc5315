import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { EvictionStrategy } from '../decide/fleet-view.ts';
import type { TurnRules } from '../decide/turns.ts';
import type { Catalogue } from './catalogue.ts';
import type { Lease } from './lease.ts';
import type { DrainRules, FleetEvent } from './lifecycle-deps.ts';
import type { NodeState } from './node-state.ts';

export interface FleetOptions {
  readonly nodes: readonly NodeState[];
  readonly catalogue: Catalogue;
  readonly strategy: EvictionStrategy;
  readonly clock: Clock;
  readonly log: Log;
  readonly pollIntervalMs: number;
  readonly pollTimeoutMs: number;
  readonly missesMax: number;
  readonly loadTimeoutMs: number;
  readonly waitersMax: number;
  readonly turns: TurnRules;
  readonly drain: DrainRules;
  /** How long a model may be idle before it is unloaded, ms; null = it stays. */
  readonly ttlMs: (model: string) => number | null;
  readonly onEvent?: (event: FleetEvent) => void;
  readonly random?: () => number;
}

/** `lease` now, or `ready` later; `ready` rejects with the cause when it cannot be had. */
export interface Ticket {
  readonly node: string;
  readonly why: string;
  readonly lease: Lease | null;
  readonly ready: Promise<Lease>;
}
