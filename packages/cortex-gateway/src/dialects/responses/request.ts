/** POST /v1/responses: the body -> the inner request, and what the response repeats of it. */
import type { ResponseEcho } from 'cortex-core/wire/responses';
import type { InnerFormat, InnerReasoning, InnerRequest, InnerTurn } from '../inner/inner-request.ts';
import { type JsonObject, modelOf } from '../request-body.ts';
import { type ConversationDeps, readConversation } from './conversation.ts';
import {
  booleanAt,
  faultAt,
  integerAt,
  listAt,
  maybe,
  nameAt,
  numberAt,
  objectAt,
  oneOfAt,
  textAt,
  unsupportedAt,
} from './fields.ts';
import { chooseTools, ToolTable } from './tools.ts';
import type { TurnFitter } from './truncation.ts';

export interface RequestDeps extends ConversationDeps {
  /** Tokens a sequence of the model may hold; null = not known. */
  readonly contextOf: (model: string) => number | null;
  readonly fitter: TurnFitter;
}

export interface ResponsesRequest {
  readonly inner: InnerRequest;
  readonly echo: ResponseEcho;
  /** The request's own items, as they are stored. */
  readonly input: readonly JsonObject[];
  readonly tools: ToolTable;
  /** Reasoning goes out as a summary: the client asked for one. */
  readonly summarises: boolean;
  /** Reasoning items carry their text in `encrypted_content`. */
  readonly carriesReasoning: boolean;
}

export function readResponsesRequest(json: JsonObject, deps: RequestDeps): ResponsesRequest {
  const model = modelOf(json);
  refuseUnsupported(json);
  const table = new ToolTable();
  maybe(json.tools, 'tools', (value, path) => table.add(value, path));
  const conversation = readConversation(json, table, deps);
  const { tools, choice } = chooseTools(table, json.tool_choice, 'tool_choice');
  const reasoning = readReasoning(json.reasoning);
  const text = readText(json.text);
  const maxTokens = maybe(json.max_output_tokens, 'max_output_tokens', integerAt(1));
  const instructions = maybe(json.instructions, 'instructions', textAt);
  const echo: ResponseEcho = {
    ...{ model, previous_response_id: conversation.previousId, instructions },
    ...{ tools: echoTools(json.tools), tool_choice: json.tool_choice ?? 'auto' },
    parallel_tool_calls: maybe(json.parallel_tool_calls, 'parallel_tool_calls', booleanAt) ?? true,
    truncation: maybe(json.truncation, 'truncation', oneOfAt(['auto', 'disabled'])) ?? 'disabled',
    text: text.echo,
    reasoning: reasoning.echo,
    ...echoNumbers(json),
    max_output_tokens: maxTokens,
    store: deps.store.keeps && (maybe(json.store, 'store', booleanAt) ?? true),
    background: readBackground(json, deps),
    ...echoNames(json),
  };
  const head: InnerTurn[] =
    instructions === null ? [] : [{ role: 'system', parts: [{ type: 'text', text: instructions }] }];
  const turns = [...head, ...conversation.turns];
  const context = echo.truncation === 'auto' ? deps.contextOf(model) : null;
  const inner: InnerRequest = {
    model,
    stream: maybe(json.stream, 'stream', booleanAt) ?? false,
    turns: context === null ? turns : deps.fitter.fit({ turns, tools, context, maxTokens }),
    ...{ tools, toolChoice: choice },
    parallelToolCalls: maybe(json.parallel_tool_calls, 'parallel_tool_calls', booleanAt),
    maxTokens,
    stops: [],
    reasoning: reasoning.inner,
    format: text.format,
    continuesLastTurn: false,
    sampling: readSampling(json),
  };
  return {
    ...{ inner, echo, input: conversation.input, tools: table },
    summarises: reasoning.echo.summary !== null,
    carriesReasoning: readInclude(json.include).has('reasoning.encrypted_content'),
  };
}

function refuseUnsupported(json: JsonObject): void {
  if (json.conversation !== undefined && json.conversation !== null) {
    const message = 'There is no Conversations API here; use previous_response_id, or send the items.';
    throw unsupportedAt('conversation', message);
  }
  if (json.prompt !== undefined && json.prompt !== null) {
    throw unsupportedAt('prompt', 'There are no stored prompts here; send instructions and input.');
  }
}

function readBackground(json: JsonObject, { store }: RequestDeps): boolean {
  if (maybe(json.background, 'background', booleanAt) !== true) return false;
  if (!store.keeps) {
    const message = 'This gateway keeps no responses, so that none can be fetched later; use stream: true.';
    throw unsupportedAt('background', message);
  }
  if (json.store !== false) return true;
  throw faultAt(
    'background',
    "Invalid 'background': a response that is fetched later has to be stored; leave 'store' out.",
  );
}

const effortLevels = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const;
const summaries = ['auto', 'concise', 'detailed', 'none'] as const;

function readReasoning(value: unknown): {
  readonly inner: InnerReasoning | null;
  readonly echo: ResponseEcho['reasoning'];
} {
  const object = maybe(value, 'reasoning', objectAt) ?? {};
  const effort = maybe(object.effort, 'reasoning.effort', oneOfAt(effortLevels));
  const asked = object.summary ?? object.generate_summary;
  const summary = maybe(asked, 'reasoning.summary', oneOfAt(summaries));
  return {
    inner: effort === null ? null : { enabled: effort === 'none' ? false : null, effort, budget: null },
    echo: { effort, summary: summary === 'none' ? null : summary },
  };
}

function readText(value: unknown): {
  readonly format: InnerFormat | null;
  readonly echo: JsonObject;
} {
  const object = maybe(value, 'text', objectAt) ?? {};
  // repeated only: agents send it always, and no template has a word for it
  const verbosity = maybe(object.verbosity, 'text.verbosity', oneOfAt(['low', 'medium', 'high']));
  const format = maybe(object.format, 'text.format', objectAt) ?? { type: 'text' };
  const echo = { format, verbosity: verbosity ?? 'medium' };
  switch (oneOfAt(['text', 'json_object', 'json_schema'])(format.type, 'text.format.type')) {
    case 'text':
      return { format: null, echo };
    case 'json_object':
      return { format: { name: 'json', schema: null, strict: null }, echo };
    case 'json_schema': {
      const name = nameAt(format.name, 'text.format.name');
      const schema = objectAt(format.schema, 'text.format.schema');
      const strict = maybe(format.strict, 'text.format.strict', booleanAt);
      return { format: { name, schema, strict }, echo };
    }
    default:
      throw faultAt('text.format.type', "Invalid 'text.format.type'.");
  }
}

/** What else chat has under the same name; the neuron checks what is not checked here. */
const chatFields = [
  ...['temperature', 'top_p', 'presence_penalty', 'frequency_penalty', 'user', 'seed', 'logit_bias', 'stop'],
  ...['top_k', 'min_p', 'typical_p', 'repeat_penalty', 'repeat_last_n', 'chat_template_kwargs'],
];

function readSampling(json: JsonObject): JsonObject {
  const said = chatFields.filter((name) => json[name] !== undefined && json[name] !== null);
  return Object.fromEntries(said.map((name) => [name, json[name]]));
}

/** Other values ask for parts of tools that do not run here, and are passed over. */
function readInclude(value: unknown): ReadonlySet<string> {
  const values = (maybe(value, 'include', listAt) ?? []).map((each, at) => textAt(each, `include[${at}]`));
  const at = values.indexOf('message.output_text.logprobs');
  if (at === -1) return new Set(values);
  const message = 'Log probabilities are not told by this endpoint; use logprobs on /v1/chat/completions.';
  throw unsupportedAt(`include[${at}]`, message);
}

type Numbers = 'temperature' | 'top_p' | 'presence_penalty' | 'frequency_penalty' | 'top_logprobs';

function echoNumbers(json: JsonObject): Pick<ResponseEcho, Numbers | 'max_tool_calls'> {
  return {
    temperature: maybe(json.temperature, 'temperature', numberAt(0, 2)) ?? 1,
    top_p: maybe(json.top_p, 'top_p', numberAt(0, 1)) ?? 1,
    presence_penalty: maybe(json.presence_penalty, 'presence_penalty', numberAt(-2, 2)) ?? 0,
    frequency_penalty: maybe(json.frequency_penalty, 'frequency_penalty', numberAt(-2, 2)) ?? 0,
    top_logprobs: maybe(json.top_logprobs, 'top_logprobs', integerAt(0, 20)) ?? 0,
    max_tool_calls: maybe(json.max_tool_calls, 'max_tool_calls', integerAt(1)),
  };
}

type Names = 'service_tier' | 'metadata' | 'user' | 'safety_identifier' | 'prompt_cache_key';

function echoNames(json: JsonObject): Pick<ResponseEcho, Names> {
  return {
    service_tier: maybe(json.service_tier, 'service_tier', nameAt) ?? 'default',
    metadata: maybe(json.metadata, 'metadata', readMetadata) ?? {},
    user: maybe(json.user, 'user', textAt),
    safety_identifier: maybe(json.safety_identifier, 'safety_identifier', textAt),
    prompt_cache_key: maybe(json.prompt_cache_key, 'prompt_cache_key', textAt),
  };
}

function readMetadata(value: unknown, path: string): Readonly<Record<string, string>> {
  const pairs = Object.entries(objectAt(value, path));
  if (pairs.length > 16) {
    throw faultAt(path, `Invalid '${path}': too many properties. Expected at most 16, got ${pairs.length}.`);
  }
  return Object.fromEntries(
    pairs.map(([key, each]) => {
      const place = `${path}.${key.slice(0, 64)}`;
      const text = textAt(each, place);
      if (key.length <= 64 && text.length <= 512) return [key, text];
      throw faultAt(place, `Invalid '${place}': keys have at most 64 characters, values at most 512.`);
    }),
  );
}

/** Clients look for these three in a function, also where it had none. */
function echoTools(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) return [];
  return value.map((tool: JsonObject) => {
    if (tool.type !== 'function') return tool;
    const { description = null, parameters = null, strict = null } = tool;
    return { ...tool, description, parameters, strict };
  });
}
