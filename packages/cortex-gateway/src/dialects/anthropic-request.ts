/** Anthropic's POST /v1/messages -> an inner request. */
import { AppError } from 'cortex-core/wire/errors';
import { type ContentContext, readContent } from './anthropic-content.ts';
import {
  booleanAt,
  faultAt,
  integerAt,
  listAt,
  maybe,
  numberAt,
  objectAt,
  stringAt,
} from './anthropic-fields.ts';
import { readToolChoice, readTools, shownTools } from './anthropic-tools.ts';
import type { InnerReasoning, InnerRequest, InnerTurn } from './inner/inner-request.ts';
import { type JsonObject, parseObject } from './request-body.ts';

/** What a neuron takes. */
const stopsMax = 64;
const tokensMax = 2 ** 31 - 1;
const modelCharsMax = 512;
/** Of `max_tokens`, where the thinking budget alone would exceed it: some room is left for the answer. */
const budgetShareMax = 0.8;
const efforts: ReadonlySet<string> = new Set(['low', 'medium', 'high', 'xhigh', 'max']);

/** How thinking blocks go back: as text, only as a signature that carries the text, or not at all. */
export type ThinkingDisplay = 'full' | 'omitted' | 'none';

export interface MessagesRequest {
  readonly inner: InnerRequest;
  readonly display: ThinkingDisplay;
}

/** Throws `invalid_request` that names the field, in Anthropic's words where clients read them. */
export function parseMessagesRequest(body: Uint8Array): MessagesRequest {
  const json = parseObject(body);
  const model = readModel(json.model);
  const maxTokens = Math.min(tokensMax, integerAt(json.max_tokens, 'max_tokens', 1));
  refuseServerState(json);
  const tools = readTools(json.tools);
  const turns = keepReasoning(
    [
      ...readSystem(json.system, { role: 'system', tools }),
      ...readMessages(json.messages, (role) => ({ role, tools })),
    ],
    json.context_management,
  );
  const { choice, parallel } = readToolChoice(json.tool_choice, tools);
  const output = maybe(json.output_config, 'output_config', objectAt) ?? {};
  const thinking = readThinking(json.thinking, maxTokens);
  const last = turns.at(-1);
  const inner: InnerRequest = {
    model,
    stream: maybe(json.stream, 'stream', booleanAt) ?? false,
    turns,
    tools: shownTools(tools),
    toolChoice: choice,
    parallelToolCalls: parallel,
    maxTokens,
    stops: readStops(json.stop_sequences),
    reasoning: { ...thinking.reasoning, effort: readEffort(json.messages, output.effort) },
    format: readFormat(
      output.format ?? json.output_format,
      (output.format ?? null) === null ? 'output_format' : 'output_config.format',
    ),
    continuesLastTurn: last?.role === 'assistant' && !last.parts.some(({ type }) => type === 'call'),
    sampling: readSampling(json),
  };
  return { inner, display: thinking.display };
}

function readModel(value: unknown): string {
  const name = typeof value === 'string' ? value : null;
  if (name !== null && name !== '' && name.length <= modelCharsMax) return name;
  const isMissing = value === undefined || value === null;
  const range = `Input should be a string of 1 to ${modelCharsMax} characters`;
  const message = `model: ${isMissing ? 'Field required' : range}; GET /v1/models lists what there is`;
  throw new AppError('missing_model_field', message, { param: 'model' });
}

/**
 * What a client would wait for in vain, or take for granted with its next request. The SDK's tool runner
 * keeps its conversation on the server unless that refuses in these words; then it sends the whole of it.
 */
function refuseServerState(json: JsonObject): void {
  if ((json.thread ?? null) !== null) {
    throw new AppError(
      'unsupported_parameter',
      'thread: conversations are not kept here; leave it out and send all messages',
      {
        param: 'thread',
        extras: { details: { error_code: 'thread_unsupported_request', unsupported: ['thread'] } },
      },
    );
  }
  if ((json.compaction ?? null) !== null) {
    const message = 'compaction: is not done here; leave it out and summarize in the client';
    throw new AppError('unsupported_parameter', message, { param: 'compaction' });
  }
}

function readSystem(value: unknown, context: ContentContext): InnerTurn[] {
  if (value === undefined || value === null) return [];
  const parts = readContent(value, 'system', context);
  return parts.length === 0 ? [] : [{ role: 'system', parts }];
}

function readMessages(value: unknown, contextOf: (role: InnerTurn['role']) => ContentContext): InnerTurn[] {
  const messages = listAt(value, 'messages');
  if (messages.length === 0) throw faultAt('messages', 'at least one message is required');
  const lastUser = messages.findLastIndex((each) => (each as JsonObject | null)?.role === 'user');
  return messages.flatMap((each, at): InnerTurn[] => {
    const path = `messages.${at}`;
    const message = objectAt(each, path);
    const role = stringAt(message.role, `${path}.role`);
    if (role !== 'user' && role !== 'assistant' && role !== 'system') {
      throw faultAt(`${path}.role`, `Input should be 'user', 'assistant' or 'system'`);
    }
    const { content } = message;
    if (role === 'system' && (content ?? null) === null && (message.output_config ?? null) !== null)
      return [];
    if (typeof content !== 'string' && !Array.isArray(content)) {
      throw faultAt(
        `${path}.content`,
        content === undefined || content === null
          ? 'Field required'
          : 'Input should be a valid string or list',
      );
    }
    const parts = readContent(content, `${path}.content`, contextOf(role));
    // it was for the turn before the next one of the user
    if (role === 'system' && message.clear_at === 'next_user_message' && at < lastUser) return [];
    if (parts.length > 0) return [{ role, parts }];
    // an answer may have been empty, and its echo must not end the conversation
    if (role === 'user' && content.length === 0) {
      throw faultAt(
        `${path}.content`,
        'all messages must have non-empty content except for the optional final assistant message',
      );
    }
    return role === 'user' ? [{ role, parts }] : [];
  });
}

/** `clear_thinking_20251015` with a number of turns to keep; every other edit changes nothing here. */
function keepReasoning(turns: readonly InnerTurn[], value: unknown): readonly InnerTurn[] {
  const given = maybe(value, 'context_management', objectAt);
  const edits = maybe(given?.edits, 'context_management.edits', listAt) ?? [];
  const edit = edits.find((each) => (each as JsonObject | null)?.type === 'clear_thinking_20251015') as
    | JsonObject
    | undefined;
  if (edit === undefined || edit.keep === 'all') return turns;
  const keep = (edit.keep as JsonObject | undefined)?.value;
  let left = typeof keep === 'number' ? keep : 1;
  return turns
    .toReversed()
    .map((turn) => {
      if (turn.role !== 'assistant' || !turn.parts.some(({ type }) => type === 'reasoning')) return turn;
      if (left-- > 0) return turn;
      return { ...turn, parts: turn.parts.filter(({ type }) => type !== 'reasoning') };
    })
    .toReversed();
}

interface Thinking {
  readonly reasoning: Omit<InnerReasoning, 'effort'>;
  readonly display: ThinkingDisplay;
}

function readThinking(value: unknown, maxTokens: number): Thinking {
  const given = maybe(value, 'thinking', objectAt);
  if (given === null) return { reasoning: { enabled: null, budget: null }, display: 'full' };
  const display = maybe(given.display, 'thinking.display', stringAt) === 'omitted' ? 'omitted' : 'full';
  switch (stringAt(given.type, 'thinking.type')) {
    case 'enabled': {
      const budget = maybe(given.budget_tokens, 'thinking.budget_tokens', (number, path) =>
        integerAt(number, path, 0),
      );
      const fits = budget === null || budget < maxTokens;
      const clamped = fits ? budget : Math.max(1, Math.floor(maxTokens * budgetShareMax));
      return { reasoning: { enabled: true, budget: clamped }, display };
    }
    case 'adaptive':
      return { reasoning: { enabled: true, budget: null }, display };
    case 'disabled':
      return { reasoning: { enabled: false, budget: null }, display: 'none' };
    case 'between_tools':
      return { reasoning: { enabled: null, budget: null }, display };
    default:
      throw faultAt('thinking.type', `Input should be 'enabled', 'adaptive', 'between_tools' or 'disabled'`);
  }
}

/** A system turn's holds for the turns behind it. One that is not known says nothing a model could heed. */
function readEffort(messages: unknown, value: unknown): string | null {
  let effort = maybe(value, 'output_config.effort', stringAt);
  for (const [at, each] of listAt(messages, 'messages').entries()) {
    const message = each as JsonObject;
    if (message.role !== 'system' || (message.output_config ?? null) === null) continue;
    const path = `messages.${at}.output_config`;
    effort = maybe(objectAt(message.output_config, path).effort, `${path}.effort`, stringAt) ?? effort;
  }
  return effort !== null && efforts.has(effort) ? effort : null;
}

function readFormat(value: unknown, path: string): InnerRequest['format'] {
  const given = maybe(value, path, objectAt);
  if (given === null) return null;
  if (stringAt(given.type, `${path}.type`) !== 'json_schema') {
    throw faultAt(`${path}.type`, `Input should be 'json_schema'`);
  }
  const { $schema: _, ...schema } = objectAt(given.schema, `${path}.schema`);
  return { name: 'output', schema, strict: null };
}

function readStops(value: unknown): readonly string[] {
  const stops = maybe(value, 'stop_sequences', listAt) ?? [];
  if (stops.length > stopsMax) throw faultAt('stop_sequences', `List should have at most ${stopsMax} items`);
  return stops.map((each, at) => stringAt(each, `stop_sequences.${at}`)).filter((stop) => stop !== '');
}

function readSampling(json: JsonObject): JsonObject {
  const within = (max: number) => (value: unknown, path: string) => numberAt(value, path, 0, max);
  const metadata = maybe(json.metadata, 'metadata', objectAt);
  const fields = {
    temperature: maybe(json.temperature, 'temperature', within(Number.MAX_VALUE)),
    top_p: maybe(json.top_p, 'top_p', within(1)),
    top_k: maybe(json.top_k, 'top_k', (value, path) => integerAt(value, path, -1)),
    user: maybe(metadata?.user_id, 'metadata.user_id', stringAt),
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}
