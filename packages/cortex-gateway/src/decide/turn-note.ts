/** In a sentence when a load's turn comes, and what holds it back. For a person who asks "why so late?". */
import { type Contender, chooseTurn, type Occupant, residencyMs, type TurnRules } from './turns.ts';

/** `contenders`: all of that node, `model` among them. null = it displaces nobody and begins at once. */
export function turnNote(
  model: string,
  nowMs: number,
  contenders: readonly Contender[],
  rules: TurnRules,
): string | null {
  const mine = contenders.find((each) => each.model === model);
  if (mine === undefined) return null;
  const turn = chooseTurn(nowMs, contenders, rules);
  const holders = mine.evict.flatMap((each) => holds(each, nowMs, rules) ?? []);
  const held = holders.length === 0 ? '' : `: ${holders.join(', ')}`;
  if (turn.kind === 'hold') {
    if (turn.untilMs === null) return `its turn comes when something changes${held}`;
    return `its turn comes in ${secs(turn.untilMs - nowMs)} at the latest, others due first${held}`;
  }
  if (turn.model !== model) return `its turn comes after that of ${turn.model}${held}`;
  if (mine.evict.length === 0) return null;
  const leaving = mine.evict.map((each) => each.model).join(', ');
  return turn.reason === 'idle' ? `its turn is now: ${leaving} is idle` : `its turn is now${held}`;
}

function holds(occupant: Occupant, nowMs: number, rules: TurnRules): string | null {
  const { model, busy, waiting, residentSinceMs, gapMs } = occupant;
  const drain = `about ${secs(occupant.serviceMs)} to drain`;
  const stayMs = residentSinceMs === null ? 0 : residentSinceMs + residencyMs(occupant.loadMs, rules) - nowMs;
  const stays = stayMs > 0 ? `, stays ${secs(stayMs)} yet after its load` : '';
  if (waiting > 0) return `${waiting} requests wait for ${model}${stays}`;
  if (busy) return `${model} answers requests (${drain})${stays}`;
  if (stayMs > 0) return `${model} stays ${secs(stayMs)} yet after its load`;
  return gapMs === null ? null : `${model} is usually used again after ${secs(gapMs)}`;
}

function secs(ms: number): string {
  return `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
}
