/**
 * Whose turn it is on a node whose memory does not hold all that is asked for.
 *
 * Problem: to load for every request that arrives swaps two models for ever; to serve the resident model as
 * long as it is asked for starves the other. Design: the resident model serves its own requests. Another one
 * gets its turn when what it would displace is idle and not about to be used again (hysteresis), or when it
 * is due: so late that, with the turns before its own, its oldest request would exceed `maxWaitMs`. Who is
 * due goes by age, whatever its priority; else the higher priority goes first, then the older. A model that
 * was just loaded stays for a minimum residency in both cases, unless it is known not to be wanted soon.
 *
 * Bounds: `wait-bound.ts`. Every swap serves a request that waited for it; those that displace a model still
 * wanted are at least a residency and a load apart.
 */
export interface TurnRules {
  /** A request should not wait longer for a model, ms; see `wait-bound.ts`. */
  readonly maxWaitMs: number;
  /** Minimum residency in load times of the model, and its cap in ms. */
  readonly residencyFactor: number;
  readonly residencyMaxMs: number;
}

/** A model whose turn could be next. */
export interface Contender {
  readonly model: string;
  /** When its oldest request began to wait, ms. */
  readonly sinceMs: number;
  /** The highest of its requests; a higher number goes first. */
  readonly priority: number;
  /** A person asked for it: due at once, and no residency holds it back. */
  readonly urgent: boolean;
  /** Expected time of its load, ms. */
  readonly loadMs: number;
  /** Who leaves for it; nobody = it fits. */
  readonly evict: readonly Occupant[];
}

/** A resident model that a contender would displace. Times in ms. */
export interface Occupant {
  readonly model: string;
  /** It answers requests now. */
  readonly busy: boolean;
  /** Requests that stand in line for it. */
  readonly waiting: number;
  /** null = it was there before anyone looked. */
  readonly residentSinceMs: number | null;
  readonly idleSinceMs: number | null;
  /** What it takes to bring it back. */
  readonly loadMs: number;
  /** How long it usually is idle between two uses; null = not known. */
  readonly gapMs: number | null;
  /** How long its requests usually take: what draining it costs. */
  readonly serviceMs: number;
}

/** `fits`: nobody leaves. `idle`: nobody is missed. `due`: the oldest request must not wait longer. */
export type TurnReason = 'fits' | 'idle' | 'due' | 'asked';

export type Turn =
  | { readonly kind: 'start'; readonly model: string; readonly reason: TurnReason }
  /** Ask again then, or when something changed; null = only when something changed. */
  | { readonly kind: 'hold'; readonly untilMs: number | null };

export function chooseTurn(nowMs: number, contenders: readonly Contender[], rules: TurnRules): Turn {
  const asked = contenders.find((each) => each.urgent);
  if (asked !== undefined) return { kind: 'start', model: asked.model, reason: 'asked' };
  const byAge = [...contenders].sort((a, b) => a.sinceMs - b.sinceMs || (a.model < b.model ? -1 : 1));
  const [oldest] = byAge;
  if (oldest === undefined) return { kind: 'hold', untilMs: null };
  const dueMs = startBy(byAge, rules);
  const freeMs = latest(oldest.evict.map((each) => leavesWhenDue(each, oldest, rules)));
  if (nowMs >= dueMs && nowMs >= freeMs) {
    return { kind: 'start', model: oldest.model, reason: reasonOf(oldest, nowMs, rules) };
  }
  // once somebody is due, nobody takes a turn that would not be over before theirs
  const until = Math.max(dueMs, freeMs);
  const fits = nowMs >= dueMs ? (each: Contender) => nowMs + each.loadMs <= freeMs : () => true;
  let nextMs = until;
  const byPriority = byAge.filter(fits).sort((a, b) => b.priority - a.priority);
  for (const contender of byPriority) {
    const leaveMs = latest(contender.evict.map((each) => leavesWhenIdle(each, contender, rules)));
    const reason = contender.evict.length === 0 ? 'fits' : 'idle';
    if (nowMs >= leaveMs) return { kind: 'start', model: contender.model, reason };
    nextMs = Math.min(nextMs, leaveMs);
  }
  return { kind: 'hold', untilMs: Math.max(nowMs, nextMs) };
}

/** How long a model stays at least after its load, ms. */
export function residencyMs(loadMs: number, rules: TurnRules): number {
  return Math.min(rules.residencyFactor * loadMs, rules.residencyMaxMs);
}

/**
 * When the first turn must begin so that, one after the other by age, nobody waits longer than `maxWaitMs`.
 */
function startBy(byAge: readonly Contender[], rules: TurnRules): number {
  let neededMs = 0;
  let startMs = Number.POSITIVE_INFINITY;
  for (const contender of byAge) {
    const { evict, loadMs } = contender;
    const drainMs = Math.max(0, ...evict.map((each) => each.serviceMs));
    const stayMs = Math.max(0, ...evict.map((each) => residencyMs(each.loadMs, rules)));
    neededMs += stayMs + drainMs + loadMs;
    startMs = Math.min(startMs, contender.sinceMs + rules.maxWaitMs - neededMs);
  }
  return startMs;
}

function isWanted(occupant: Occupant): boolean {
  return occupant.busy || occupant.waiting > 0;
}

/** When it may be displaced although it is wanted. */
function leavesWhenDue(occupant: Occupant, contender: Contender, rules: TurnRules): number {
  const { residentSinceMs, loadMs } = occupant;
  const stayedMs = residentSinceMs === null ? 0 : residentSinceMs + residencyMs(loadMs, rules);
  return Math.min(stayedMs, leavesWhenIdle(occupant, contender, rules));
}

/** When nobody would miss it; infinite while it is wanted. */
function leavesWhenIdle(occupant: Occupant, contender: Contender, rules: TurnRules): number {
  if (isWanted(occupant)) return Number.POSITIVE_INFINITY;
  const { residentSinceMs, idleSinceMs, loadMs, gapMs } = occupant;
  const residency = residencyMs(loadMs, rules);
  if (gapMs === null) return residentSinceMs === null ? 0 : residentSinceMs + residency;
  // there and back costs two loads: for less than that it is worth waiting for its next use
  if (gapMs > loadMs + contender.loadMs) return 0;
  return (idleSinceMs ?? residentSinceMs ?? 0) + Math.min(2 * gapMs, residency);
}

function reasonOf(contender: Contender, nowMs: number, rules: TurnRules): TurnReason {
  if (contender.evict.length === 0) return 'fits';
  const missed = contender.evict.some((each) => nowMs < leavesWhenIdle(each, contender, rules));
  return missed ? 'due' : 'idle';
}

function latest(times: readonly number[]): number {
  return Math.max(0, ...times);
}
