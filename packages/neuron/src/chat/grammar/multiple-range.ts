import { digitsMax, toDigits, toIntegerRange } from './integer-range.ts';
import type { RuleSet } from './rule-set.ts';

/** Remainders that the automaton may track; beyond it the grammar would be too large. */
const remaindersMax = 100;
const listMax = 256;
const freeDigits = 9;
const largest = 10n ** BigInt(digitsMax) - 1n;

/**
 * GBNF for the multiples of `step` (at least 1) within inclusive bounds.
 * Errors: RangeError when there are none, or when the grammar would be too large.
 */
export function toMultipleRange(
  step: bigint,
  min: bigint | null,
  max: bigint | null,
  rules: RuleSet,
): string {
  if (step === 1n) return toIntegerRange(min, max);
  const [low, high] = [min === null ? null : ceilDiv(min, step), max === null ? null : -ceilDiv(-max, step)];
  if (low !== null && high !== null) {
    if (low > high) throw new RangeError('leaves no number');
    if (high - low < listMax) {
      const count = Number(high - low) + 1;
      return Array.from({ length: count }, (_, i) => `"${(low + BigInt(i)) * step}"`).join(' | ');
    }
  }
  const ways: string[] = [];
  if ((min === null || min <= 0n) && (max === null || max >= 0n)) ways.push('"0"');
  if (min === null || min < 0n) {
    const from = max !== null && max < 0n ? -max : 1n;
    const body = addMultiples(step, from, min === null ? null : -min, rules);
    if (body !== null) ways.push(`"-" ${body}`);
  }
  if (max === null || max > 0n) {
    const body = addMultiples(step, min === null || min < 1n ? 1n : min, max, rules);
    if (body !== null) ways.push(body);
  }
  return ways.join(' | ');
}

/** A rule for the multiples from `min` (at least 1) on; null when there are none. */
function addMultiples(step: bigint, min: bigint, max: bigint | null, rules: RuleSet): string | null {
  const [core, zeros] = splitZeros(step);
  if (core > remaindersMax) {
    throw new RangeError(
      `of a step like ${step} needs bounds with at most ${listMax} multiples between them`,
    );
  }
  const unit = 10n ** BigInt(zeros);
  const [low, high] = [ceilDiv(min, unit), (max ?? largest) / unit];
  if (low > high) return null;
  const tail = zeros === 0 ? '' : ` "${'0'.repeat(zeros)}"`;
  if (core === 1) return `(${toIntegerRange(low, high)})${tail}`;
  const walk = createDigitWalk(core, rules);
  const top = max === null ? Math.max(freeDigits, String(low).length) : String(high).length;
  const ways: string[] = [];
  for (let length = String(low).length; length <= Math.min(top, digitsMax + 1); length++) {
    const first = length === String(low).length ? String(low) : `1${'0'.repeat(length - 1)}`;
    const last = max !== null && length === top ? String(high) : '9'.repeat(length);
    const body = walk(first, last, 0);
    if (body !== null) ways.push(body);
  }
  return ways.length === 0 ? null : `(${ways.join(' | ')})${tail}`;
}

/**
 * Digits as long as the bounds and between them which, read after a number of remainder `r`, give a multiple:
 * a body, or null when there are none.
 */
function createDigitWalk(
  step: number,
  rules: RuleSet,
): (low: string, high: string, r: number) => string | null {
  const known = new Map<string, string | null>();
  const walk = (low: string, high: string, r: number): string | null => {
    if (low === '') return r === 0 ? '""' : null;
    const key = `${low} ${high} ${r}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const [first, last] = [Number(low[0]), Number(high[0])];
    const ways: string[] = [];
    for (let digit = first; digit <= last; digit++) {
      const restLow = digit === first ? low.slice(1) : '0'.repeat(low.length - 1);
      const restHigh = digit === last ? high.slice(1) : '9'.repeat(high.length - 1);
      const rest = walk(restLow, restHigh, (r * 10 + digit) % step);
      if (rest !== null) ways.push(`${toDigits(digit, digit)} ${rest}`);
    }
    const name = ways.length === 0 ? null : rules.add('multiple', ways.join(' | '));
    known.set(key, name);
    return name;
  };
  return walk;
}

function splitZeros(step: bigint): readonly [number, number] {
  let [core, zeros] = [step, 0];
  while (core % 10n === 0n) {
    core /= 10n;
    zeros++;
  }
  return [core > BigInt(remaindersMax) ? remaindersMax + 1 : Number(core), zeros];
}

/** Rounds up, for both signs. */
function ceilDiv(a: bigint, b: bigint): bigint {
  const quotient = a / b;
  return a % b > 0n ? quotient + 1n : quotient;
}
