/**
 * The fields of a chat request that are neither messages nor sampling: what they ask for, or a refusal that
 * names the field. docs/models.md lists every field of OpenAI's reference with what happens to it; a field
 * that is in no list is passed over, as other servers do: clients send fields meant for several of them.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { ChatRequest, ChatTool } from 'cortex-core/wire/openai';
import { refuseConstraints, refuseExtraChoices, refuseForeignSamplers } from './sampling.ts';
import type { TemplateTraits } from './template-traits.ts';

export type ToolChoice =
  | { readonly mode: 'none' | 'auto' | 'required' }
  | { readonly mode: 'named'; readonly name: string };

export interface ToolPlan {
  /** What the model is shown and may call; empty = no tools. */
  readonly tools: readonly ChatTool[];
  readonly choice: ToolChoice;
  readonly parallel: boolean;
  /** The client used `functions`: calls go back as `function_call`. */
  readonly isLegacy: boolean;
}

export interface ThinkingPlan {
  /** Variables of the template. */
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** Reasoning tokens at most; null = no limit. */
  readonly budget: number | null;
}

const efforts = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const;
type Effort = (typeof efforts)[number];

/** Tokens of reasoning where the template has no word for effort; null = as long as the model likes. */
const budgetOfEffort: Readonly<Record<Effort, number | null>> = {
  none: 0,
  minimal: 512,
  low: 1024,
  medium: 4096,
  high: null,
  xhigh: null,
  max: null,
};

/** Throws `unsupported_parameter` for a field whose effect a client would wait for in vain. */
export function refuseUnsupportedChat(request: ChatRequest): void {
  refuseForeignSamplers(request);
  if (request.modalities?.some((kind) => kind !== 'text')) refuse('modalities', 'may only be ["text"]');
  refuseUnless(request, 'audio', []);
  refuseUnless(request, 'web_search_options', []);
  refuseUnless(request, 'prediction', []);
  refuseUnless(request, 'service_tier', ['auto', 'default']);
  refuseUnless(request, 'moderation', []);
  refuseUnless(request, 'reasoning_format', ['auto', 'deepseek']);
  if (request.stream_options?.include_obfuscation === true)
    refuse('stream_options.include_obfuscation', 'is not done here');
  refuseUnless(request, 'chat_template', []);
  refuseConstraints(request);
  refuseExtraChoices(request);
  if ((request.top_logprobs ?? 0) > 0 && request.logprobs !== true)
    refuse('top_logprobs', 'needs "logprobs": true');
}

function refuseUnless(request: ChatRequest, name: string, allowed: readonly string[]): void {
  const value = request[name];
  if (value === undefined || value === null || (typeof value === 'string' && allowed.includes(value))) return;
  const instead = allowed.length === 0 ? 'leave it out' : `leave it out or use ${allowed.join(' or ')}`;
  refuse(name, `is not supported; ${instead}`);
}

export function planTools(request: ChatRequest): ToolPlan {
  refuseMixedForms(request);
  const isLegacy = (request.functions?.length ?? 0) > 0;
  const offered: readonly ChatTool[] = isLegacy
    ? (request.functions ?? []).map((definition) => ({ type: 'function', function: definition }))
    : (request.tools ?? []);
  checkTools(offered, isLegacy ? 'functions' : 'tools');
  const { choice, allowed } = isLegacy ? readFunctionCall(request) : readToolChoice(request);
  const names = new Set(offered.map((tool) => tool.function?.name));
  for (const name of allowed ?? []) {
    if (names.has(name)) continue;
    throw invalid(
      'tool_choice.allowed_tools.tools',
      `has "${name.slice(0, 64)}", which is not among the tools`,
    );
  }
  const tools = allowed === null ? offered : offered.filter((tool) => allowed.has(tool.function?.name ?? ''));
  const param = isLegacy ? 'function_call' : 'tool_choice';
  if (choice.mode === 'named' && !tools.some((tool) => tool.function?.name === choice.name)) {
    throw invalid(param, `names "${choice.name.slice(0, 64)}", which is not among the tools`);
  }
  if (choice.mode === 'required' && tools.length === 0)
    throw invalid(param, 'requires a call, but there are no tools');
  const parallel = !isLegacy && (request.parallel_tool_calls ?? true);
  return { tools: choice.mode === 'none' ? [] : tools, choice, parallel, isLegacy };
}

/** The form of before `tools` has fields of its own; those of the other form would go unread. */
function refuseMixedForms(request: ChatRequest): void {
  const { functions, function_call: call, tools } = request;
  if ((functions?.length ?? 0) === 0) {
    const isIdle = (call === 'none' || call === 'auto') && tools === undefined;
    if (call === undefined || isIdle) return;
    throw invalid('function_call', 'goes with "functions"; with "tools" use "tool_choice"');
  }
  if (tools !== undefined) throw invalid('functions', 'and "tools" exclude each other; leave one out');
  if (request.tool_choice !== undefined) {
    throw invalid('tool_choice', 'goes with "tools"; with "functions" use "function_call"');
  }
  if (request.parallel_tool_calls !== undefined) {
    throw invalid('parallel_tool_calls', 'goes with "tools"; with "functions" there is one call at most');
  }
}

function checkTools(tools: readonly ChatTool[], field: string): void {
  const names = new Set<string>();
  for (const [at, tool] of tools.entries()) {
    if (tool.type !== 'function' || tool.function === undefined) {
      refuse(`${field}.${at}`, 'is not a function tool; only those work here');
    }
    const { name } = tool.function;
    if (!/^[\w.:/-]{1,128}$/.test(name)) {
      throw invalid(`${field}.${at}.function.name`, 'must be 1 to 128 letters, digits or any of _ - . : /');
    }
    if (names.has(name)) throw invalid(`${field}.${at}.function.name`, `"${name}" is there twice`);
    names.add(name);
  }
}

interface ReadChoice {
  readonly choice: ToolChoice;
  /** Null = all of them. */
  readonly allowed: ReadonlySet<string> | null;
}

function readToolChoice(request: ChatRequest): ReadChoice {
  const given = request.tool_choice ?? 'auto';
  if (typeof given === 'string') {
    if (given === 'none' || given === 'auto' || given === 'required')
      return { choice: { mode: given }, allowed: null };
    if (given === 'any') return { choice: { mode: 'required' }, allowed: null };
    throw invalid(
      'tool_choice',
      'must be none, auto, required or {"type":"function","function":{"name":...}}',
    );
  }
  if (given.type === 'function') {
    const name = (given.function as { name?: unknown } | undefined)?.name ?? given.name;
    if (typeof name === 'string') return { choice: { mode: 'named', name }, allowed: null };
    throw invalid('tool_choice.function.name', 'is missing');
  }
  if (given.type === 'allowed_tools') return readAllowedTools(given);
  return refuse(
    'tool_choice.type',
    `"${given.type.slice(0, 40)}" is not supported; use function or allowed_tools`,
  );
}

/** `{"type":"allowed_tools","allowed_tools":{"mode":"auto"|"required","tools":[...]}}`. */
function readAllowedTools(given: Readonly<Record<string, unknown>>): ReadChoice {
  const { mode, tools } = (given.allowed_tools ?? given) as { mode?: unknown; tools?: unknown };
  if (mode !== 'auto' && mode !== 'required')
    throw invalid('tool_choice.allowed_tools.mode', 'must be auto or required');
  if (!Array.isArray(tools)) throw invalid('tool_choice.allowed_tools.tools', 'must be a list');
  const names = tools.map((tool: { name?: unknown; function?: { name?: unknown } } | null) => {
    return String(tool?.function?.name ?? tool?.name);
  });
  return { choice: { mode }, allowed: new Set(names) };
}

function readFunctionCall(request: ChatRequest): ReadChoice {
  const given = request.function_call ?? 'auto';
  if (typeof given !== 'string') return { choice: { mode: 'named', name: given.name }, allowed: null };
  if (given === 'none' || given === 'auto') return { choice: { mode: given }, allowed: null };
  throw invalid('function_call', 'must be none, auto or {"name": ...}');
}

/**
 * One meaning for the ways to ask for more or less reasoning: `reasoning_effort`, `enable_thinking` (also in
 * `chat_template_kwargs`) and a budget under the names that other servers gave it; -1 = no limit, 0 = none.
 * `canReason`: the model has a reasoning block.
 */
export function planThinking(request: ChatRequest, traits: TemplateTraits, canReason: boolean): ThinkingPlan {
  const kwargs: Record<string, unknown> = { ...request.chat_template_kwargs };
  if (request.enable_thinking !== undefined) kwargs.enable_thinking ??= request.enable_thinking;
  if (request.verbosity !== undefined && request.verbosity !== 'medium') {
    refuse('verbosity', 'is not supported; leave it out or use medium');
  }
  let budget = readBudget(request);
  const effort = readEffort(request.reasoning_effort);
  if (effort !== null && effort !== 'none' && !canReason) {
    refuse('reasoning_effort', 'has no effect on a model that does not reason; leave it out or use none');
  }
  if (effort === 'none') kwargs.enable_thinking ??= false;
  if (effort !== null && traits.reasoningEffort) kwargs.reasoning_effort ??= toTemplateEffort(effort);
  else if (effort !== null) budget ??= budgetOfEffort[effort];
  if (budget === 0) kwargs.enable_thinking ??= false;
  // A model that opens its block by itself, whatever its template was told, is stopped at once.
  if (kwargs.enable_thinking === false && traits.thinkingSwitches.length === 0) budget = 0;
  if (budget !== null && traits.thinkingBudget) kwargs.thinking_budget ??= budget;
  return { kwargs, budget: budget === null || budget < 0 ? null : budget };
}

function readEffort(given: string | undefined): Effort | null {
  if (given === undefined) return null;
  const effort = efforts.find((each) => each === given);
  if (effort === undefined) throw invalid('reasoning_effort', `must be one of ${efforts.join(', ')}`);
  return effort;
}

/** What gpt-oss and others know. */
function toTemplateEffort(effort: Effort): string {
  if (effort === 'none' || effort === 'minimal') return 'low';
  return effort === 'xhigh' || effort === 'max' ? 'high' : effort;
}

function readBudget(request: ChatRequest): number | null {
  for (const name of [
    'thinking_budget_tokens',
    'reasoning_budget',
    'thinking_budget',
    'thinking_token_budget',
  ] as const) {
    const value = request[name];
    if (value === undefined || value === null) continue;
    if (typeof value === 'number' && Number.isInteger(value) && value >= -1) return value;
    throw invalid(name, 'must be a whole number, 0 for none or -1 for no limit');
  }
  return null;
}

/** Whether the last message, an assistant's, is to be continued rather than answered. */
export function endOf(request: ChatRequest): 'generation_prompt' | 'nothing' | 'continue' {
  const last = request.messages.at(-1);
  const isOpen =
    last?.role === 'assistant' && (last.tool_calls?.length ?? 0) === 0 && last.function_call === undefined;
  const wanted = request.continue_final_message;
  if (wanted === true && !isOpen) {
    throw invalid('continue_final_message', 'needs an assistant message without tool calls at the end');
  }
  if (wanted === true && request.add_generation_prompt === true) {
    throw invalid('continue_final_message', 'and "add_generation_prompt" exclude each other');
  }
  if (isOpen && wanted !== false && request.add_generation_prompt !== true) return 'continue';
  return (request.add_generation_prompt ?? true) ? 'generation_prompt' : 'nothing';
}

function invalid(param: string, why: string): AppError {
  return new AppError('invalid_request', `"${param}" ${why}`, { param });
}

function refuse(param: string, why: string): never {
  throw new AppError('unsupported_parameter', `"${param}" ${why}`, { param });
}
