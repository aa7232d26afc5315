import { toRepeat } from './gbnf-text.ts';
import { parsePattern, toStringBody } from './regex-grammar.ts';
import { type Regex, RegexError } from './regex-parser.ts';
import { countsOf, type SchemaContext, type SchemaObject } from './schema-context.ts';
import { formatRegex, isFreeFormat } from './string-formats.ts';

/** A rule body for strings: format, pattern, minLength, maxLength. */
export function toStringSchemaBody(context: SchemaContext, schema: SchemaObject, place: string): string {
  const { min, max } = countsOf(context, schema, place, 'minLength', 'maxLength');
  const content = toContent(context, schema, place, min, max);
  return `"\\x22" ${content} "\\x22"`;
}

/** What stands between the quotes. */
function toContent(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  min: number,
  max: number | null,
): string {
  const free = (): string => toRepeat(context.json.char, min, max);
  const pattern = readPattern(context, schema, place);
  const format = readFormat(context, schema, place);
  if (pattern !== null && format !== null) {
    context.refuse(place, 'pattern', 'cannot be enforced next to format; keep one of them');
  }
  const [regex, keyword] = pattern !== null ? [pattern, 'pattern'] : [format, 'format'];
  if (regex === null) return free();
  try {
    return `(${toStringBody(regex, min, max, context.rules)})`;
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    context.refuse(place, keyword, error.message);
    return free();
  }
}

function readPattern(context: SchemaContext, schema: SchemaObject, place: string): Regex | null {
  const pattern = schema.pattern;
  if (pattern === undefined) return null;
  if (typeof pattern !== 'string') return context.fail(`${place}.pattern`, 'must be text');
  try {
    return parsePattern(pattern);
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    context.refuse(place, 'pattern', error.message);
    return null;
  }
}

function readFormat(context: SchemaContext, schema: SchemaObject, place: string): Regex | null {
  const format = schema.format;
  if (format === undefined) return null;
  if (typeof format !== 'string') return context.fail(`${place}.format`, 'must be text');
  if (isFreeFormat(format)) return null;
  const regex = formatRegex(format);
  if (regex === null) context.refuse(place, 'format', `"${format.slice(0, 40)}" cannot be enforced`);
  return regex;
}
