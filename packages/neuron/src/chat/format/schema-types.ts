/**
 * Which JSON types a parameter's schema allows, and the value that a text without types stands for.
 *
 * Formats in the manner of XML write every value as bare text: `42`, `true` and `Paris` differ only by what
 * the schema says. A text that fits no allowed type is a string, so that the client sees what the model
 * wrote.
 */
import { Cursor, rejection, type Steps } from './cursor.ts';
import { toJsonString } from './json-value.ts';
import { copyPythonValue } from './python-value.ts';

export type JsonSchema = Readonly<Record<string, unknown>>;
export type ValueType = 'string' | 'number' | 'integer' | 'boolean' | 'null' | 'object' | 'array';

const others: readonly ValueType[] = ['number', 'integer', 'boolean', 'null', 'object', 'array'];
export const onlyString: ReadonlySet<ValueType> = new Set(['string']);
/** What a value is that the format says to be no string. */
export const noString: ReadonlySet<ValueType> = new Set(others);
const none: ReadonlySet<ValueType> = new Set();
/** References and alternatives followed below one parameter; a schema may refer to itself. */
const visitsMax = 256;

/** Types that `parameter` of an arguments schema may have; empty = the schema does not say. */
export function toAllowedTypes(root: JsonSchema, parameter: string): ReadonlySet<ValueType> {
  const walk: Walk = { root, visits: 0 };
  return findProperty(root, parameter, walk) ?? none;
}

interface Walk {
  readonly root: JsonSchema;
  visits: number;
}

function findProperty(schema: unknown, name: string, walk: Walk): ReadonlySet<ValueType> | null {
  if (!isObject(schema) || ++walk.visits > visitsMax) return null;
  const { properties, additionalProperties } = schema;
  if (isObject(properties) && Object.hasOwn(properties, name)) return toTypes(properties[name], walk);
  const nested = [
    resolve(schema.$ref, walk),
    ...list(schema.allOf),
    ...list(schema.anyOf),
    ...list(schema.oneOf),
  ];
  for (const each of nested) {
    const found = findProperty(each, name, walk);
    if (found !== null) return found;
  }
  return isObject(additionalProperties) ? toTypes(additionalProperties, walk) : null;
}

function toTypes(schema: unknown, walk: Walk): ReadonlySet<ValueType> {
  if (!isObject(schema) || ++walk.visits > visitsMax) return none;
  const found = new Set<ValueType>(ownTypes(schema));
  const target = resolve(schema.$ref, walk);
  if (found.size === 0 && target !== undefined) addAll(found, toTypes(target, walk));
  if (found.size === 0) {
    for (const each of [...list(schema.anyOf), ...list(schema.oneOf)]) addAll(found, toTypes(each, walk));
  }
  if (found.size === 0) {
    for (const each of list(schema.allOf)) {
      const types = toTypes(each, walk);
      if (types.size > 0 && (found.size === 0 || types.size < found.size)) {
        found.clear();
        addAll(found, types);
      }
    }
  }
  if (schema.nullable === true && found.size > 0) found.add('null');
  return found;
}

function ownTypes(schema: JsonSchema): ValueType[] {
  const { type } = schema;
  const named = (Array.isArray(type) ? type : [type])
    .filter((each) => typeof each === 'string')
    .map((each) => each.toLowerCase() as ValueType)
    .filter((each) => each === 'string' || others.includes(each));
  if (named.length > 0) return named;
  if (Object.hasOwn(schema, 'const')) return [typeOf(schema.const)];
  if (Array.isArray(schema.enum)) return schema.enum.map(typeOf);
  if (isObject(schema.properties)) return ['object'];
  return schema.items === undefined ? [] : ['array'];
}

function typeOf(value: unknown): ValueType {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  const type = typeof value;
  if (type === 'string' || type === 'boolean' || type === 'object') return type;
  return 'number';
}

function resolve(reference: unknown, { root }: Walk): unknown {
  if (typeof reference !== 'string' || !reference.startsWith('#')) return undefined;
  let at: unknown = root;
  for (const part of reference.slice(1).split('/').filter(Boolean)) {
    const key = decode(part).replaceAll('~1', '/').replaceAll('~0', '~');
    if (!isObject(at) || !Object.hasOwn(at, key)) return undefined;
    at = at[key];
  }
  return at;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Whether every text stands for itself: it can go on before its end is known. */
export function isAlwaysString(types: ReadonlySet<ValueType>): boolean {
  return types.size === 1 && types.has('string');
}

/** Whether every text but `null` stands for itself. */
export function isStringOrNull(types: ReadonlySet<ValueType>): boolean {
  return types.size === 2 && types.has('string') && types.has('null');
}

/** The JSON text of a bare text, read as the first allowed type that takes the whole of it. */
export function toJsonValue(text: string, types: ReadonlySet<ValueType>): string {
  if (isAlwaysString(types)) return toJsonString(text);
  const trimmed = text.trim();
  const literal = /^(true|false)$/i.test(trimmed) ? trimmed.toLowerCase() : undefined;
  const may = (...kinds: ValueType[]) => types.size === 0 || kinds.some((kind) => types.has(kind));
  if (literal !== undefined && may('boolean')) return literal;
  if ((trimmed === 'null' || trimmed === 'None') && may('null')) return 'null';
  const parsed = parse(trimmed);
  if (typeof parsed === 'number' && may('number', 'integer')) return trimmed;
  // Quoted though it may be no string: the value in quotes is what is meant.
  if (typeof parsed === 'string' && types.size > 0 && !types.has('string')) return trimmed;
  if (typeof parsed === 'object' && parsed !== null && may(Array.isArray(parsed) ? 'array' : 'object')) {
    return trimmed;
  }
  return toPythonContainer(trimmed, types) ?? toJsonString(text);
}

/** `{'a': True}`: what a model writes that was asked for JSON and thinks in Python. */
function toPythonContainer(text: string, types: ReadonlySet<ValueType>): string | null {
  const isMeant =
    (text.startsWith('{') && types.has('object')) || (text.startsWith('[') && types.has('array'));
  if (!isMeant) return null;
  const cursor = new Cursor();
  cursor.push(text);
  cursor.end();
  let json = '';
  try {
    finishSteps(copyPythonValue(cursor, (piece) => (json += piece)));
    return finishSteps(cursor.peek()) === '' ? json : null;
  } catch (thrown) {
    if (thrown === rejection) return null;
    throw thrown;
  }
}

/** Runs a reading whose text is all there. */
function finishSteps<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function addAll(into: Set<ValueType>, from: Iterable<ValueType>): void {
  for (const each of from) into.add(each);
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function isObject(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
