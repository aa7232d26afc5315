import { type Bound, toDecimal, toDecimalRange } from './decimal-range.ts';
import { toMultipleRange } from './multiple-range.ts';
import { numberOf, type SchemaContext, type SchemaObject } from './schema-context.ts';

interface Bounds {
  readonly min: number | null;
  readonly isMinExclusive: boolean;
  readonly max: number | null;
  readonly isMaxExclusive: boolean;
}

/** Numbers that are written stay below it, so a bound beyond it always holds. */
const largest = 1e15;

/** A rule body for `number` or `integer`: bounds and multipleOf. */
export function toNumberSchemaBody(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  isInteger: boolean,
): string {
  const bounds = readBounds(context, schema, place);
  const step = readStep(context, schema, place);
  const { json } = context;
  try {
    if (isInteger || (step !== null && Number.isInteger(step))) {
      if (step === null && bounds.min === null && bounds.max === null) return json.integer;
      return toIntegerBody(context, bounds, step ?? 1);
    }
    if (step === null && bounds.min === null && bounds.max === null) return json.number;
    // With a step, few enough digits that a validator's division still sees it.
    const { min, max } = step === null ? bounds : { min: bounds.min ?? -1e9, max: bounds.max ?? 1e9 };
    const digits = fractionMax(min, max);
    return toDecimalRange(
      toBound(min, bounds.isMinExclusive, digits, Math.ceil),
      toBound(max, bounds.isMaxExclusive, digits, Math.floor),
      step === null ? null : Math.round(-Math.log10(step)),
    );
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const named = ['multipleOf', 'minimum', 'exclusiveMinimum', 'maximum', 'exclusiveMaximum'];
    const keyword = named.find((name) => name in schema) ?? 'type';
    context.refuse(place, keyword, error.message);
    return isInteger ? json.integer : json.number;
  }
}

function toIntegerBody(context: SchemaContext, bounds: Bounds, step: number): string {
  const { min, max, isMinExclusive, isMaxExclusive } = bounds;
  const low = min === null ? null : isMinExclusive ? Math.floor(min) + 1 : Math.ceil(min);
  const high = max === null ? null : isMaxExclusive ? Math.ceil(max) - 1 : Math.floor(max);
  const toBig = (value: number | null): bigint | null => (value === null ? null : BigInt(value));
  return toMultipleRange(BigInt(step), toBig(low), toBig(high), context.rules);
}

/** Digits after the point that numbers within the bounds can have, of 15 in all. */
function fractionMax(min: number | null, max: number | null): number {
  if (min === null || max === null) return 6;
  return 15 - String(Math.trunc(Math.max(Math.abs(min), Math.abs(max)))).length;
}

/** A bound of more digits than are ever written is moved inwards, to one of six after the point. */
function toBound(
  value: number | null,
  isExclusive: boolean,
  digitsMax: number,
  inwards: (value: number) => number,
): Bound | null {
  if (value === null) return null;
  const exact = toDecimal(value);
  if (exact !== null && exact.fraction.length <= digitsMax) return { value: exact, isExclusive };
  const near = toDecimal(inwards(value * 1e6) / 1e6);
  if (near === null) throw new RangeError('has a bound of more than 15 digits');
  return { value: near, isExclusive: false };
}

/** The tighter of each pair; draft 4 wrote exclusive bounds as true beside the plain one. */
function readBounds(context: SchemaContext, schema: SchemaObject, place: string): Bounds {
  const read = (plain: string, exclusive: string, sign: number): readonly [number | null, boolean] => {
    const value = numberOf(context, schema, place, plain);
    if (typeof schema[exclusive] === 'boolean') return [value, schema[exclusive]];
    const strict = numberOf(context, schema, place, exclusive);
    if (strict === null) return [value, false];
    return value === null || strict * sign >= value * sign ? [strict, true] : [value, false];
  };
  const [min, isMinExclusive] = read('minimum', 'exclusiveMinimum', 1);
  const [max, isMaxExclusive] = read('maximum', 'exclusiveMaximum', -1);
  if (min !== null && min >= largest) context.fail(`${place}.minimum`, 'must be below 1e15');
  if (max !== null && max <= -largest) context.fail(`${place}.maximum`, 'must be above -1e15');
  const isEmpty =
    min !== null && max !== null && (min > max || (min === max && (isMinExclusive || isMaxExclusive)));
  if (isEmpty) context.fail(place, `no number lies between its bounds ${min} and ${max}`);
  return {
    min: min !== null && min <= -largest ? null : min,
    isMinExclusive,
    max: max !== null && max >= largest ? null : max,
    isMaxExclusive,
  };
}

/** A whole step, or 0.1, 0.01, ...; others leave no regular language of decimals. */
function readStep(context: SchemaContext, schema: SchemaObject, place: string): number | null {
  const step = numberOf(context, schema, place, 'multipleOf');
  if (step === null) return null;
  if (step <= 0) context.fail(`${place}.multipleOf`, 'must be above 0');
  const isPower =
    Math.abs(Math.log10(step) - Math.round(Math.log10(step))) < 1e-9 && step < 1 && step >= 1e-9;
  if (isPower || (Number.isInteger(step) && step < largest)) return step;
  context.refuse(
    place,
    'multipleOf',
    `cannot be enforced for ${step}; take a whole number or 0.1, 0.01, ...`,
  );
  return null;
}
