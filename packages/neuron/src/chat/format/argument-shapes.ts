/** The objects that a tool's schema allows as arguments, for formats that write parameter by parameter. */
import { invalidSchema, isSchemaObject, type SchemaObject } from '../grammar/schema-context.ts';
import { createFlatten } from '../grammar/schema-flatten.ts';
import { isAnnotation } from '../grammar/schema-merge.ts';
import { createReferences } from '../grammar/schema-references.ts';

export interface ArgumentShape {
  /** Schemas of the parameters in their order: the listed ones, and those that are only required. */
  readonly properties: ReadonlyMap<string, SchemaObject>;
  readonly required: ReadonlySet<string>;
  /** Schema of parameters beyond these; null = there are none. */
  readonly extra: SchemaObject | null;
}

const shapesMax = 32;
const open: ArgumentShape = { properties: new Map(), required: new Set(), extra: {} };

/**
 * One shape for each way through `anyOf` and `oneOf` at the root; with too many of them, the open one.
 * References and `allOf` at the root and at the top of each parameter are followed.
 * Errors: `invalid_request` for a schema that is none, or that allows no object.
 */
export function toArgumentShapes(parameters: SchemaObject, place: string): readonly ArgumentShape[] {
  // A schema that is a hint: of two keywords that cannot be joined, the last will do.
  const flatten = createFlatten(createReferences(parameters), () => {});
  const shapes: ArgumentShape[] = [];
  const visit = (schema: unknown, depth: number): void => {
    const flat = flatten(schema, place);
    if (flat === false || shapes.length > shapesMax) return;
    if (flat === true) {
      shapes.push(open);
      return;
    }
    const keyword = (['anyOf', 'oneOf'] as const).find((key) => flat[key] !== undefined);
    if (keyword === undefined) {
      if (mayBeObject(flat)) shapes.push(toShape(flat, place, flatten));
      return;
    }
    const { [keyword]: branches, ...rest } = flat;
    if (!Array.isArray(branches) || depth > shapesMax)
      throw invalidSchema(`${place}.${keyword}`, 'must be a list of schemas, of a few levels');
    for (const branch of branches) visit({ allOf: [withoutAnnotations(rest), branch] }, depth + 1);
  };
  visit(parameters, 0);
  if (shapes.length === 0) throw invalidSchema(place, 'allows no object, which arguments are');
  return shapes.length > shapesMax ? [open] : shapes;
}

function mayBeObject({ type }: SchemaObject): boolean {
  return type === undefined || [type].flat().includes('object');
}

function withoutAnnotations(schema: SchemaObject): SchemaObject {
  return Object.fromEntries(Object.entries(schema).filter(([key]) => !isAnnotation(key)));
}

type Flatten = (part: unknown, place: string) => SchemaObject | boolean;

function toShape(schema: SchemaObject, place: string, flatten: Flatten): ArgumentShape {
  const { properties: listed = {}, required = [] } = schema;
  if (!isSchemaObject(listed)) throw invalidSchema(`${place}.properties`, 'must be an object of schemas');
  if (!Array.isArray(required) || required.some((name) => typeof name !== 'string'))
    throw invalidSchema(`${place}.required`, 'must be a list of property names');
  const extra = toExtra(schema);
  const names = new Set([...Object.keys(listed), ...(required as string[])]);
  const properties = new Map<string, SchemaObject>();
  for (const name of names) {
    const at = `${place}.properties.${name}`;
    const flat = flatten(Object.hasOwn(listed, name) ? listed[name] : (extra ?? true), at);
    if (flat !== false) properties.set(name, flat === true ? {} : flat);
    else if (required.includes(name)) throw invalidSchema(at, 'is required, and no value satisfies it');
  }
  return { properties, required: new Set(required as string[]), extra };
}

/** A schema without a word about properties says that any may come; one that lists them means these. */
function toExtra({ properties, required, patternProperties, additionalProperties }: SchemaObject) {
  if (isSchemaObject(patternProperties)) return {};
  if (isSchemaObject(additionalProperties)) return additionalProperties;
  if (additionalProperties !== undefined) return additionalProperties === false ? null : {};
  return properties === undefined && required === undefined ? {} : null;
}

/** The texts that a schema leaves to choose from, `null` spelled out; null when it does not list them. */
export function toTextOptions(schema: SchemaObject): readonly string[] | null {
  if (Array.isArray(schema.enum)) {
    const options = schema.enum.filter((each) => each !== null);
    return options.length > 0 && options.every((each) => typeof each === 'string') ? options : null;
  }
  if (typeof schema.const === 'string') return [schema.const];
  const branches = schema.anyOf ?? schema.oneOf;
  if (!Array.isArray(branches)) return null;
  const texts: string[] = [];
  for (const branch of branches) {
    const options =
      branch?.type === 'null' ? ['null'] : isSchemaObject(branch) ? toTextOptions(branch) : null;
    if (options === null) return null;
    texts.push(...options);
  }
  return texts.length > 0 ? texts : null;
}
