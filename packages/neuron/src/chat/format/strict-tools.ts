/** What a strict tool asks for is refused when it cannot be had. */
import { createGrammarBuilder } from '../grammar/grammar-builder.ts';
import { invalidSchema, isSchemaObject, type SchemaObject } from '../grammar/schema-context.ts';
import { isAnnotation } from '../grammar/schema-merge.ts';
import { toArgumentShapes, toTextOptions } from './argument-shapes.ts';
import type { CallGrammar, ParameterStyle } from './chat-format.ts';
import { type OfferedTool, parameterTypes } from './offered-tools.ts';
import type { ValueType } from './schema-types.ts';

const reason = 'cannot be enforced in the form in which this model writes calls; leave it out, or "strict"';

/**
 * `param` = the place of the schema in the request. `wakes` = the grammar will stand where a call begins.
 * Errors: `invalid_request` naming what no grammar, or not one of this format, can hold.
 */
export function checkStrict(
  tool: OfferedTool,
  param: string,
  grammar: CallGrammar | undefined,
  wakes: boolean,
): void {
  createGrammarBuilder({ param, unsupported: 'refuse' }).addSchema(tool.parameters);
  if (grammar === undefined || !wakes) {
    throw invalidSchema(
      param.replace(/parameters$/, 'strict'),
      'cannot be held: its calls begin with plain text; set tool_choice to "required" or to the tool',
    );
  }
  for (const part of grammar.call(tool)) {
    if (part.kind === 'parameters') checkParameters(tool, param, part.style);
  }
}

function checkParameters(tool: OfferedTool, param: string, style: ParameterStyle): void {
  for (const keyword of ['minProperties', 'maxProperties']) {
    if (tool.parameters[keyword] !== undefined) throw invalidSchema(`${param}.${keyword}`, reason);
  }
  for (const { properties, extra } of toArgumentShapes(tool.parameters, param)) {
    if (extra !== null) throw invalidSchema(`${param}.additionalProperties`, `must be false: more ${reason}`);
    for (const [name, schema] of properties) {
      const types = parameterTypes(tool, name);
      const keyword = isHeld(schema, types, style) ? null : findConstraint(schema);
      if (keyword !== null) throw invalidSchema(`${param}.properties.${name}.${keyword}`, reason);
    }
  }
}

/** Whether the grammar of a value holds it to all that its schema says. */
function isHeld(schema: SchemaObject, types: ReadonlySet<ValueType>, style: ParameterStyle): boolean {
  const others = [...types].filter((type) => type !== 'string');
  const isListed = toTextOptions(schema) !== null;
  switch (style.values) {
    case 'json':
      return true;
    case 'bare':
      if (types.size > 0 && !types.has('string')) return true;
      return isListed && types.size > 0 && others.every((type) => type === 'null');
    case 'gemma':
      if (types.size > 0 && !['string', 'array', 'object'].some((type) => types.has(type as ValueType))) {
        return true;
      }
      return isListed && types.size > 0 && others.length === 0;
    default:
      return style.values satisfies never;
  }
}

/** The first keyword that says more than a type; null when there is none. */
function findConstraint(schema: unknown): string | null {
  if (!isSchemaObject(schema)) return null;
  for (const [keyword, value] of Object.entries(schema)) {
    if (keyword === 'type' || keyword === 'nullable' || isAnnotation(keyword)) continue;
    const isChoice = (keyword === 'anyOf' || keyword === 'oneOf') && Array.isArray(value);
    if (!isChoice || value.some((branch) => findConstraint(branch) !== null)) return keyword;
  }
  return null;
}
