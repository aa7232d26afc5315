import { AppError } from 'cortex-core/wire/errors';
import type { JsonRules } from './json-rules.ts';
import type { RuleSet } from './rule-set.ts';

const placeMax = 200;

export type SchemaObject = Readonly<Record<string, unknown>>;

/** What the parts of the schema compiler share. Places are request fields, e.g. `schema.properties.x`. */
export interface SchemaContext {
  readonly rules: RuleSet;
  readonly json: JsonRules;
  /**
   * A keyword that no grammar enforces. Throws `invalid_request` naming it, or returns when the builder was
   * told to widen: then the caller goes on without the keyword.
   */
  refuse(place: string, keyword: string, why: string): void;
  /** Throws `invalid_request`: the schema is wrong, or nothing satisfies it. */
  fail(place: string, why: string): never;
  /** The rule of a schema; returns its name. */
  convert(schema: unknown, place: string): string;
  /** The same inside an object or array, where a reference may lead back to what contains it. */
  convertInner(schema: unknown, place: string): string;
  /** The schema without `$ref` and `allOf` at its top. */
  flatten(schema: unknown, place: string): SchemaObject | boolean;
}

/** A fault of the schema. A place is as long as the names in it, so its middle may be left out. */
export function invalidSchema(place: string, why: string): AppError {
  const param = place.length <= placeMax ? place : `${place.slice(0, 120)}...${place.slice(-60)}`;
  return new AppError('invalid_request', `${param} ${why}`, { param });
}

/** Thrown while schemas are joined: nothing satisfies both. */
export class NothingLeft extends Error {}

export function isSchemaObject(value: unknown): value is SchemaObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A keyword's value as a number; `fail`s for anything else. */
export function numberOf(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  keyword: string,
): number | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  return context.fail(`${place}.${keyword}`, 'must be a number');
}

/** As `numberOf`, for counts: a whole number from 0 on. */
function countOf(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  keyword: string,
): number | null {
  const value = numberOf(context, schema, place, keyword);
  if (value === null || (Number.isInteger(value) && value >= 0)) return value;
  return context.fail(`${place}.${keyword}`, 'must be a whole number, 0 or more');
}

/** No answer reaches a count like this: an upper bound beyond it is none. */
const countMax = 1_000_000;

/** `min` and `max` as counts; null = no upper bound. */
export function countsOf(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  minKeyword: string,
  maxKeyword: string,
): { readonly min: number; readonly max: number | null } {
  const min = countOf(context, schema, place, minKeyword) ?? 0;
  const max = countOf(context, schema, place, maxKeyword);
  if (min > countMax) context.fail(`${place}.${minKeyword}`, `may be at most ${countMax}`);
  if (max !== null && max < min) context.fail(`${place}.${maxKeyword}`, `is below ${minKeyword}`);
  return { min, max: max !== null && max > countMax ? null : max };
}
