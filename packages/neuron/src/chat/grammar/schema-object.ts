/**
 * Objects. Properties come in the schema's own order, each once; what `additionalProperties` or
 * `patternProperties` allow beyond them comes last. Where the schema lists properties and says nothing about
 * others, none are made up.
 */

import { toLiteral, toRepeat } from './gbnf-text.ts';
import { addKeyExcept } from './key-except.ts';
import { countsOf, isSchemaObject, type SchemaContext, type SchemaObject } from './schema-context.ts';
import { createTextTest } from './schema-values.ts';

interface Member {
  /** GBNF of key, colon and value. */
  readonly pair: string;
  readonly isRequired: boolean;
}

interface Shape {
  readonly members: readonly Member[];
  /** GBNF of a pair beyond the members, null = none. */
  readonly extra: string | null;
  readonly min: number;
  readonly max: number | null;
}

const membersMax = 1000;
const onePattern = 'can be enforced for one pattern only';
const countedMax = 4000;

/** A rule body for objects. */
export function toObjectBody(context: SchemaContext, schema: SchemaObject, place: string): string {
  const { min, max } = countsOf(context, schema, place, 'minProperties', 'maxProperties');
  const required = readRequired(context, schema, place);
  const properties = readProperties(context, schema, place, required);
  const names = Object.keys(properties);
  const isOpen = opensUp(schema, names.length);
  const saysNothing = schema.propertyNames === undefined && schema.additionalProperties === undefined;
  if (isOpen && names.length === 0 && saysNothing && min === 0 && max === null) return context.json.object();
  const members = names.flatMap((name) => toMember(context, properties, name, place, required.has(name)));
  const extra = toExtra(context, schema, names, place, isOpen);
  const body = toMembersRule(context, { members, extra, min, max }, place);
  return `"{" ${context.json.blank} ${body} "}"`;
}

/** Whether keys that the schema does not list may appear. */
function opensUp(schema: SchemaObject, listed: number): boolean {
  const rest = schema.additionalProperties;
  if (rest === undefined) return listed === 0 && schema.patternProperties === undefined;
  return rest !== false;
}

function readRequired(context: SchemaContext, schema: SchemaObject, place: string): ReadonlySet<string> {
  const required = schema.required ?? [];
  if (!Array.isArray(required) || required.some((name) => typeof name !== 'string')) {
    return context.fail(`${place}.required`, 'must be a list of property names');
  }
  return new Set(required as string[]);
}

/** The listed properties, and those that are only required, with what holds for unlisted ones. */
function readProperties(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  required: ReadonlySet<string>,
): SchemaObject {
  const listed = schema.properties ?? {};
  if (!isSchemaObject(listed)) return context.fail(`${place}.properties`, 'must be an object of schemas');
  const unlisted = [...required].filter((name) => !Object.hasOwn(listed, name));
  if (Object.keys(listed).length + unlisted.length > membersMax) {
    context.fail(`${place}.properties`, `has more than ${membersMax} properties`);
  }
  if (unlisted.length === 0) return listed;
  const rest = schema.additionalProperties ?? true;
  const patterns = isSchemaObject(schema.patternProperties) ? schema.patternProperties : {};
  const [pattern, second] = Object.keys(patterns);
  if (second !== undefined) context.refuse(place, 'patternProperties', onePattern);
  const isFitting = pattern === undefined ? () => false : createKeyTest(context, pattern, place);
  const added = unlisted.map((name): [string, unknown] => {
    if (pattern !== undefined && isFitting(name)) return [name, patterns[pattern]];
    if (rest === false)
      context.fail(`${place}.required`, `names "${name.slice(0, 60)}", which is not among the properties`);
    return [name, rest];
  });
  return { ...listed, ...Object.fromEntries(added) };
}

function createKeyTest(context: SchemaContext, pattern: string, place: string): (name: string) => boolean {
  return createTextTest(context, { pattern }, `${place}.patternProperties`);
}

function toMember(
  context: SchemaContext,
  properties: SchemaObject,
  name: string,
  place: string,
  isRequired: boolean,
): Member[] {
  const at = `${place}.properties.${name}`;
  const schema = properties[name];
  if (context.flatten(schema, at) === false) {
    if (isRequired) context.fail(at, 'is required, and no value satisfies it');
    return [];
  }
  const value = context.convertInner(schema, at);
  return [{ pair: `${toLiteral(`${JSON.stringify(name)}:`)} ${context.json.blank} ${value}`, isRequired }];
}

function toExtra(
  context: SchemaContext,
  schema: SchemaObject,
  names: readonly string[],
  place: string,
  isOpen: boolean,
): string | null {
  const { json, rules } = context;
  const patterns = schema.patternProperties;
  if (patterns !== undefined) return toPatternExtra(context, patterns, names, place);
  if (!isOpen) return null;
  const rest = schema.additionalProperties ?? true;
  const value = context.convertInner(rest, `${place}.additionalProperties`);
  if (schema.propertyNames !== undefined) {
    const key = toKeyRule(context, schema.propertyNames, names, place);
    if (key === 'none') return null;
    if (key !== null) return rules.add('extra', `${key.rule} ":" ${json.blank} ${value}`);
  }
  const key = addKeyExcept(rules, json.keyChar, names);
  return rules.add('extra', `"\\x22" ${key} "\\x22:" ${json.blank} ${value}`);
}

/** Keys that match one pattern; what `additionalProperties` would allow beside them is not made up. */
function toPatternExtra(
  context: SchemaContext,
  patterns: unknown,
  names: readonly string[],
  place: string,
): string | null {
  if (!isSchemaObject(patterns))
    return context.fail(`${place}.patternProperties`, 'must be an object of schemas');
  const [pattern, second] = Object.keys(patterns);
  if (pattern === undefined) return null;
  if (second !== undefined) {
    context.refuse(place, 'patternProperties', onePattern);
  }
  const clash = names.find(createKeyTest(context, pattern, place));
  if (clash !== undefined) {
    context.refuse(
      place,
      'patternProperties',
      `matches "${clash.slice(0, 60)}" as well, which properties list`,
    );
    return null;
  }
  const at = `${place}.patternProperties.${pattern}`;
  if (context.flatten(patterns[pattern], at) === false) return null;
  const key = context.convertInner({ type: 'string', pattern }, `${place}.patternProperties`);
  const value = context.convertInner(patterns[pattern], at);
  return context.rules.add('extra', `${key} ":" ${context.json.blank} ${value}`);
}

/** The rule for keys that `propertyNames` allows and `names` does not have; null = any key is allowed. */
function toKeyRule(
  context: SchemaContext,
  propertyNames: unknown,
  names: readonly string[],
  place: string,
): { readonly rule: string } | 'none' | null {
  const at = `${place}.propertyNames`;
  const flat = context.flatten(propertyNames, at);
  if (typeof flat === 'boolean') return flat ? null : 'none';
  const isListed = (name: string): boolean => !Array.isArray(flat.enum) || flat.enum.includes(name);
  const isTextValid = createTextTest(context, flat, at);
  const bad = names.find((name) => !isListed(name) || !isTextValid(name));
  if (bad !== undefined) context.fail(at, `does not allow "${bad.slice(0, 60)}", which properties list`);
  if (Array.isArray(flat.enum)) {
    const left = flat.enum.filter((name) => typeof name === 'string' && !names.includes(name));
    if (left.length === 0) return 'none';
    return { rule: context.convertInner({ ...flat, type: 'string', enum: left }, at) };
  }
  if (names.length > 0) {
    context.refuse(place, 'propertyNames', 'cannot be enforced next to properties');
    return null;
  }
  return { rule: context.convertInner({ ...flat, type: 'string' }, at) };
}

/**
 * The members in order, as a chain of rules: one per place in the order, for "a member stands before" or not,
 * and for how many stand before where that matters.
 */
function toMembersRule(context: SchemaContext, shape: Shape, place: string): string {
  const { members, min, max, extra } = shape;
  const requiredCount = members.filter((member) => member.isRequired).length;
  const isCounted = min > requiredCount || (max !== null && (extra !== null || max < members.length));
  if (isCounted && members.length * members.length > countedMax) {
    const keyword = min > requiredCount ? 'minProperties' : 'maxProperties';
    context.refuse(place, keyword, `cannot be enforced for ${members.length} properties`);
    return toChain(context, { ...shape, min: 0, max: null }, false) as string;
  }
  const chain = toChain(context, shape, isCounted);
  if (chain !== null) return chain;
  const keyword = max !== null && max < requiredCount ? 'maxProperties' : 'minProperties';
  // Keys of free choice could repeat, so no grammar can count different ones.
  context.refuse(place, keyword, 'cannot be enforced with these properties');
  return toChain(context, { ...shape, min: 0, max: null }, false) as string;
}

/** The first rule of the chain, null when nothing satisfies the counts. */
function toChain(context: SchemaContext, shape: Shape, isCounted: boolean): string | null {
  const { rules, json } = context;
  const { members, extra, min, max } = shape;
  const known = new Map<string, string | null>();
  const comma = `"," ${json.blank} `;
  const atEnd = (count: number, isFirst: boolean): string | null => {
    const left = max === null ? null : max - count;
    if (left !== null && left < 0) return null;
    const missing = isCounted ? Math.max(0, min - count) : 0;
    const end = isFirst ? '""' : json.blank;
    if (extra === null || left === 0) return missing > 0 ? null : end;
    if (missing > 1) return null;
    const more = toRepeat(
      `${comma}${extra}`,
      isFirst ? 0 : missing,
      left === null ? null : left - (isFirst ? 1 : 0),
    );
    if (!isFirst) return `${more} ${json.blank}`;
    const some = `${extra} ${more} ${json.blank}`;
    return missing > 0 ? some : `(${some})?`;
  };
  const from = (index: number, isFirst: boolean, count: number): string | null => {
    if (index === members.length) return atEnd(count, isFirst);
    const key = `${index} ${isFirst} ${count}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const { pair, isRequired } = members[index] as Member;
    const taken = from(index + 1, false, isCounted ? count + 1 : 0);
    const skipped = isRequired ? null : from(index + 1, isFirst, count);
    const ways = [
      ...(taken === null ? [] : [`${isFirst ? '' : comma}${pair} ${taken}`]),
      ...(skipped === null ? [] : [skipped]),
    ];
    const name = ways.length === 0 ? null : rules.add('members', ways.join(' | '));
    known.set(key, name);
    return name;
  };
  return from(0, true, 0);
}
