/**
 * JSON Schema (draft 2020-12, and what older drafts and OpenAPI write differently) -> GBNF.
 *
 * The language of the rules is a part of the schema's own: whatever they let through is valid. What they
 * cannot promise is refused with the keyword's name. Where a schema leaves a choice that only matters to a
 * validator, the rules are narrower: properties keep their order, unlisted ones are not made up, blanks and
 * digits are bounded.
 */
import { areDisjoint } from './disjoint.ts';
import { isEndless } from './endless.ts';
import { addJsonRules } from './json-rules.ts';
import type { RuleSet } from './rule-set.ts';
import { toArrayBody } from './schema-array.ts';
import { invalidSchema, isSchemaObject, type SchemaContext, type SchemaObject } from './schema-context.ts';
import { createFlatten } from './schema-flatten.ts';
import { isAnnotation } from './schema-merge.ts';
import { toNumberSchemaBody } from './schema-number.ts';
import { toObjectBody } from './schema-object.ts';
import { createReferences } from './schema-references.ts';
import { checkSchemaSize } from './schema-size.ts';
import { toStringSchemaBody } from './schema-string.ts';
import { toValuesBody } from './schema-values.ts';

export interface SchemaOptions {
  /** The request field that the schema came in. */
  readonly param: string;
  /** `widen` leaves out what cannot be enforced instead of refusing it. */
  readonly unsupported: 'refuse' | 'widen';
  /** What references point into: the schema, or one that it is a part of. */
  readonly root: unknown;
}

const depthMax = 100;
const textLengthMax = 20_000_000;

/** Keywords that constrain, and that no grammar here enforces. */
const unsupported: readonly string[] = [
  'not',
  'if',
  'dependentSchemas',
  'dependentRequired',
  'dependencies',
  'contains',
  'unevaluatedItems',
  'unevaluatedProperties',
  '$dynamicRef',
  '$recursiveRef',
  'minContains',
  'maxContains',
];

const typeByKeyword: readonly (readonly [string, readonly string[]])[] = [
  ['object', ['properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames']],
  ['object', ['minProperties', 'maxProperties']],
  ['array', ['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems']],
  ['string', ['minLength', 'maxLength', 'pattern', 'format']],
  ['number', ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf']],
];

/** The context of one schema, and what it needs to remember on its way down. */
interface Compiler extends SchemaContext {
  readonly param: string;
  readonly hint: string;
  readonly ruleByText: Map<string, string>;
  /** References entered since the last bracket: meeting one again means that it is nothing but itself. */
  open: ReadonlySet<string>;
  depth: number;
  /** Characters of schema written out to tell equal ones. */
  textLength: number;
}

/**
 * Adds the rules of a schema and returns the name of its own.
 * Errors: `invalid_request` whose param is the place in the request, e.g. `schema.properties.x.not`.
 */
export function addSchemaRules(
  rules: RuleSet,
  schema: unknown,
  hint: string,
  options: SchemaOptions,
): string {
  checkSchemaSize(schema, options.param);
  const compiler = createCompiler(rules, hint, options);
  const rule = compiler.convert(schema, options.param);
  if (isEndless(compiler, schema, options.param)) {
    compiler.fail(options.param, 'can never be satisfied: it requires another value of itself, without end');
  }
  return rule;
}

function createCompiler(rules: RuleSet, hint: string, options: SchemaOptions): Compiler {
  const { param } = options;
  const compiler: Compiler = {
    rules,
    json: addJsonRules(rules),
    param,
    hint,
    ruleByText: new Map(),
    open: new Set(),
    depth: 0,
    textLength: 0,
    refuse(place, keyword, why) {
      if (options.unsupported === 'refuse') throw invalidSchema(`${place}.${keyword}`, why);
    },
    fail(place, why) {
      throw invalidSchema(place, why);
    },
    convert(part, place) {
      compiler.depth++;
      if (compiler.depth > depthMax) throw invalidSchema(param, `nests deeper than ${depthMax} levels`);
      const name = toRule(compiler, part, place);
      compiler.depth--;
      return name;
    },
    convertInner(part, place) {
      const outer = compiler.open;
      compiler.open = new Set();
      const name = compiler.convert(part, place);
      compiler.open = outer;
      return name;
    },
    flatten: createFlatten(createReferences(options.root), (place, keyword) =>
      compiler.refuse(place, 'allOf', `cannot be enforced: ${keyword} is given twice`),
    ),
  };
  return compiler;
}

/** Schemas that may come back in themselves get their name before their body. */
function toRule(compiler: Compiler, part: unknown, place: string): string {
  const { json, rules, ruleByText, open } = compiler;
  if (part === true || (isSchemaObject(part) && Object.keys(part).every(isAnnotation))) return json.value();
  if (part === false) throw invalidSchema(place, 'is false: no value satisfies it');
  if (!isSchemaObject(part)) throw invalidSchema(place, 'must be a schema: an object, true or false');
  const hint = place === compiler.param ? compiler.hint : place.slice(place.lastIndexOf('.') + 1);
  if (part.$ref === undefined && part.allOf === undefined) {
    return rules.add(hint, toBody(compiler, part, place));
  }
  const text = JSON.stringify(part);
  compiler.textLength += text.length;
  if (compiler.textLength > textLengthMax)
    throw invalidSchema(compiler.param, 'is too large once it is joined');
  if (open.has(text)) throw invalidSchema(`${place}.$ref`, 'leads back to itself with nothing in between');
  const known = ruleByText.get(text);
  if (known !== undefined) return known;
  const name = rules.fresh(hint);
  ruleByText.set(text, name);
  compiler.open = new Set([...open, text]);
  const flat = compiler.flatten(part, place);
  if (flat === false) throw invalidSchema(place, 'contradicts itself: no value satisfies it');
  rules.set(name, flat === true ? json.value() : toBody(compiler, flat, place));
  compiler.open = open;
  return name;
}

function toBody(compiler: Compiler, part: SchemaObject, place: string): string {
  for (const keyword of unsupported) {
    const saysNothing = keyword.startsWith('unevaluated') && part[keyword] === true;
    if (keyword in part && !saysNothing) compiler.refuse(place, keyword, 'cannot be enforced');
  }
  for (const keyword of ['anyOf', 'oneOf'] as const) {
    if (part[keyword] !== undefined) return toChoice(compiler, part, keyword, place);
  }
  if ('const' in part || 'enum' in part) return toValuesBody(compiler, part, place);
  const bodies = typesOf(part, place).map((type) => toTypeBody(compiler, part, type, place));
  return [...new Set(bodies)].join(' | ');
}

function toChoice(compiler: Compiler, part: SchemaObject, keyword: 'anyOf' | 'oneOf', place: string): string {
  const { [keyword]: branches, ...rest } = part;
  if (!Array.isArray(branches)) throw invalidSchema(`${place}.${keyword}`, 'must be a list of schemas');
  if (keyword === 'oneOf' && !areDisjoint(compiler, branches, place)) {
    const why =
      'has branches that may overlap; use anyOf, or give each a required property with its own const';
    compiler.refuse(place, keyword, why);
  }
  const base = Object.fromEntries(Object.entries(rest).filter(([name]) => !isAnnotation(name)));
  const isBare = Object.keys(base).length === 0;
  const ways = branches.flatMap((branch, index) => {
    const at = `${place}.${keyword}.${index}`;
    const whole = isBare ? branch : { allOf: [base, branch] };
    return compiler.flatten(whole, at) === false ? [] : [compiler.convert(whole, at)];
  });
  if (ways.length === 0) throw invalidSchema(`${place}.${keyword}`, 'has no branch that a value can satisfy');
  return [...new Set(ways)].join(' | ');
}

function typesOf(part: SchemaObject, place: string): readonly unknown[] {
  const types = part.type === undefined ? impliedTypes(part) : [part.type].flat();
  if (types.length === 0) throw invalidSchema(`${place}.type`, 'lists no type');
  return part.nullable === true && !types.includes('null') ? [...types, 'null'] : types;
}

function toTypeBody(compiler: Compiler, part: SchemaObject, type: unknown, place: string): string {
  const { json } = compiler;
  switch (type) {
    case 'object':
      return toObjectBody(compiler, part, place);
    case 'array':
      return toArrayBody(compiler, part, place);
    case 'string':
      return toStringSchemaBody(compiler, part, place);
    case 'number':
    case 'integer':
      return toNumberSchemaBody(compiler, part, place, type === 'integer');
    case 'boolean':
      return json.boolean;
    case 'null':
      return json.null;
    case 'any':
      return json.value();
    default:
      throw invalidSchema(`${place}.type`, `"${String(type).slice(0, 40)}" is not a type`);
  }
}

/** Without `type` the keywords say which one is meant; without those, any value. */
function impliedTypes(part: SchemaObject): readonly string[] {
  const implied = typeByKeyword.filter(([, keywords]) => keywords.some((keyword) => keyword in part));
  return implied.length === 0 ? ['any'] : [...new Set(implied.map(([type]) => type))];
}
