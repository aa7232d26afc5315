/** What a load or an unload needs of the fleet it belongs to. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { FleetView } from '../decide/fleet-view.ts';
import type { NodeState } from './node-state.ts';

export type FleetEvent =
  | { readonly kind: 'loaded'; readonly node: string; readonly model: string; readonly ms: number }
  | { readonly kind: 'evicted'; readonly node: string; readonly model: string }
  /** To another device of its node. */
  | { readonly kind: 'moved'; readonly node: string; readonly model: string }
  /** A device got a fresh owner. */
  | { readonly kind: 'recycled'; readonly node: string; readonly device: number };

export interface LifecycleDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Time without progress that every load has, beside what its bytes need. */
  readonly loadTimeoutMs: number;
  /** Aborted when the gateway leaves. */
  readonly closing: AbortSignal;
  readonly view: () => FleetView;
  /** A poll that began after this call. */
  readonly refresh: (node: NodeState) => Promise<void>;
  /** Resolves when no request of ours holds the model. */
  readonly idle: (node: NodeState, model: string, signal: AbortSignal) => Promise<void>;
  /** States changed: waiting requests may decide again. */
  readonly changed: () => void;
  /** Loads a model again that a failure left nowhere. */
  readonly bringBack: (node: string, model: string) => void;
  readonly onEvent: (event: FleetEvent) => void;
}
