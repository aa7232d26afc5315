/** GBNF of values as Gemma 4 and FunctionGemma write them: JSON with bare keys and a token for quotes. */
import type { GrammarBuilder } from '../grammar/grammar-builder.ts';
import { toTextOptions } from './argument-shapes.ts';
import type { JsonSchema, ValueType } from './schema-types.ts';

const scalars: readonly ValueType[] = ['number', 'integer', 'boolean', 'null'];
/** Lists and objects inside a list or an object, so many levels deep. */
const depthMax = 3;

/**
 * A value of one of the types, any when there are none. Numbers and the like are held to the schema, texts
 * to their enum. Members of lists and objects may be anything: they are written in a way that no JSON
 * grammar knows.
 */
export function gemmaValueRule(
  builder: GrammarBuilder,
  schema: JsonSchema,
  types: ReadonlySet<ValueType>,
  quote: string,
  hint: string,
): string {
  const may = (type: ValueType): boolean => types.size === 0 || types.has(type);
  const ways: string[] = [];
  if (may('string')) ways.push(toText(builder, schema, quote));
  const own = scalars.filter(may);
  if (own.length > 0) {
    const isAll = own.length === types.size;
    ways.push(builder.addSchema(isAll ? schema : { type: own }, hint));
  }
  if (may('array') || may('object')) {
    const any = toAnyRule(builder, quote);
    if (may('array')) ways.push(toList(any));
    if (may('object')) ways.push(toObject(any));
  }
  return `(${ways.join(' | ')})`;
}

function toText(builder: GrammarBuilder, schema: JsonSchema, quote: string): string {
  const mark = builder.literal(quote);
  const texts = toTextOptions(schema) ?? [];
  const body =
    texts.length > 0
      ? `(${texts.map((each) => builder.literal(each)).join(' | ')})`
      : builder.textUntil([quote]);
  return `${mark} ${body} ${mark}`;
}

function toAnyRule(builder: GrammarBuilder, quote: string): string {
  const scalar = builder.addSchema({ type: scalars }, 'gemma-scalar');
  let any = builder.addRule('gemma-value', `${toText(builder, {}, quote)} | ${scalar}`);
  const flat = any;
  for (let level = 1; level < depthMax; level++) {
    any = builder.addRule('gemma-value', `${flat} | ${toList(any)} | ${toObject(any)}`);
  }
  return any;
}

function toList(item: string): string {
  return `"[" (${item} ("," ${item})*)? "]"`;
}

function toObject(value: string): string {
  const member = `[a-zA-Z_] [a-zA-Z0-9_-]{0,40} ":" ${value}`;
  return `"{" (${member} ("," ${member})*)? "}"`;
}
