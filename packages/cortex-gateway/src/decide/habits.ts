/**
 * How a model on a node is used: since when it is there, and how long it is idle between two uses. How fast
 * it loads and answers is in the `RateBook`. Values only; who keeps them calls these functions with its
 * clock's ms.
 */
export interface Habits {
  /** Between the end of the last request and the next one, a geometric mean: pauses differ by orders. */
  readonly gapMs: number | null;
  /** null = it was there before anyone looked, or is not there. */
  readonly residentSinceMs: number | null;
  /** null = in use, or never used. */
  readonly idleSinceMs: number | null;
}

export const noHabits: Habits = {
  gapMs: null,
  residentSinceMs: null,
  idleSinceMs: null,
};

/** Weight of the newest measurement. */
const alpha = 0.3;
const gapLeastMs = 1;

export function afterLoad(habits: Habits, nowMs: number): Habits {
  return { ...habits, residentSinceMs: nowMs };
}

export function afterUnload(habits: Habits): Habits {
  return { ...habits, residentSinceMs: null };
}

/** Its node tells how it is used by everybody. `usedMs`: null = not at all, or now. */
export function afterReading(habits: Habits, residentSinceMs: number, usedMs: number | null): Habits {
  const { idleSinceMs } = habits;
  return {
    ...habits,
    residentSinceMs,
    idleSinceMs: usedMs === null ? idleSinceMs : Math.max(usedMs, idleSinceMs ?? usedMs),
  };
}

/** A request for it arrived, whether it is resident or has to be loaded first. */
export function afterArrival(habits: Habits, nowMs: number): Habits {
  const { idleSinceMs, gapMs } = habits;
  if (idleSinceMs === null) return habits;
  const gap = Math.max(gapLeastMs, nowMs - idleSinceMs);
  const mean = gapMs === null ? gap : Math.exp((1 - alpha) * Math.log(gapMs) + alpha * Math.log(gap));
  return { ...habits, gapMs: mean, idleSinceMs: null };
}

/** `isIdle`: it was the last one. */
export function afterAnswer(habits: Habits, isIdle: boolean, nowMs: number): Habits {
  return { ...habits, idleSinceMs: isIdle ? nowMs : habits.idleSinceMs };
}
