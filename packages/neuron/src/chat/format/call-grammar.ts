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
import { type ArgumentShape, toArgumentShapes, toTextOptions } from './argument-shapes.ts';
import type { CallGrammar, ChatFormat, GrammarPart, ParameterStyle } from './chat-format.ts';
import { gemmaValueRule } from './gemma-grammar.ts';
import { type OfferedTool, parameterTypes } from './offered-tools.ts';
import type { JsonSchema, ValueType } from './schema-types.ts';
import { checkStrict } from './strict-tools.ts';

export interface CallGrammarOptions {
  /** `auto` = enforced only from where a call begins; else the answer is calls and nothing else. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** Several calls a turn. */
  readonly parallel: boolean;
}

/** Calls in one turn that a grammar allows at most: a small model that must call may find no end. */
const callsMax = 32;
/** Parameters of a call at most, when the schema names none and allows any. */
const freeParametersMax = 32;

/**
 * Null for `auto` when the format's calls begin with plain text, which cannot wake a grammar, or when a tool
 * takes parameters that its schema does not list and that the format could not write.
 * Errors: `invalid_request` for a name that was not offered, no tools at all, or what a strict tool asks for
 * in vain. The schema of any other tool is a hint: one that cannot be read stands for any object.
 */
export function toCallGrammar(
  format: ChatFormat,
  tools: readonly OfferedTool[],
  { choice, parallel }: CallGrammarOptions,
): GrammarSpec | null {
  const grammar = format.calls[0]?.grammar;
  const isLazy = choice === 'auto';
  const chosen = tools
    .map((tool, index): Candidate => ({ tool, param: `tools.${index}.function.parameters` }))
    .filter(({ tool }) => typeof choice !== 'object' || tool.name === choice.name);
  if (chosen.length === 0) throw notOffered(choice);
  const wakes = !isLazy || (grammar?.triggers.length ?? 0) > 0;
  const strict = chosen.filter(({ tool }) => tool.strict === true);
  for (const { tool, param } of strict) checkStrict(tool, param, grammar, wakes);
  if (grammar === undefined || !wakes) return null;
  // Where anything may come, a grammar that knows less than the model would only be in its way.
  const mayBeFree = isLazy && strict.length === 0;
  const calls = compileCalls(grammar, chosen, mayBeFree);
  if (calls === null) return null;
  const { builder, names } = calls;
  const call = builder.addRule('call', names.join(' | '));
  const between = literal(builder, grammar.between);
  const more = parallel && grammar.isParallel ? `(${between} ${call}){0,${callsMax - 1}}` : '';
  const root = builder.addRule(
    'calls',
    `${literal(builder, grammar.begin)} ${call} ${more} ${literal(builder, grammar.end)}`,
  );
  const lazy = isLazy ? { lazy: { triggers: grammar.triggers } } : {};
  return { gbnf: builder.toString(), root, ...lazy };
}

interface Candidate {
  readonly tool: OfferedTool;
  /** The request field of its schema. */
  readonly param: string;
}

interface Calls {
  readonly builder: GrammarBuilder;
  /** The rule of each tool's call. */
  readonly names: readonly string[];
}

/** Thrown when there is to be no grammar rather than a free one. */
const isOpenTool = Symbol('a tool takes any parameters');

/** Null when a tool is free and no grammar is asked for then. */
function compileCalls(grammar: CallGrammar, chosen: readonly Candidate[], mayBeFree: boolean): Calls | null {
  const compile = (candidates: readonly Candidate[]): Calls => {
    const builder = sharingTexts(createGrammarBuilder({ param: 'tools', unsupported: 'widen' }));
    return { builder, names: candidates.map((each) => addCall({ builder, mayBeFree, ...each }, grammar)) };
  };
  const compiles = (candidates: readonly Candidate[]): Calls | null => {
    try {
      return compile(candidates);
    } catch (error) {
      if (error instanceof AppError && error.code === 'invalid_request') return null;
      throw error;
    }
  };
  try {
    const whole = compiles(chosen);
    if (whole !== null) return whole;
    const mended = chosen.map((each) => (compiles([each]) === null ? toFree(each) : each));
    // Each may be small enough, and all of them too large.
    return compiles(mended) ?? compile(mended.map(toFree));
  } catch (error) {
    if (error === isOpenTool) return null;
    throw error;
  }
}

/** The tool without what its schema says, unless that is a promise. */
function toFree({ tool, param }: Candidate): Candidate {
  return { tool: tool.strict === true ? tool : { ...tool, parameters: { type: 'object' } }, param };
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

interface CallContext extends Candidate {
  readonly builder: GrammarBuilder;
  /** No grammar is better than one that takes any parameter. */
  readonly mayBeFree: boolean;
}

function addCall(context: CallContext, grammar: CallGrammar): string {
  const body = grammar.call(context.tool).map((part) => toBody(context, part));
  return context.builder.addRule(`call-${context.tool.name}`, body.join(' '));
}

function toBody(context: CallContext, part: GrammarPart): string {
  const { builder, tool, param } = context;
  switch (part.kind) {
    case 'text':
      return literal(builder, part.text);
    case 'oneOf':
      return `(${part.texts.map((text) => literal(builder, text)).join(' | ')})`;
    case 'pattern':
      return part.gbnf;
    case 'arguments':
      return builder.addSchema(toArgumentsSchema(tool), `${tool.name}-arguments`, param);
    case 'parameters': {
      const shapes = toArgumentShapes(tool.parameters, param);
      if (context.mayBeFree && shapes.some(({ extra }) => extra !== null)) throw isOpenTool;
      return `(${shapes.map((shape) => addParameters(context, shape, part.style)).join(' | ')})`;
    }
    default:
      return part satisfies never;
  }
}

/** Arguments are an object whatever the schema forgot to say. */
function toArgumentsSchema({ parameters }: OfferedTool): JsonSchema {
  const saysMore = ['type', '$ref', 'anyOf', 'oneOf', 'allOf'].some((key) => Object.hasOwn(parameters, key));
  return saysMore ? parameters : { type: 'object', ...parameters };
}

/**
 * Parameters in the schema's order, each at most once, the required ones always; when none is listed and any
 * may come, a few of any name.
 */
function addParameters(context: CallContext, shape: ArgumentShape, style: ParameterStyle): string {
  const { builder, tool } = context;
  const { properties, required, extra } = shape;
  const between = literal(builder, style.between);
  if (properties.size === 0 && extra !== null) {
    const item = builder.addRule(`${tool.name}-any`, addFreeParameter(context, extra, style));
    return `(${item} (${between} ${item}){0,${freeParametersMax - 1}})?`;
  }
  // From the last to the first: the rest of the list behind no parameter, and behind one.
  let [first, next] = ['""', '""'];
  for (const [name, schema] of [...properties].reverse()) {
    const open = (isText: boolean): string => literal(builder, style.open(name, isText));
    const types = parameterTypes(tool, name);
    const hint = `${tool.name}-${name}`;
    const place = `${context.param}.properties.${name}`;
    const item = builder.addRule(hint, addValue(context, { schema, types, style, hint, place, open }));
    const [withoutFirst, withoutNext] = required.has(name) ? ['', ''] : [` | ${first}`, ` | ${next}`];
    const rest = next;
    first = builder.addRule(`${tool.name}-from-${name}`, `${item} ${rest}${withoutFirst}`);
    next = builder.addRule(`${tool.name}-then-${name}`, `${between} ${item} ${rest}${withoutNext}`);
  }
  return first;
}

interface Parameter {
  readonly schema: JsonSchema;
  readonly types: ReadonlySet<ValueType>;
  readonly style: ParameterStyle;
  readonly hint: string;
  readonly place: string;
  /** GBNF of what stands before the value. */
  readonly open: (isText: boolean) => string;
}

function addValue(context: CallContext, { schema, types, style, hint, place, open }: Parameter): string {
  const root = context.tool.parameters;
  const builder: GrammarBuilder = {
    ...context.builder,
    addSchema: (part, name) => context.builder.addSchema(part, name, place, root),
  };
  // Without a type the value may as well be text, which holds everything.
  const isText = style.values === 'bare' && (types.size === 0 || types.has('string'));
  let value: string;
  if (isText) value = textRule(builder, schema, style.close.trim());
  else if (style.values === 'gemma') {
    value = gemmaValueRule(builder, schema, types, style.quote ?? '"', `${hint}-value`);
  } else value = builder.addSchema(schema, `${hint}-value`);
  return `${open(isText)} ${value} ${literal(builder, style.close)}`;
}

/** A parameter of any name. */
function addFreeParameter(context: CallContext, schema: JsonSchema, style: ParameterStyle): string {
  const { builder, tool, param } = context;
  // Python knows no name that begins with a digit.
  const key = `${style.values === 'json' ? '[a-zA-Z_]' : '[a-zA-Z0-9_]'} [a-zA-Z0-9_.-]{0,63}`;
  const open = (isText: boolean): string => {
    const [before = '', after = ''] = style.open('\0', isText).split('\0');
    return `${literal(builder, before)} ${key} ${literal(builder, after)}`;
  };
  // No parameter is listed, so no name finds the types of a listed one.
  const types = parameterTypes(tool, '');
  const place = `${param}.additionalProperties`;
  return addValue(context, { schema, types, style, hint: `${tool.name}-any`, place, open });
}

/** Any text without its end in it; of an enum, one of the texts. */
function textRule(builder: GrammarBuilder, schema: JsonSchema, close: string): string {
  const options = toTextOptions(schema);
  if (options === null) return builder.textUntil([close]);
  return `(${options.map((each) => builder.literal(each)).join(' | ')})`;
}

function literal(builder: GrammarBuilder, text: string): string {
  return text === '' ? '""' : builder.literal(text);
}
