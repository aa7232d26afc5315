/** What a load or an unload needs of the fleet it belongs to. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { FleetView } from '../decide/fleet-view.ts';
import type { TurnReason } from '../decide/turns.ts';
import type { Doubts } from './doubts.ts';
import type { NodeState } from './node-state.ts';

/** `room`: for another model. `ttl`: unused for its time. `asked`: by a person. */
export type EvictionReason = 'room' | 'ttl' | 'asked';

export type FleetEvent =
  | { readonly kind: 'loaded'; readonly node: string; readonly model: string; readonly ms: number }
  | {
      readonly kind: 'evicted';
      readonly node: string;
      readonly model: string;
      readonly reason: EvictionReason;
    }
  /** A turn: that model displaced others. */
  | { readonly kind: 'swapped'; readonly node: string; readonly model: string; readonly reason: TurnReason }
  /** To another device of its node. */
  | { readonly kind: 'moved'; readonly node: string; readonly model: string }
  /** A device got a fresh owner. */
  | { readonly kind: 'recycled'; readonly node: string; readonly device: number };

export interface DrainRules {
  /** How long a victim may go on answering. */
  readonly timeoutMs: number;
  /** After that its answers are cut; else another plan is made. */
  readonly cutAfter: boolean;
}

export interface LifecycleDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Time without progress that every load has, beside what its bytes need. */
  readonly loadTimeoutMs: number;
  readonly drain: DrainRules;
  readonly doubts: Doubts;
  /** Aborted when the gateway leaves. */
  readonly closing: AbortSignal;
  readonly view: () => FleetView;
  /** A poll that began after this call. */
  readonly refresh: (node: NodeState) => Promise<void>;
  /**
   * Resolves when no request of ours holds the model, nor one of another gateway; rejects with a retryable
   * error when others do not end, and with the signal's reason.
   */
  readonly idle: (node: NodeState, model: string, signal: AbortSignal) => Promise<void>;
  /** States changed: waiting requests may decide again. */
  readonly changed: () => void;
  /** Loads a model again that a failure left nowhere. */
  readonly bringBack: (node: string, model: string) => void;
  readonly onEvent: (event: FleetEvent) => void;
}
