/** Who goes next, and when to come back. Pure. */

/** How often later ones may go before one that waits. */
export const overtakesMax = 8;

export interface Waiting {
  /** Null: whoever came without an account, all of them as one. */
  readonly principal: string | null;
  /** Grants to those who came later. */
  readonly overtaken: number;
}

/**
 * Index in `queue`, which is in order of arrival: of those whose principal runs least, the first. So a free
 * slot goes to whoever has the smallest share, and one account alone is served in order. Who came first is
 * overtaken `overtakesMax` times at most: then it goes, whatever its share.
 */
export function chooseNext(
  queue: readonly Waiting[],
  runningOf: (principal: string | null) => number,
): number | null {
  const [first] = queue;
  if (first === undefined) return null;
  // Whoever overtakes the second overtakes the first too: nobody has more behind it.
  if (first.overtaken >= overtakesMax) return 0;
  let best = 0;
  let least = runningOf(first.principal);
  for (const [at, { principal }] of queue.entries()) {
    const running = runningOf(principal);
    if (running >= least) continue;
    best = at;
    least = running;
  }
  return best;
}

const retrySecsMin = 1;
const retrySecsMax = 120;

/** Whole seconds, 1..120, until `ends` requests have ended where `running` at once take `heldMs` each. */
export function retryAfterSecs(ends: number, running: number, heldMs: number): number {
  const secs = Math.ceil((ends * heldMs) / Math.max(running, 1) / 1000);
  return Math.min(Math.max(secs, retrySecsMin), retrySecsMax);
}
