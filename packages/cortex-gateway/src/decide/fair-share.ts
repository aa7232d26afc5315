/**
 * Which of the requests that stand in line for a model is next.
 *
 * Fair by virtual tokens (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each key,
 * and within a key each session, has a counter of the tokens it was served; the lowest is next. Who comes
 * back after a pause is lifted to the lowest of those that wait, so that idleness saves nothing up.
 * A higher priority goes before a lower one. A request that has waited for `maxWaitMs` goes before all that
 * have not, by age: neither priorities nor other people's shares may starve it.
 */
export interface Flow {
  /** Who pays. */
  readonly key: string;
  /** One conversation or agent of theirs. */
  readonly session: string;
}

export interface InLine extends Flow {
  readonly priority: number;
  readonly sinceMs: number;
}

/** Served tokens by key, and by session of a key. The one that was served longest ago comes first. */
export interface FairShare {
  readonly keys: Map<string, number>;
  readonly sessions: Map<string, number>;
}

/** An answer's token costs a step, a prompt's a share of one. */
const answerWeight = 2;
const flowsMax = 8192;

export function createFairShare(): FairShare {
  return { keys: new Map(), sessions: new Map() };
}

/** To call when a request enters the line; `others`: who waits in it already. */
export function enterShare(share: FairShare, flow: Flow, others: Iterable<Flow>): void {
  let leastKey = Number.POSITIVE_INFINITY;
  let leastSession = Number.POSITIVE_INFINITY;
  for (const other of others) {
    // it has requests in line: its counter is alive
    if (other.key === flow.key && other.session === flow.session) return;
    leastKey = Math.min(leastKey, keyTokens(share, other));
    if (other.key === flow.key) leastSession = Math.min(leastSession, sessionTokens(share, other));
  }
  if (Number.isFinite(leastSession)) lift(share.sessions, sessionOf(flow), leastSession);
  // a key with other sessions in line is alive as well
  else if (Number.isFinite(leastKey)) lift(share.keys, flow.key, leastKey);
}

/** Counts what a request was served; the prompt when it starts, the answer when it ends. */
export function chargeShare(share: FairShare, flow: Flow, promptTokens: number, answerTokens: number): void {
  const tokens = promptTokens + answerWeight * answerTokens;
  add(share.keys, flow.key, tokens);
  add(share.sessions, sessionOf(flow), tokens);
}

/** The next of those in line; null when nobody is. */
export function nextInLine<T extends InLine>(
  line: Iterable<T>,
  share: FairShare,
  nowMs: number,
  maxWaitMs: number,
): T | null {
  let best: T | null = null;
  for (const each of line) {
    if (best === null || isBefore(each, best, share, nowMs - maxWaitMs)) best = each;
  }
  return best;
}

function isBefore(a: InLine, b: InLine, share: FairShare, dueSinceMs: number): boolean {
  const [aDue, bDue] = [a.sinceMs <= dueSinceMs, b.sinceMs <= dueSinceMs];
  if (aDue !== bDue) return aDue;
  if (aDue) return a.sinceMs < b.sinceMs;
  if (a.priority !== b.priority) return a.priority > b.priority;
  const key = keyTokens(share, a) - keyTokens(share, b);
  if (key !== 0) return key < 0;
  if (a.key === b.key) {
    const session = sessionTokens(share, a) - sessionTokens(share, b);
    if (session !== 0) return session < 0;
  }
  return a.sinceMs < b.sinceMs;
}

function sessionOf(flow: Flow): string {
  return `${flow.key}\n${flow.session}`;
}

function keyTokens(share: FairShare, flow: Flow): number {
  return share.keys.get(flow.key) ?? 0;
}

function sessionTokens(share: FairShare, flow: Flow): number {
  return share.sessions.get(sessionOf(flow)) ?? 0;
}

function lift(counters: Map<string, number>, name: string, least: number): void {
  add(counters, name, Math.max(0, least - (counters.get(name) ?? 0)));
}

function add(counters: Map<string, number>, name: string, tokens: number): void {
  const next = (counters.get(name) ?? 0) + tokens;
  counters.delete(name);
  counters.set(name, next);
  if (counters.size <= flowsMax) return;
  const [oldest] = counters.keys();
  if (oldest !== undefined) counters.delete(oldest);
}
