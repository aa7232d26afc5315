/** `allOf`: two schemas, free of `$ref` and `allOf` at their tops, as one that both must satisfy. */
import { isSchemaObject, NothingLeft, type SchemaObject } from './schema-context.ts';

/** A keyword that both have and that cannot be joined. */
export class NotJoinable extends Error {
  readonly keyword: string;

  constructor(keyword: string) {
    super(keyword);
    this.keyword = keyword;
  }
}

type Join = (a: unknown, b: unknown) => unknown;

const larger: Join = (a, b) => Math.max(a as number, b as number);
const smaller: Join = (a, b) => Math.min(a as number, b as number);
const both: Join = (a, b) => ({ allOf: [a, b] });

const joins: Readonly<Record<string, Join>> = {
  type: joinTypes,
  enum: (a, b) => {
    const texts = new Set((b as readonly unknown[]).map((value) => JSON.stringify(value)));
    const left = (a as readonly unknown[]).filter((value) => texts.has(JSON.stringify(value)));
    if (left.length === 0) throw new NothingLeft('the enums have no value in common');
    return left;
  },
  required: (a, b) => [...new Set([...(a as string[]), ...(b as string[])])],
  items: both,
  propertyNames: both,
  minLength: larger,
  maxLength: smaller,
  minItems: larger,
  maxItems: smaller,
  minProperties: larger,
  maxProperties: smaller,
  minimum: larger,
  maximum: smaller,
  exclusiveMinimum: larger,
  exclusiveMaximum: smaller,
  multipleOf: joinSteps,
  // A list of patterns is only ever made here.
  pattern: (a, b) => [a, b].flat(),
  uniqueItems: (a, b) => a === true || b === true,
  nullable: (a, b) => a === true && b === true,
};

/** Keywords that constrain, and of which a schema can have one only. */
const unjoinable: readonly string[] = [
  'format',
  'prefixItems',
  'additionalItems',
  'not',
  'if',
  'then',
  'else',
  'contains',
  'minContains',
  'maxContains',
  'dependentRequired',
  'dependentSchemas',
  'dependencies',
  'unevaluatedItems',
  'unevaluatedProperties',
];

const annotations: ReadonlySet<string> = new Set([
  '$schema',
  '$id',
  'id',
  '$anchor',
  '$comment',
  '$defs',
  'definitions',
  'title',
  'description',
  'default',
  'example',
  'examples',
  'deprecated',
  'readOnly',
  'writeOnly',
  'contentEncoding',
  'contentMediaType',
  'contentSchema',
  'discriminator',
  'externalDocs',
  'xml',
]);

/** Whether a keyword says nothing about which values are valid. */
export function isAnnotation(keyword: string): boolean {
  return annotations.has(keyword) || keyword.startsWith('x-');
}

/** Errors: NothingLeft when no value satisfies both, NotJoinable. */
export function mergeSchemas(a: SchemaObject | boolean, b: SchemaObject | boolean): SchemaObject | boolean {
  if (a === false || b === false) throw new NothingLeft('one of them allows nothing');
  if (a === true) return b;
  if (b === true) return a;
  const merged: Record<string, unknown> = { ...a, ...b };
  for (const keyword of Object.keys(b)) {
    if (!(keyword in a) || isAnnotation(keyword) || objectKeywords.includes(keyword)) continue;
    if (JSON.stringify(a[keyword]) === JSON.stringify(b[keyword])) continue;
    if (keyword === 'const') throw new NothingLeft('the consts differ');
    if (keyword === 'anyOf' || keyword === 'oneOf') {
      // The other choice moves into each branch of the first.
      merged[keyword] = (a[keyword] as readonly unknown[]).map((branch) => ({
        allOf: [branch, { [keyword]: b[keyword] }],
      }));
      continue;
    }
    if (unjoinable.includes(keyword)) throw new NotJoinable(keyword);
    // What is no keyword says nothing; either side's will do.
    if (Object.hasOwn(joins, keyword)) merged[keyword] = (joins[keyword] as Join)(a[keyword], b[keyword]);
  }
  mergeObjects(a, b, merged);
  return merged;
}

const objectKeywords: readonly string[] = ['properties', 'patternProperties', 'additionalProperties'];

/** Properties depend on the other side's `additionalProperties` as well. */
function mergeObjects(a: SchemaObject, b: SchemaObject, merged: Record<string, unknown>): void {
  if (!objectKeywords.some((keyword) => keyword in a) || !objectKeywords.some((keyword) => keyword in b))
    return;
  const [ofA, ofB] = [propertiesOf(a), propertiesOf(b)];
  const names = [...new Set([...Object.keys(ofA), ...Object.keys(ofB)])];
  const properties = names.map((name): [string, unknown] => {
    const sides = [sideOf(a, ofA, name), sideOf(b, ofB, name)].filter((side) => side !== true);
    return [name, sides.length === 0 ? true : sides.length === 1 ? sides[0] : { allOf: sides }];
  });
  if (properties.length > 0) merged.properties = Object.fromEntries(properties);
  if (a.patternProperties !== undefined && b.patternProperties !== undefined) {
    throw new NotJoinable('patternProperties');
  }
  const [restA, restB] = [a.additionalProperties, b.additionalProperties];
  if (restA === undefined || restB === undefined) {
    const rest = restA ?? restB;
    if (rest !== undefined) merged.additionalProperties = rest;
  } else if (restA === false || restB === false) merged.additionalProperties = false;
  else merged.additionalProperties = { allOf: [restA, restB] };
}

/** What one side says about a property: its own schema, or what it says about those it does not list. */
function sideOf(schema: SchemaObject, properties: SchemaObject, name: string): unknown {
  if (Object.hasOwn(properties, name)) return properties[name];
  if (schema.patternProperties !== undefined) throw new NotJoinable('patternProperties');
  return schema.additionalProperties ?? true;
}

function propertiesOf(schema: SchemaObject): SchemaObject {
  return isSchemaObject(schema.properties) ? schema.properties : {};
}

function joinTypes(a: unknown, b: unknown): readonly string[] {
  const [left, right] = [[a].flat() as string[], [b].flat() as string[]];
  const common = left.flatMap((type) => {
    if (right.includes(type)) return [type];
    if (type === 'integer' && right.includes('number')) return ['integer'];
    return type === 'number' && right.includes('integer') ? ['integer'] : [];
  });
  if (common.length === 0)
    throw new NothingLeft(`a value cannot be ${left.join('/')} and ${right.join('/')}`);
  return [...new Set(common)];
}

/** The least common multiple, of whole steps. */
function joinSteps(a: unknown, b: unknown): number {
  if (!Number.isInteger(a) || !Number.isInteger(b)) throw new NotJoinable('multipleOf');
  const gcd = (x: number, y: number): number => (y === 0 ? x : gcd(y, x % y));
  return ((a as number) / gcd(a as number, b as number)) * (b as number);
}
