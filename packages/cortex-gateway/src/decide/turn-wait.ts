/**
 * How long a load that is asked for is expected to wait until the fair line lets its victims go, ms.
 *
 * `chooseTurn` says when a turn begins once it may; this says when that will be. A victim that nobody wants
 * goes when its hysteresis is over. One that is in use goes as soon as it pauses, if its pauses are long, and
 * else when the newcomer is due. Who waits there already goes first; what those load stays for its residency
 * where the newcomer needs its room.
 */
import { type Occupant, residencyMs, type TurnRules } from './turns.ts';

export interface TurnOutlook {
  readonly nowMs: number;
  /** Expected time of the load. */
  readonly loadMs: number;
  /** Until the loads before it are through, without their turns. */
  readonly queueMs: number;
  /** Until the first of them has its turn; 0 = it has, or there is none. */
  readonly firstMs: number;
  /** How long those of them stay that the newcomer would have to displace. */
  readonly staysMs: number;
}

/** Without what draining takes. */
export function turnWaitMs(outlook: TurnOutlook, victims: readonly Occupant[], rules: TurnRules): number {
  const { queueMs, firstMs, staysMs } = outlook;
  let ownMs = 0;
  for (const victim of victims) ownMs = Math.max(ownMs, leavesInMs(victim, outlook, rules));
  // its own wait passes while those before it load
  return Math.max(firstMs, ownMs - queueMs) + staysMs;
}

function leavesInMs(victim: Occupant, { nowMs, loadMs }: TurnOutlook, rules: TurnRules): number {
  const { busy, waiting, residentSinceMs, idleSinceMs, gapMs, serviceMs } = victim;
  const residency = residencyMs(victim.loadMs, rules);
  const stayMs = residentSinceMs === null ? 0 : Math.max(0, residentSinceMs + residency - nowMs);
  const dueMs = Math.max(stayMs, rules.maxWaitMs - residency - serviceMs - loadMs);
  if (waiting > 0) return dueMs;
  if (gapMs === null) return Math.min(dueMs, busy ? Math.max(0, stayMs - serviceMs) : stayMs);
  if (gapMs > victim.loadMs + loadMs) return 0;
  if (busy) return dueMs;
  const quietMs = (idleSinceMs ?? residentSinceMs ?? 0) + Math.min(2 * gapMs, residency) - nowMs;
  return Math.min(dueMs, Math.max(0, quietMs));
}
