import { toRepeat } from './gbnf-text.ts';
import { type Pattern, parsePattern, toStringBody } from './regex-grammar.ts';
import { RegexError } from './regex-parser.ts';
import { countsOf, type SchemaContext, type SchemaObject } from './schema-context.ts';
import { formatPattern, isFreeFormat } from './string-formats.ts';

/** A rule body for strings: format, pattern (or several, from allOf), minLength, maxLength. */
export function toStringSchemaBody(context: SchemaContext, schema: SchemaObject, place: string): string {
  const lengths = countsOf(context, schema, place, 'minLength', 'maxLength');
  const patterns = readPatterns(context, schema, place);
  const format = readFormat(context, schema, place, patterns.length > 0);
  const all = format === null ? patterns : [...patterns, format];
  const free = `"\\x22" ${toRepeat(context.json.char, lengths.min, lengths.max)} "\\x22"`;
  if (all.length === 0) return free;
  try {
    return `"\\x22" (${toStringBody(all, lengths, context.rules)}) "\\x22"`;
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    context.refuse(place, patterns.length > 0 ? 'pattern' : 'format', error.message);
    return free;
  }
}

function readPatterns(context: SchemaContext, schema: SchemaObject, place: string): Pattern[] {
  const given = schema.pattern === undefined ? [] : [schema.pattern].flat();
  return given.flatMap((pattern) => {
    if (typeof pattern !== 'string') return context.fail(`${place}.pattern`, 'must be text');
    try {
      return [parsePattern(pattern)];
    } catch (error) {
      if (!(error instanceof RegexError)) throw error;
      context.refuse(place, 'pattern', error.message);
      return [];
    }
  });
}

/** A format that is not known says nothing more where a pattern says what the text looks like. */
function readFormat(
  context: SchemaContext,
  schema: SchemaObject,
  place: string,
  isJoined: boolean,
): Pattern | null {
  const { format } = schema;
  if (format === undefined) return null;
  if (typeof format !== 'string') return context.fail(`${place}.format`, 'must be text');
  if (isFreeFormat(format)) return null;
  const pattern = formatPattern(format, isJoined);
  if (pattern === null && !isJoined) {
    context.refuse(place, 'format', `"${format.slice(0, 40)}" cannot be enforced`);
  }
  return pattern;
}
