import { isSchemaObject, type SchemaContext } from './schema-context.ts';

/** Schemas looked at; beyond it the engine is left to find out. */
const looksMax = 20_000;

/**
 * Whether every value of a schema would have to contain another one of the same schema, and so on for ever:
 * a required property, or an item that must be there, leading back to it.
 */
export function isEndless(context: SchemaContext, schema: unknown, place: string): boolean {
  const finite = new Set<string>();
  let looks = 0;
  const canEnd = (part: unknown, open: ReadonlySet<string>): boolean => {
    if (++looks > looksMax || !isSchemaObject(part)) return true;
    const isReference = part.$ref !== undefined || part.allOf !== undefined;
    const text = isReference ? JSON.stringify(part) : '';
    if (isReference && finite.has(text)) return true;
    if (isReference && open.has(text)) return false;
    const flat = context.flatten(part, place);
    if (!isSchemaObject(flat)) return true;
    const hasEnd = canEndFlat(flat, isReference ? new Set([...open, text]) : open);
    if (isReference && hasEnd) finite.add(text);
    return hasEnd;
  };
  const canEndFlat = (part: Readonly<Record<string, unknown>>, open: ReadonlySet<string>): boolean => {
    if ('const' in part || 'enum' in part) return true;
    for (const branches of [part.anyOf, part.oneOf]) {
      if (Array.isArray(branches)) return branches.some((branch) => canEnd(branch, open));
    }
    const types = [part.type ?? []].flat();
    if (part.nullable === true || types.some((type) => type !== 'object' && type !== 'array')) return true;
    return canEndObject(part, open) && canEndArray(part, open);
  };
  const canEndObject = (part: Readonly<Record<string, unknown>>, open: ReadonlySet<string>): boolean => {
    const { required, properties } = part;
    if (!Array.isArray(required) || !isSchemaObject(properties)) return true;
    return required.every((name) => canEnd(properties[String(name)], open));
  };
  const canEndArray = (part: Readonly<Record<string, unknown>>, open: ReadonlySet<string>): boolean => {
    if (typeof part.minItems !== 'number' || part.minItems < 1) return true;
    const first = Array.isArray(part.prefixItems) ? part.prefixItems[0] : part.items;
    return canEnd(first, open);
  };
  return !canEnd(schema, new Set());
}
