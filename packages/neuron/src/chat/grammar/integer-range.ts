/** GBNF for decimal integers within bounds. All bounds are inclusive; null = none. */
import { toAlternatives, toRepeat } from './gbnf-text.ts';

/** Digits of an integer without a bound: what a double keeps exactly. */
export const digitsMax = 15;

/** Errors: RangeError when no integer lies between the bounds. */
export function toIntegerRange(min: bigint | null, max: bigint | null): string {
  if (min !== null && max !== null && min > max)
    throw new RangeError(`no integer lies from ${min} to ${max}`);
  const ways: string[] = [];
  if (min === null || min < 0n) {
    const [low, high] = [max !== null && max < 0n ? -max : 1n, min === null ? null : -min];
    ways.push(...toNaturalRange(low, high).map((body) => `"-" ${toAlternatives([body])}`));
  }
  if (max === null || max >= 0n) ways.push(...toNaturalRange(min === null || min < 0n ? 0n : min, max));
  return ways.join(' | ');
}

/** Alternatives for the numbers from `min` (at least 0) on, without leading zeros. */
export function toNaturalRange(min: bigint, max: bigint | null): string[] {
  if (max !== null && min > max) return [];
  const ways: string[] = [];
  if (min === 0n) {
    ways.push('"0"');
    if (max === 0n) return ways;
  }
  const low = min === 0n ? 1n : min;
  const digits = String(low).length;
  const digitsTop = max === null ? Math.max(digitsMax, digits + 1) : String(max).length;
  for (let length = digits; length <= digitsTop; length++) {
    const first = length === digits ? String(low) : `1${'0'.repeat(length - 1)}`;
    if (max === null && length > digits) {
      ways.push(`[1-9] ${toRepeat('[0-9]', length - 1, digitsTop - 1)}`);
      break;
    }
    const isLast = max !== null && length === digitsTop;
    ways.push(toBetween(first, isLast ? String(max) : '9'.repeat(length)));
  }
  return ways;
}

/** Texts of exactly as many digits as the bounds, from `low` to `high`. */
function toBetween(low: string, high: string): string {
  if (low === high) return low === '' ? '""' : `"${low}"`;
  if (/^0*$/.test(low) && /^9*$/.test(high)) return toRepeat('[0-9]', low.length, low.length);
  const [first, last] = [Number(low[0]), Number(high[0])];
  if (first === last) return `"${first}" ${toBetween(low.slice(1), high.slice(1))}`;
  const [restLow, restHigh] = [low.slice(1), high.slice(1)];
  const isLowFree = /^0*$/.test(restLow);
  const isHighFree = /^9*$/.test(restHigh);
  const ways: string[] = [];
  if (!isLowFree) ways.push(`"${first}" ${toBetween(restLow, '9'.repeat(restLow.length))}`);
  const [from, to] = [isLowFree ? first : first + 1, isHighFree ? last : last - 1];
  if (from <= to) {
    const free = restLow.length === 0 ? '' : ` ${toRepeat('[0-9]', restLow.length, restLow.length)}`;
    ways.push(`${toDigits(from, to)}${free}`);
  }
  if (!isHighFree) ways.push(`"${last}" ${toBetween('0'.repeat(restHigh.length), restHigh)}`);
  return ways.length === 1 ? (ways[0] as string) : `(${ways.join(' | ')})`;
}

export function toDigits(from: number, to: number): string {
  return from === to ? `"${from}"` : `[${from}-${to}]`;
}
