/**
 * GBNF for decimal numbers within bounds, exact digit by digit.
 *
 * At most 15 significant digits are written: two such numbers that differ are different doubles, so what the
 * digits say about a bound is what a validator computes.
 */
import { toDigits, toNaturalRange } from './integer-range.ts';

export interface Bound {
  /** Decimal text without exponent. */
  readonly value: Decimal;
  readonly isExclusive: boolean;
}

export interface Decimal {
  readonly isNegative: boolean;
  readonly whole: bigint;
  /** Digits after the point, without zeros at the end. */
  readonly fraction: string;
}

/** Fraction digits: the empty text and a body for the others; null = none of that kind. */
interface Digits {
  readonly isEmptyToo: boolean;
  readonly some: string | null;
}

const significantMax = 15;
const fractionDefault = 6;

/** null for a number of more than 15 digits before or after the point. */
export function toDecimal(value: number): Decimal | null {
  const found = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(Math.abs(value)));
  if (found === null) return null;
  const [, whole = '', fraction = '', exponent = '0'] = found;
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  if (point > significantMax || digits.length - point > significantMax) return null;
  const padded = digits.padStart(digits.length - Math.min(point, 0), '0').padEnd(point, '0');
  const at = Math.max(point, 0);
  return {
    isNegative: value < 0,
    whole: BigInt(padded.slice(0, at) || '0'),
    fraction: padded.slice(at).replace(/0+$/, ''),
  };
}

/**
 * Errors: RangeError when nothing lies between the bounds, or when they need more digits than are written.
 * `fractionMax`: digits after the point at most; null = as many as make sense.
 */
export function toDecimalRange(min: Bound | null, max: Bound | null, fractionMax: number | null): string {
  const digits = fractionDigits(min, max, fractionMax);
  const ways: string[] = [];
  const mirrored = (bound: Bound | null): Bound | null =>
    bound === null ? null : { ...bound, value: { ...bound.value, isNegative: false } };
  if (min === null || min.value.isNegative) {
    const low = max?.value.isNegative ? mirrored(max) : null;
    const positive = low ?? { value: zero, isExclusive: true };
    ways.push(...toPositiveRange(positive, mirrored(min), digits).map((body) => `"-" (${body})`));
  }
  if (max === null || !max.value.isNegative) {
    const low = min === null || min.value.isNegative ? { value: zero, isExclusive: false } : min;
    ways.push(...toPositiveRange(low, max, digits));
  }
  if (ways.length === 0) throw new RangeError('leaves no number');
  return ways.join(' | ');
}

const zero: Decimal = { isNegative: false, whole: 0n, fraction: '' };

function fractionDigits(min: Bound | null, max: Bound | null, fractionMax: number | null): number {
  const bounds = [min, max].flatMap((bound) => (bound === null ? [] : [bound.value]));
  const needed = Math.max(0, ...bounds.map(({ fraction }) => fraction.length));
  const wholeDigits = Math.max(1, ...bounds.map(({ whole }) => String(whole).length));
  const room = significantMax - (min === null || max === null ? Math.max(wholeDigits, 9) : wholeDigits);
  if (fractionMax !== null) return Math.min(fractionMax, Math.max(room, 0));
  const digits = Math.min(Math.max(needed + 2, fractionDefault), room);
  if (digits < needed) throw new RangeError(`has a bound of more than ${significantMax} digits`);
  return digits;
}

function toPositiveRange(low: Bound, high: Bound | null, digits: number): string[] {
  const whole = low.value.whole;
  const free: Digits = { isEmptyToo: true, some: anyDigits(digits) };
  const from = atLeast(low.value.fraction, !low.isExclusive, digits);
  if (high === null) {
    const natural = (first: bigint): string[] => toNaturalRange(first, null);
    return [...withFraction([`"${whole}"`], from), ...withFraction(natural(whole + 1n), free)];
  }
  if (whole > high.value.whole) return [];
  if (whole === high.value.whole) {
    const between = within(
      low.value.fraction,
      high.value.fraction,
      !low.isExclusive,
      !high.isExclusive,
      digits,
    );
    return withFraction([`"${whole}"`], between);
  }
  return [
    ...withFraction([`"${whole}"`], from),
    ...withFraction(toNaturalRange(whole + 1n, high.value.whole - 1n), free),
    ...withFraction([`"${high.value.whole}"`], atMost(high.value.fraction, !high.isExclusive, digits)),
  ];
}

function withFraction(wholes: readonly string[], { isEmptyToo, some }: Digits): string[] {
  if (wholes.length === 0 || (!isEmptyToo && some === null)) return [];
  const whole = wholes.length === 1 ? wholes[0] : `(${wholes.join(' | ')})`;
  if (some === null) return [whole as string];
  return [isEmptyToo ? `${whole} ("." (${some}))?` : `${whole} "." (${some})`];
}

function anyDigits(count: number): string | null {
  return count === 0 ? null : `[0-9]{1,${count}}`;
}

/** `first` and then one of `rest`. */
function prefixed(first: string, { isEmptyToo, some }: Digits): string | null {
  if (some === null) return isEmptyToo ? first : null;
  return isEmptyToo ? `${first} (${some})?` : `${first} (${some})`;
}

function digitsOf(isEmptyToo: boolean, ways: readonly (string | null)[]): Digits {
  const some = ways.filter((way) => way !== null);
  return { isEmptyToo, some: some.length === 0 ? null : some.join(' | ') };
}

/** Digit texts d, at most `left` long, with 0.d >= 0.f, or > when not `isInclusive`. */
function atLeast(f: string, isInclusive: boolean, left: number): Digits {
  if (f === '' && isInclusive) return { isEmptyToo: true, some: anyDigits(left) };
  if (left === 0) return { isEmptyToo: false, some: null };
  const first = Number(f[0] ?? '0');
  const same = prefixed(`"${first}"`, atLeast(f.slice(1), isInclusive, left - 1));
  const rest: Digits = { isEmptyToo: true, some: anyDigits(left - 1) };
  const more = first === 9 ? null : prefixed(toDigits(first + 1, 9), rest);
  return digitsOf(false, [same, more]);
}

/** Digit texts d with 0.d <= 0.f, or <. */
function atMost(f: string, isInclusive: boolean, left: number): Digits {
  if (f === '') {
    return { isEmptyToo: isInclusive, some: isInclusive && left > 0 ? `"0"{1,${left}}` : null };
  }
  if (left === 0) return { isEmptyToo: true, some: null };
  const first = Number(f[0]);
  const rest: Digits = { isEmptyToo: true, some: anyDigits(left - 1) };
  const less = first === 0 ? null : prefixed(toDigits(0, first - 1), rest);
  return digitsOf(true, [less, prefixed(`"${first}"`, atMost(f.slice(1), isInclusive, left - 1))]);
}

function within(low: string, high: string, isLow: boolean, isHigh: boolean, left: number): Digits {
  if (low === '' && isLow) return atMost(high, isHigh, left);
  if (high === '') return { isEmptyToo: false, some: null };
  if (left === 0) return { isEmptyToo: false, some: null };
  const [first, last] = [Number(low[0] ?? '0'), Number(high[0])];
  if (first > last) return { isEmptyToo: false, some: null };
  if (first === last) {
    const rest = within(low.slice(1), high.slice(1), isLow, isHigh, left - 1);
    return digitsOf(false, [prefixed(`"${first}"`, rest)]);
  }
  const rest: Digits = { isEmptyToo: true, some: anyDigits(left - 1) };
  const middle = first + 1 <= last - 1 ? prefixed(toDigits(first + 1, last - 1), rest) : null;
  return digitsOf(false, [
    prefixed(`"${first}"`, atLeast(low.slice(1), isLow, left - 1)),
    middle,
    prefixed(`"${last}"`, atMost(high.slice(1), isHigh, left - 1)),
  ]);
}
