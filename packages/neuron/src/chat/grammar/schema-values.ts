/** `const` and `enum`: the values themselves as literals, those that the other keywords rule out left out. */
import { toLiteral } from './gbnf-text.ts';
import { createPatternTest } from './regex-grammar.ts';
import { RegexError } from './regex-parser.ts';
import type { SchemaContext, SchemaObject } from './schema-context.ts';

const valuesMax = 5000;

/** A rule body for `const` or `enum`, whichever the schema has. */
export function toValuesBody(context: SchemaContext, schema: SchemaObject, place: string): string {
  const keyword = 'const' in schema ? 'const' : 'enum';
  const listed = 'const' in schema ? [schema.const] : schema.enum;
  if (!Array.isArray(listed)) return context.fail(`${place}.enum`, 'must be a list');
  if (listed.length > valuesMax) context.fail(`${place}.enum`, `has more than ${valuesMax} values`);
  const allowed = 'const' in schema && 'enum' in schema ? (schema.enum as readonly unknown[]) : null;
  const texts = new Set(allowed?.map((value) => JSON.stringify(value)));
  for (const unchecked of ['format', 'properties', 'items', 'required', 'anyOf', 'oneOf', 'prefixItems']) {
    const hasParts = listed.some((value) => typeof value === 'object' && value !== null);
    if (unchecked in schema && (hasParts || unchecked === 'format')) {
      context.refuse(place, unchecked, `cannot be enforced next to ${keyword}`);
    }
  }
  const kept = listed
    .filter((value) => allowed === null || texts.has(JSON.stringify(value)))
    .filter(createPlainTest(context, schema, place));
  if (kept.length === 0) context.fail(`${place}.${keyword}`, 'has no value that the other keywords allow');
  return [...new Set(kept.map((value) => toValueBody(value, context.json.blank)))].join(' | ');
}

/** A value as JSON, with blanks where a printer would put them. */
function toValueBody(value: unknown, blank: string): string {
  if (typeof value !== 'object' || value === null) return toLiteral(JSON.stringify(value));
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((item) => toValueBody(item, blank))
    : Object.entries(value).map(
        ([key, item]) => `${toLiteral(`${JSON.stringify(key)}:`)} ${blank} ${toValueBody(item, blank)}`,
      );
  const inside = parts.length === 0 ? blank : `${blank} ${parts.join(` "," ${blank} `)} ${blank}`;
  return isList ? `"[" ${inside} "]"` : `"{" ${inside} "}"`;
}

/** Makes the test of the keywords for a value's type, for numbers and for texts. */
function createPlainTest(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
): (value: unknown) => boolean {
  const isTextValid = createTextTest(context, schema, place);
  return (value) => {
    if (!hasType(value, schema)) return false;
    if (typeof value === 'number') return isNumberValid(value, schema);
    return typeof value === 'string' ? isTextValid(value) : true;
  };
}

function hasType(value: unknown, schema: SchemaObject): boolean {
  if (schema.type === undefined) return true;
  if (value === null && schema.nullable === true) return true;
  const types: readonly unknown[] = [schema.type].flat();
  return types.includes(typeOf(value)) || (typeOf(value) === 'integer' && types.includes('number'));
}

export function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

function isNumberValid(value: number, schema: SchemaObject): boolean {
  const bound = (keyword: string, missing: number): number =>
    (schema[keyword] as number | undefined) ?? missing;
  const step = schema.multipleOf as number | undefined;
  return (
    value >= bound('minimum', Number.NEGATIVE_INFINITY) &&
    value <= bound('maximum', Number.POSITIVE_INFINITY) &&
    value > bound('exclusiveMinimum', Number.NEGATIVE_INFINITY) &&
    value < bound('exclusiveMaximum', Number.POSITIVE_INFINITY) &&
    (step === undefined || Number.isInteger(value / step))
  );
}

/** Makes the test of the keywords for texts. */
export function createTextTest(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
): (text: string) => boolean {
  const { minLength = 0, maxLength = Number.POSITIVE_INFINITY } = schema;
  const isLengthValid = (length: number): boolean =>
    length >= (minLength as number) && length <= (maxLength as number);
  const patterns = [schema.pattern ?? []].flat() as unknown as readonly string[];
  let isMatched: ((text: string) => boolean) | null = null;
  return (text) => {
    if (!isLengthValid([...text].length)) return false;
    try {
      isMatched ??= createPatternTest(patterns);
      return isMatched(text);
    } catch (error) {
      if (!(error instanceof RegexError)) throw error;
      context.refuse(place, 'pattern', error.message);
      return true;
    }
  };
}
