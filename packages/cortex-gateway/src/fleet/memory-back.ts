/** A driver shows freed memory late: who needs it waits for it, within a limit. */
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { NodeState } from './node-state.ts';

const triesMax = 20;
const tryMs = 250;

export interface FreedMemory {
  /** MiB as last read; null = no reading. */
  readonly freeMb: () => number | null;
  /** What it said before. */
  readonly beforeMb: number | null;
  readonly freedMb: number;
}

/** Resolves when a fresh reading shows half of it, or never will. Rejects with the signal's reason. */
export async function memoryBack(
  node: NodeState,
  { freeMb, beforeMb, freedMb }: FreedMemory,
  { clock, refresh }: Pick<LifecycleDeps, 'clock' | 'refresh'>,
  signal: AbortSignal,
): Promise<void> {
  for (let i = 0; i < triesMax; i++) {
    await refresh(node);
    const free = freeMb();
    if (beforeMb === null || free === null || free >= beforeMb + freedMb / 2) return;
    await clock.sleep(tryMs, signal);
  }
}
