/** A load that belongs to the fleet: requests attach to it and may leave; the load goes on. */
import type { InLine } from '../decide/fair-share.ts';
import type { TurnReason } from '../decide/turns.ts';
import type { Ask } from './ask.ts';
import type { Lease } from './lease.ts';

export interface Waiter extends InLine {
  readonly ask: Ask;
  /** What it asks for, resolved. */
  readonly model: string;
  /** Nodes that already failed this request. */
  readonly exclude: Set<string>;
  attempts: number;
  done: boolean;
  readonly resolve: (lease: Lease) => void;
  readonly reject: (cause: unknown) => void;
}

export interface LoadJob {
  readonly node: string;
  readonly model: string;
  /** A person asked for it: it also loads what is poisoned, and runs without waiters. */
  explicit: boolean;
  state: 'queued' | 'moving' | 'draining' | 'unloading' | 'loading';
  /** Why its turn came; null before it did. */
  turn: TurnReason | null;
  /** Ends exactly this load; its reason is what the waiters hear. */
  readonly stop: AbortController;
  readonly waiters: Set<Waiter>;
  readonly listeners: ((error: unknown) => void)[];
}

/** What a waiting client is told. */
export interface LoadStatus {
  readonly node: string;
  readonly state: string;
  readonly percent: number | null;
  readonly eta: number | null;
}
