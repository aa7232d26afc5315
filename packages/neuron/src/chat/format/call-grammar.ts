/**
 * What a model must write when it has to call, or once it began to: the GBNF of a format's own calls, with
 * the arguments as the schemas say.
 *
 * JSON arguments and typed values are enforced whole. A bare text (the value of a string in the formats that
 * write no quotes) is held to its enum, and else may be anything but its own end: lengths and patterns of
 * such strings are not enforced.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { GrammarSpec } from 'cortex-core/wire/inference';
import { createGrammarBuilder, type GrammarBuilder } from '../grammar/grammar-builder.ts';
import type { CallGrammar, ChatFormat, GrammarPart, ParameterStyle } from './chat-format.ts';
import { gemmaValueRule } from './gemma-grammar.ts';
import { type OfferedTool, parameterNames, parameterTypes } from './offered-tools.ts';
import type { JsonSchema } from './schema-types.ts';

export interface CallGrammarOptions {
  /** `auto` = enforced only from where a call begins; else the answer is calls and nothing else. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** Several calls a turn. */
  readonly parallel: boolean;
}

/** Calls in one turn that a grammar allows at most: a small model that must call may find no end. */
const callsMax = 32;

/**
 * Null for `auto` when the format's calls begin with plain text, which cannot wake a grammar.
 * Errors: `invalid_request` for a name that was not offered, no tools at all, or a strict tool's schema with
 * a keyword that cannot be enforced.
 */
export function toCallGrammar(
  format: ChatFormat,
  tools: readonly OfferedTool[],
  { choice, parallel }: CallGrammarOptions,
): GrammarSpec | null {
  const grammar = format.calls[0]?.grammar;
  if (grammar === undefined) return null;
  const isLazy = choice === 'auto';
  if (isLazy && grammar.triggers.length === 0) return null;
  const chosen = typeof choice === 'object' ? tools.filter(({ name }) => name === choice.name) : tools;
  if (chosen.length === 0) throw notOffered(choice);
  checkStrict(tools, chosen);
  const builder = sharingTexts(createGrammarBuilder({ param: 'tools', unsupported: 'widen' }));
  const calls = chosen.map((tool) => addCall(builder, grammar, tool));
  const call = builder.addRule('call', calls.join(' | '));
  const between = literal(builder, grammar.between);
  const more = parallel && grammar.isParallel ? `(${between} ${call}){0,${callsMax - 1}}` : '';
  const root = builder.addRule(
    'calls',
    `${literal(builder, grammar.begin)} ${call} ${more} ${literal(builder, grammar.end)}`,
  );
  const triggers = grammar.triggers.map((text) => ({ kind: 'text', text }) as const);
  return { gbnf: builder.toString(), root, ...(isLazy ? { lazy: { triggers } } : {}) };
}

/** Every bare text has the same few ends; its rules are many. */
function sharingTexts(builder: GrammarBuilder): GrammarBuilder {
  const rules = new Map<string, string>();
  return {
    ...builder,
    textUntil(stops) {
      const key = JSON.stringify(stops);
      const rule = rules.get(key) ?? builder.textUntil(stops);
      rules.set(key, rule);
      return rule;
    },
  };
}

function notOffered(choice: CallGrammarOptions['choice']): AppError {
  const message =
    typeof choice === 'object'
      ? `"tool_choice" names "${choice.name.slice(0, 64)}", which is not among "tools"`
      : '"tool_choice" asks for a call, and "tools" is empty';
  return new AppError('invalid_request', message, { param: 'tool_choice' });
}

/** What a strict tool asks for is refused when it cannot be had. */
function checkStrict(tools: readonly OfferedTool[], chosen: readonly OfferedTool[]): void {
  for (const tool of chosen) {
    if (tool.strict !== true) continue;
    const param = `tools.${tools.indexOf(tool)}.function.parameters`;
    createGrammarBuilder({ param, unsupported: 'refuse' }).addSchema(tool.parameters);
  }
}

function addCall(builder: GrammarBuilder, grammar: CallGrammar, tool: OfferedTool): string {
  const body = grammar.call(tool).map((part) => toBody(builder, tool, part));
  return builder.addRule(`call-${tool.name}`, body.join(' '));
}

function toBody(builder: GrammarBuilder, tool: OfferedTool, part: GrammarPart): string {
  switch (part.kind) {
    case 'text':
      return literal(builder, part.text);
    case 'oneOf':
      return `(${part.texts.map((text) => literal(builder, text)).join(' | ')})`;
    case 'pattern':
      return part.gbnf;
    case 'arguments':
      return builder.addSchema(toArgumentsSchema(tool), `${tool.name}-arguments`);
    case 'parameters':
      return addParameters(builder, tool, part.style);
    default:
      return part satisfies never;
  }
}

/** Arguments are an object whatever the schema forgot to say. */
function toArgumentsSchema({ parameters }: OfferedTool): JsonSchema {
  const saysMore = ['type', '$ref', 'anyOf', 'oneOf', 'allOf'].some((key) => Object.hasOwn(parameters, key));
  return saysMore ? parameters : { type: 'object', ...parameters };
}

/** Parameters in the schema's order, each at most once, the required ones always. */
function addParameters(builder: GrammarBuilder, tool: OfferedTool, style: ParameterStyle): string {
  const { required } = tool.parameters;
  const names = parameterNames(tool);
  const between = literal(builder, style.between);
  // From the last to the first: the rest of the list behind no parameter, and behind one.
  let [first, next] = ['""', '""'];
  for (const name of [...names].reverse()) {
    const item = builder.addRule(`${tool.name}-${name}`, addParameter(builder, tool, name, style));
    const isRequired = Array.isArray(required) && required.includes(name);
    const [withoutFirst, withoutNext] = isRequired ? ['', ''] : [` | ${first}`, ` | ${next}`];
    const rest = next;
    first = builder.addRule(`${tool.name}-from-${name}`, `${item} ${rest}${withoutFirst}`);
    next = builder.addRule(`${tool.name}-then-${name}`, `${between} ${item} ${rest}${withoutNext}`);
  }
  return first;
}

function addParameter(
  builder: GrammarBuilder,
  tool: OfferedTool,
  name: string,
  style: ParameterStyle,
): string {
  const schema = parameterSchema(tool, name);
  const types = parameterTypes(tool, name);
  // Without a type the value may as well be text, which holds everything.
  const isText = style.values === 'bare' && (types.size === 0 || types.has('string'));
  const hint = `${tool.name}-${name}-value`;
  let value: string;
  if (isText) value = textRule(builder, schema, style.close.trim());
  else if (style.values === 'gemma') value = gemmaValueRule(builder, schema, types, style.quote ?? '"', hint);
  else value = builder.addSchema(schema, hint);
  const open = literal(builder, style.open(name, isText));
  return `${open} ${value} ${literal(builder, style.close)}`;
}

/** Any text without its end in it; of an enum, one of the texts. */
function textRule(builder: GrammarBuilder, schema: JsonSchema, close: string): string {
  const options = Array.isArray(schema.enum) ? schema.enum.filter((each) => each !== null) : [];
  if (options.length > 0 && options.every((each) => typeof each === 'string')) {
    return `(${options.map((each) => builder.literal(each)).join(' | ')})`;
  }
  return typeof schema.const === 'string' ? builder.literal(schema.const) : builder.textUntil([close]);
}

/** A property's schema that stands alone: the definitions it may refer to come with it. */
function parameterSchema({ parameters }: OfferedTool, name: string): JsonSchema {
  const { properties, $defs, definitions } = parameters;
  const schema = (properties as Readonly<Record<string, unknown>>)[name];
  const own = typeof schema === 'object' && schema !== null ? (schema as JsonSchema) : {};
  return {
    ...own,
    ...($defs === undefined ? {} : { $defs }),
    ...(definitions === undefined ? {} : { definitions }),
  };
}

function literal(builder: GrammarBuilder, text: string): string {
  return text === '' ? '""' : builder.literal(text);
}
