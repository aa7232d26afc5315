/** `oneOf` is `anyOf` as long as no value satisfies two branches. */
import { isSchemaObject, type SchemaContext, type SchemaObject } from './schema-context.ts';
import { typeOf } from './schema-values.ts';

const branchesMax = 200;
const depthMax = 4;

/** Whether it is certain that every value satisfies at most one of the schemas. */
export function areDisjoint(context: SchemaContext, schemas: readonly unknown[], place: string): boolean {
  if (schemas.length > branchesMax) return false;
  const flat = schemas.map((schema, index) => context.flatten(schema, `${place}.oneOf.${index}`));
  return flat.every((a, index) => flat.slice(index + 1).every((b) => isApart(context, a, b, place, 0)));
}

function isApart(
  context: SchemaContext,
  a: SchemaObject | boolean,
  b: SchemaObject | boolean,
  place: string,
  depth: number,
): boolean {
  if (a === false || b === false) return true;
  if (a === true || b === true || depth > depthMax) return false;
  const [kindsA, kindsB] = [kindsOf(a), kindsOf(b)];
  if (kindsA !== null && kindsB !== null && !kindsA.some((kind) => kindsB.includes(kind))) return true;
  const [valuesA, valuesB] = [valuesOf(a), valuesOf(b)];
  if (valuesA !== null && valuesB !== null) {
    const listed = new Set(valuesB);
    return !valuesA.some((value) => listed.has(value));
  }
  const isObject = (kinds: readonly string[] | null): boolean => kinds?.length === 1 && kinds[0] === 'object';
  if (isObject(kindsA) && isObject(kindsB)) return areObjectsApart(context, a, b, place, depth);
  return areNumbersApart(a, b, kindsA, kindsB);
}

function areObjectsApart(
  context: SchemaContext,
  a: SchemaObject,
  b: SchemaObject,
  place: string,
  depth: number,
): boolean {
  const [ofA, ofB] = [propertiesOf(a), propertiesOf(b)];
  const [needA, needB] = [requiredOf(a), requiredOf(b)];
  const shared = needA.filter((name) => needB.includes(name));
  const differ = shared.some((name) => {
    const [left, right] = [ofA, ofB].map((of) => (Object.hasOwn(of, name) ? of[name] : true));
    return isApart(context, context.flatten(left, place), context.flatten(right, place), place, depth + 1);
  });
  return differ || lacks(a, ofA, needB) || lacks(b, ofB, needA);
}

/** Whether a closed schema has no room for a property that the other requires. */
function lacks(schema: SchemaObject, properties: SchemaObject, needed: readonly string[]): boolean {
  if (schema.additionalProperties !== false || schema.patternProperties !== undefined) return false;
  return needed.some((name) => !Object.hasOwn(properties, name));
}

function areNumbersApart(
  a: SchemaObject,
  b: SchemaObject,
  kindsA: readonly string[] | null,
  kindsB: readonly string[] | null,
): boolean {
  const isNumeric = (kinds: readonly string[] | null): boolean =>
    kinds?.every((kind) => kind === 'number') === true;
  if (!isNumeric(kindsA) || !isNumeric(kindsB)) return false;
  const isBelow = (low: SchemaObject, high: SchemaObject): boolean => {
    const top = low.maximum ?? low.exclusiveMaximum;
    const bottom = high.minimum ?? high.exclusiveMinimum;
    if (typeof top !== 'number' || typeof bottom !== 'number') return false;
    const isStrict = low.maximum === undefined || high.minimum === undefined;
    return isStrict ? top <= bottom : top < bottom;
  };
  return isBelow(a, b) || isBelow(b, a);
}

/** Types with integer folded into number; null = any. */
function kindsOf(schema: SchemaObject): readonly string[] | null {
  const fold = (type: unknown): string => (type === 'integer' ? 'number' : String(type));
  if (schema.type === undefined) {
    const values = listOf(schema);
    return values === null ? null : [...new Set(values.map((value) => fold(typeOf(value))))];
  }
  const kinds = [schema.type].flat().map(fold);
  return schema.nullable === true ? [...kinds, 'null'] : kinds;
}

function listOf(schema: SchemaObject): readonly unknown[] | null {
  if ('const' in schema) return [schema.const];
  return Array.isArray(schema.enum) ? schema.enum : null;
}

function valuesOf(schema: SchemaObject): readonly string[] | null {
  return listOf(schema)?.map((value) => JSON.stringify(value)) ?? null;
}

function propertiesOf(schema: SchemaObject): SchemaObject {
  return isSchemaObject(schema.properties) ? schema.properties : {};
}

function requiredOf(schema: SchemaObject): readonly string[] {
  return Array.isArray(schema.required) ? (schema.required as string[]) : [];
}
