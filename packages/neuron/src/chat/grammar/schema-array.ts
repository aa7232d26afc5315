import { toRepeat } from './gbnf-text.ts';
import { countsOf, type SchemaContext, type SchemaObject } from './schema-context.ts';

/** A rule body for arrays: prefixItems (or the old list form of items), items, minItems, maxItems. */
export function toArrayBody(context: SchemaContext, schema: SchemaObject, place: string): string {
  const { min, max } = countsOf(context, schema, place, 'minItems', 'maxItems');
  if (schema.uniqueItems === true && (max === null || max > 1)) {
    context.refuse(
      place,
      'uniqueItems',
      'cannot be enforced; leave it out, or list the combinations in an enum',
    );
  }
  const { prefix, rest } = readItems(context, schema, place);
  if (prefix.length === 0 && rest === undefined && min === 0 && max === null) return context.json.array();
  const isClosed = rest === false || (prefix.length > 0 && rest === undefined && min <= prefix.length);
  const top = isClosed ? Math.min(max ?? prefix.length, prefix.length) : max;
  if (top !== null && top < min) context.fail(`${place}.minItems`, 'asks for more items than are allowed');
  const { blank } = context.json;
  const body = toItems(
    context,
    prefix.slice(0, top ?? undefined),
    isClosed ? null : (rest ?? true),
    min,
    top,
    place,
  );
  return `"[" ${blank} ${body} "]"`;
}

function readItems(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
): { readonly prefix: readonly unknown[]; readonly rest: unknown } {
  const isOldForm = Array.isArray(schema.items);
  const prefix = isOldForm ? schema.items : (schema.prefixItems ?? []);
  if (!Array.isArray(prefix)) return context.fail(`${place}.prefixItems`, 'must be a list of schemas');
  return { prefix, rest: isOldForm ? schema.additionalItems : schema.items };
}

/** The items and the blanks after them; nothing when there may be none. */
function toItems(
  context: SchemaContext,
  prefix: readonly unknown[],
  rest: unknown,
  min: number,
  max: number | null,
  place: string,
): string {
  const { rules, json } = context;
  const comma = `"," ${json.blank}`;
  let tail = rest === null ? json.blank : '';
  if (rest !== null && (max === null || max > prefix.length)) {
    const isPossible = context.flatten(rest, `${place}.items`) !== false;
    if (!isPossible && min > prefix.length) context.fail(`${place}.items`, 'allows no value');
    if (isPossible) {
      const item = context.convertInner(rest, `${place}.items`);
      const [low, high] = [Math.max(min - prefix.length, 0), max === null ? null : max - prefix.length];
      if (prefix.length === 0) return toList(context, item, low, high);
      tail = `${toRepeat(`${comma} ${item}`, low, high)} ${json.blank}`;
    }
  }
  if (tail === '') tail = json.blank;
  if (prefix.length === 0) return '""';
  for (let index = prefix.length - 1; index >= 0; index--) {
    const item = context.convertInner(prefix[index], `${place}.prefixItems.${index}`);
    const some = `${index === 0 ? '' : `${comma} `}${item} ${tail}`;
    const none = index === 0 ? '""' : json.blank;
    tail = rules.add('items', index >= min ? `${some} | ${none}` : some);
  }
  return tail;
}

function toList(context: SchemaContext, item: string, min: number, max: number | null): string {
  const { blank } = context.json;
  if (max === 0) return '""';
  const more = toRepeat(`"," ${blank} ${item}`, Math.max(min - 1, 0), max === null ? null : max - 1);
  const some = `${item} ${more} ${blank}`;
  return min === 0 ? `(${some})?` : some;
}
