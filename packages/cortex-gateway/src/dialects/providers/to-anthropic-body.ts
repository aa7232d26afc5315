/**
 * An inner request -> the body of POST /v1/messages at a provider.
 *
 * Problem: the Messages API is stricter than chat: a limit is a must, roles alternate, results stand first
 *          in the turn behind their calls, and thinking excludes much else.
 * Design:  turns of one role become one message; system turns at the head are `system`, later ones a user's
 *          text; a call without a result gets one that says so, a result without a call becomes text.
 * Limits:  thinking of earlier turns does not go along, for a translation has no signature to show; where the
 *          last turn still works on its calls, thinking is therefore off. What the API has no field for
 *          (seed, penalties, min_p, logit_bias) is left out.
 */
import { AppError } from 'cortex-core/wire/errors';
import type {
  InnerPart,
  InnerReasoning,
  InnerRequest,
  InnerResult,
  InnerTurn,
} from '../inner/inner-request.ts';
import type { JsonObject } from '../request-body.ts';
import { objectOf } from '../wire-grammar/wire-grammar.ts';

export interface AnthropicTarget {
  /** The provider's name of the model. */
  readonly model: string;
  /** What an answer may have where the request does not say; null = not known. */
  readonly outputMax: number | null;
}

const outputDefault = 4096;
const budgetMin = 1024;
const budgets: Readonly<Record<string, number>> = {
  minimal: 1024,
  low: 2048,
  medium: 8192,
  high: 16_384,
  xhigh: 32_768,
  max: 32_768,
};
const jsonOnly = 'Answer with one JSON object and nothing else.';

/** Throws `invalid_request` or `vision_unsupported` with the field's path. */
export function toAnthropicBody(inner: InnerRequest, target: AnthropicTarget): JsonObject {
  const maxTokens = inner.maxTokens ?? target.outputMax ?? outputDefault;
  const thinking = toThinking(inner, maxTokens);
  const head = inner.turns.findIndex(({ role }) => role !== 'system');
  const systemTurns = inner.turns.slice(0, head === -1 ? inner.turns.length : head);
  const system = systemTurns.flatMap(({ parts }) => parts).map(toText);
  if (inner.format !== null && inner.format.schema === null) system.push(jsonOnly);
  const { user } = inner.sampling;
  return {
    model: target.model,
    max_tokens: maxTokens,
    messages: toMessages(inner.turns.slice(systemTurns.length)),
    ...(system.length === 0 ? {} : { system: system.join('\n\n') }),
    ...(inner.stream ? { stream: true } : {}),
    ...(thinking === null ? toSampling(inner.sampling) : { thinking }),
    ...(inner.stops.length === 0 ? {} : { stop_sequences: inner.stops }),
    ...toolFields(inner),
    ...(inner.format?.schema
      ? { output_config: { format: { type: 'json_schema', schema: inner.format.schema } } }
      : {}),
    ...(typeof user === 'string' ? { metadata: { user_id: user } } : {}),
  };
}

/** Chat's temperature ends at 2, this one at 1. */
function toSampling({ temperature, top_p, top_k }: JsonObject): JsonObject {
  return {
    ...(typeof temperature === 'number' ? { temperature: Math.min(1, temperature) } : {}),
    // both together are refused by some models
    ...(typeof top_p === 'number' && typeof temperature !== 'number' ? { top_p } : {}),
    ...(typeof top_k === 'number' && top_k > 0 ? { top_k } : {}),
  };
}

function toThinking(inner: InnerRequest, maxTokens: number): JsonObject | null {
  const wanted = budgetOf(inner.reasoning);
  const isForced = inner.toolChoice === 'required' || typeof (inner.toolChoice ?? 'auto') === 'object';
  if (wanted === null || isForced || isAtWork(inner.turns)) return null;
  const budget = Math.min(wanted, maxTokens - 1);
  return budget < budgetMin ? null : { type: 'enabled', budget_tokens: budget };
}

function budgetOf(reasoning: InnerReasoning | null): number | null {
  if (reasoning === null || reasoning.enabled === false || reasoning.effort === 'none') return null;
  if (reasoning.budget !== null) return Math.max(budgetMin, reasoning.budget);
  if (reasoning.effort !== null) return budgets[reasoning.effort] ?? null;
  return reasoning.enabled === true ? (budgets.medium ?? null) : null;
}

/** The last thing that a person said is followed by calls and their results. */
function isAtWork(turns: readonly InnerTurn[]): boolean {
  const last = turns.at(-1);
  return last?.role === 'user' && last.parts.some(({ type }) => type === 'result');
}

function toolFields({ tools, toolChoice, parallelToolCalls }: InnerRequest): JsonObject {
  if (tools.length === 0) return {};
  const single = parallelToolCalls === false ? { disable_parallel_tool_use: true } : {};
  const chosen = toolChoice ?? (parallelToolCalls === false ? 'auto' : null);
  const type = chosen === 'required' ? 'any' : chosen;
  return {
    tools: tools.map(({ name, description, parameters, strict }) => ({
      name,
      ...(description === null ? {} : { description }),
      input_schema: { type: 'object', ...parameters },
      ...(strict === true ? { strict } : {}),
    })),
    ...(type === null
      ? {}
      : {
          tool_choice:
            typeof type === 'object'
              ? { type: 'tool', name: type.name, ...single }
              : { type, ...(type === 'none' ? {} : single) },
        }),
  };
}

interface Message {
  readonly role: 'user' | 'assistant';
  readonly content: JsonObject[];
}

function toMessages(turns: readonly InnerTurn[]): readonly Message[] {
  const messages: Message[] = [];
  const add = (role: Message['role'], blocks: readonly JsonObject[]): void => {
    if (blocks.length === 0) return;
    const last = messages.at(-1);
    if (last?.role === role) last.content.push(...blocks);
    else messages.push({ role, content: [...blocks] });
  };
  for (const group of groupsOf(turns)) {
    if (group.role === 'assistant') add('assistant', group.parts.flatMap(toBlocks));
    else add('user', toUserBlocks(group.parts, callsOf(messages.at(-1))));
  }
  if (messages[0]?.role === 'assistant') messages.unshift({ role: 'user', content: [textBlock('.')] });
  const last = messages.at(-1);
  if (last === undefined)
    throw new AppError('invalid_request', 'messages: must hold a message', { param: 'messages' });
  const open = last.role === 'assistant' ? callsOf(last) : [];
  if (open.length > 0) add('user', toUserBlocks([], open));
  else if (last.role === 'assistant') trimEnd(last.content);
  return messages;
}

/** Neighbours of one side as one; a system turn in the middle is the user's side. */
function groupsOf(turns: readonly InnerTurn[]): { readonly role: Message['role']; parts: InnerPart[] }[] {
  const groups: { readonly role: Message['role']; parts: InnerPart[] }[] = [];
  for (const turn of turns) {
    const role = turn.role === 'assistant' ? 'assistant' : 'user';
    const last = groups.at(-1);
    if (last?.role === role) last.parts.push(...turn.parts);
    else groups.push({ role, parts: [...turn.parts] });
  }
  return groups;
}

function callsOf(message: Message | undefined): readonly string[] {
  if (message?.role !== 'assistant') return [];
  return message.content.flatMap(({ type, id }) => (type === 'tool_use' ? [String(id)] : []));
}

/** Results first, in the order of their calls. */
function toUserBlocks(parts: readonly InnerPart[], calls: readonly string[]): JsonObject[] {
  const results = new Map<string, InnerResult>();
  const rest: JsonObject[] = [];
  for (const part of parts) {
    if (part.type !== 'result') rest.push(...toBlocks(part));
    else if (calls.includes(toId(part.callId)) && !results.has(toId(part.callId))) {
      results.set(toId(part.callId), part);
    } else rest.push(textBlock(`[result of ${part.callId}]\n${part.parts.map(toText).join('\n')}`));
  }
  return [...calls.map((id) => toResult(id, results.get(id))), ...rest];
}

function toResult(id: string, result: InnerResult | undefined): JsonObject {
  const content = result === undefined ? [textBlock('[no result]')] : result.parts.flatMap(toBlocks);
  return {
    type: 'tool_result',
    tool_use_id: id,
    ...(content.length === 0 ? {} : { content }),
    ...(result?.isError === true ? { is_error: true } : {}),
  };
}

function toBlocks(part: InnerPart): JsonObject[] {
  switch (part.type) {
    case 'text':
      // an empty or blank text is refused
      return part.text.trim() === '' ? [] : [textBlock(part.text)];
    case 'image':
      return [{ type: 'image', source: toSource(part.url) }];
    case 'document': {
      const source = { type: 'base64', media_type: part.mediaType, data: part.data };
      return [{ type: 'document', source, ...(part.title === null ? {} : { title: part.title }) }];
    }
    case 'call':
      return [{ type: 'tool_use', id: toId(part.id), name: part.name, input: toInput(part.arguments) }];
    case 'reasoning':
      return [];
    case 'audio':
      throw new AppError('invalid_request', `${part.path}: the model's provider takes no audio`, {
        param: part.path,
      });
    case 'result':
      return [textBlock(`[result of ${part.callId}]\n${part.parts.map(toText).join('\n')}`)];
    default:
      return part satisfies never;
  }
}

function toSource(url: string): JsonObject {
  const match = /^data:([^;,]+);base64,(.*)$/s.exec(url);
  if (match === null) return { type: 'url', url };
  return { type: 'base64', media_type: match[1] ?? '', data: match[2] ?? '' };
}

/** What a model wrote as arguments and is no object goes along as it was. */
function toInput(text: string): JsonObject {
  if (text.trim() === '') return {};
  try {
    return objectOf(JSON.parse(text)) ?? { arguments: text };
  } catch {
    return { arguments: text };
  }
}

/** A text at the very end may not end in blanks: the answer goes on behind it. */
function trimEnd(content: JsonObject[]): void {
  const last = content.at(-1);
  if (last?.type === 'text') content[content.length - 1] = textBlock(String(last.text).trimEnd());
}

function toText(part: InnerPart): string {
  return part.type === 'text' ? part.text : `[${part.type} omitted]`;
}

/** The API takes no other characters. */
function toId(id: string): string {
  return id.replace(/[^\w-]/g, '_') || '_';
}

function textBlock(text: string): JsonObject {
  return { type: 'text', text };
}
