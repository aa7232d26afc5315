import { invalidSchema, isSchemaObject, NothingLeft, type SchemaObject } from './schema-context.ts';
import { mergeSchemas, NotJoinable } from './schema-merge.ts';
import type { References } from './schema-references.ts';

const chainMax = 100;
const stepsMax = 200_000;

/**
 * Makes the function that resolves `$ref` and joins `allOf` at the top of a schema; it gives false when
 * nothing satisfies all the parts. `onNotJoinable` may throw; if it does not, the last part's keyword wins.
 */
export function createFlatten(
  references: References,
  onNotJoinable: (place: string, keyword: string) => void,
): (part: unknown, place: string) => SchemaObject | boolean {
  let steps = 0;
  const flatten = (part: unknown, place: string, seen: ReadonlySet<string>): SchemaObject | boolean => {
    if (++steps > stepsMax) throw invalidSchema(place, 'is too large once its references are followed');
    if (typeof part === 'boolean') return part;
    if (!isSchemaObject(part)) throw invalidSchema(place, 'must be a schema: an object, true or false');
    const { $ref: reference, allOf, ...rest } = part;
    if (isNever(part)) return false;
    if (reference === undefined && allOf === undefined) return part;
    const parts: (SchemaObject | boolean)[] = [rest];
    if (reference !== undefined) {
      const target = references.resolve(reference, `${place}.$ref`);
      if (seen.has(target.pointer) || seen.size > chainMax) {
        throw invalidSchema(`${place}.$ref`, 'leads back to itself with nothing in between');
      }
      parts.push(flatten(target.schema, place, new Set([...seen, target.pointer])));
    }
    if (allOf !== undefined) {
      if (!Array.isArray(allOf)) throw invalidSchema(`${place}.allOf`, 'must be a list of schemas');
      for (const [index, item] of allOf.entries()) parts.push(flatten(item, `${place}.allOf.${index}`, seen));
    }
    return join(parts, place);
  };
  const join = (parts: readonly (SchemaObject | boolean)[], place: string): SchemaObject | boolean => {
    try {
      return parts.reduce(mergeSchemas);
    } catch (error) {
      if (error instanceof NothingLeft) return false;
      if (!(error instanceof NotJoinable)) throw error;
      onNotJoinable(place, error.keyword);
      return Object.assign({}, ...parts.filter(isSchemaObject)) as SchemaObject;
    }
  };
  return (part, place) => flatten(part, place, new Set());
}

/** `{not: {}}`, how schema libraries write `false`. */
function isNever({ not }: SchemaObject): boolean {
  return not === true || (isSchemaObject(not) && Object.keys(not).length === 0);
}
