/**
 * Turns -> the messages of a chat request.
 *
 * Problem: templates demand alternation, one result for each call and right behind it; clients send turns of
 * one role in a row, results in any order, mixed with text, or none at all.
 * Design: turns of one role are merged, results become `tool` messages in the order of their calls, and what
 * else stood beside them follows. A call without a result gets one that says so; a result without a call
 * becomes a user's text: an agent's history is never refused. System turns stay where they are: the neuron
 * knows what a template can take, and moving them to the top would change the prefix with each turn.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { JsonObject } from '../request-body.ts';
import type { InnerCall, InnerPart, InnerResult, InnerTurn } from './inner-request.ts';

/** What the model that answers can read; `capabilities` null = not known, then the neuron decides. */
export interface ChatReader {
  readonly model: string;
  readonly capabilities: readonly string[] | null;
}

const between = '\n\n';

/** Throws `vision_unsupported` for what the model is known not to read, with the client's path of it. */
export function toChatMessages(turns: readonly InnerTurn[], reader: ChatReader): JsonObject[] {
  const merged = mergeTurns(turns);
  const messages: JsonObject[] = [];
  const lastUser = merged.findLastIndex(({ role }) => role === 'user');
  for (let at = 0; at < merged.length; at++) {
    const turn = merged[at] as InnerTurn;
    if (turn.role !== 'assistant') {
      messages.push(...toMessages(turn, { ...reader, isLast: at >= lastUser }));
      continue;
    }
    messages.push(toAssistant(turn));
    const calls = turn.parts.filter((part) => part.type === 'call');
    if (calls.length === 0) continue;
    let end = at + 1;
    while (end < merged.length && merged[end]?.role !== 'assistant') end++;
    messages.push(...toAnswered(calls, merged.slice(at + 1, end), { ...reader, isLast: end > lastUser }));
    at = end - 1;
  }
  return messages;
}

/** Turns of one role in a row become one; between their texts stands an empty line. */
function mergeTurns(turns: readonly InnerTurn[]): InnerTurn[] {
  const merged: { role: InnerTurn['role']; parts: InnerPart[] }[] = [];
  for (const { role, parts } of turns) {
    const last = merged.at(-1);
    if (last?.role !== role) {
      merged.push({ role, parts: [...parts] });
      continue;
    }
    const meet = last.parts.at(-1)?.type === 'text' && parts[0]?.type === 'text' && role !== 'system';
    for (const part of meet ? [{ type: 'text', text: between } as const] : []) last.parts.push(part);
    for (const part of parts) last.parts.push(part);
  }
  return merged;
}

interface TurnReader extends ChatReader {
  /** The turn that is to be answered, or what follows it: what cannot be read there is refused. */
  readonly isLast: boolean;
}

/** The results of the calls first, then the rest of the turns. */
function toAnswered(
  calls: readonly InnerCall[],
  turns: readonly InnerTurn[],
  reader: TurnReader,
): JsonObject[] {
  const results = new Map<string, InnerResult>();
  const wanted = new Set(calls.map(({ id }) => id));
  const rest: InnerTurn[] = [];
  for (const { role, parts } of turns) {
    const kept: InnerPart[] = [];
    for (const part of parts) {
      const isAnswer = part.type === 'result' && wanted.has(part.callId) && !results.has(part.callId);
      if (isAnswer) results.set(part.callId, part);
      else kept.push(part);
    }
    if (kept.length > 0 || parts.length === 0) rest.push({ role, parts: kept });
  }
  const media: InnerPart[] = [];
  const messages = calls.map(({ id }): JsonObject => {
    const result = results.get(id);
    const content = result === undefined ? '[no result]' : resultText(result, reader, media);
    return { role: 'tool', tool_call_id: id, content };
  });
  const attached: InnerTurn[] =
    media.length === 0
      ? []
      : [{ role: 'user', parts: [{ type: 'text', text: 'Attached media from tool result:' }, ...media] }];
  // beside results a document is part of what the agent has done, as in a result
  const beside = { ...reader, isLast: reader.isLast && results.size === 0 };
  return [...messages, ...mergeTurns([...attached, ...rest]).flatMap((turn) => toMessages(turn, beside))];
}

/** `media` gets what a text cannot hold and the model can read. */
function resultText({ parts, isError }: InnerResult, reader: ChatReader, media: InnerPart[]): string {
  const texts = parts.map((part) => {
    if (part.type === 'text') return part.text;
    if (part.type === 'image' && canSee(reader)) {
      media.push(part);
      return '[image: see below]';
    }
    return placeholderOf(part);
  });
  const text = texts.filter((each) => each !== '').join('\n');
  return isError && !/^error\b/i.test(text) ? `Error: ${text}` : text;
}

function toMessages(turn: InnerTurn, reader: TurnReader): JsonObject[] {
  if (turn.role === 'system') {
    const content = turn.parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join(between);
    return content === '' ? [] : [{ role: 'system', content }];
  }
  const parts = turn.parts.map((part) => toPart(part, reader)).filter((part) => part.text !== '');
  if (parts.every((part) => part.type === 'text')) {
    return [{ role: 'user', content: parts.map((part) => part.text).join('') }];
  }
  return [{ role: 'user', content: parts }];
}

function toAssistant(turn: InnerTurn): JsonObject {
  const texts: string[] = [];
  const thoughts: string[] = [];
  const calls: JsonObject[] = [];
  for (const part of turn.parts) {
    if (part.type === 'text') texts.push(part.text);
    else if (part.type === 'reasoning') thoughts.push(part.text);
    else if (part.type === 'call') {
      const { id, name, arguments: given } = part;
      calls.push({ id, type: 'function', function: { name, arguments: given } });
    }
  }
  const content = texts.join('');
  return {
    role: 'assistant',
    content: content === '' && calls.length > 0 ? null : content,
    ...(thoughts.length === 0 ? {} : { reasoning_content: thoughts.join(between) }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
}

function toPart(part: InnerPart, reader: TurnReader): JsonObject {
  switch (part.type) {
    case 'text':
    case 'reasoning':
      return { type: 'text', text: part.text };
    case 'image':
      if (reader.capabilities !== null && !canSee(reader)) throw unreadable(part.path, 'images', reader);
      return {
        type: 'image_url',
        image_url: { url: part.url, ...(part.detail === undefined ? {} : { detail: part.detail }) },
      };
    case 'audio':
      if (reader.capabilities?.includes('audio') === false) throw unreadable(part.path, 'sound', reader);
      return { type: 'input_audio', input_audio: { data: part.data, format: part.format } };
    case 'document':
      if (!reader.isLast) return { type: 'text', text: placeholderOf(part) };
      throw unreadable(part.path, `documents of type ${part.mediaType.slice(0, 40)}`, reader);
    case 'result':
      return { type: 'text', text: `[result of ${part.callId}]\n${resultText(part, reader, [])}\n\n` };
    case 'call':
      return { type: 'text', text: `[call of ${part.name}]\n${part.arguments}` };
    default:
      return part satisfies never;
  }
}

function canSee({ capabilities }: ChatReader): boolean {
  return capabilities?.includes('vision') === true;
}

function placeholderOf(part: InnerPart): string {
  switch (part.type) {
    case 'image':
      return '[image omitted: the model has no vision]';
    case 'audio':
      return '[sound omitted: the model cannot hear]';
    case 'document':
      return `[document omitted: ${part.title ?? part.mediaType}: the model reads text only]`;
    default:
      return '';
  }
}

function unreadable(path: string, what: string, { model, capabilities }: ChatReader): AppError {
  const does = capabilities === null ? '' : `; it does ${capabilities.join(', ')}`;
  return new AppError('vision_unsupported', `${path}: model "${model}" cannot read ${what}${does}`, {
    param: path,
    extras: {
      model_id: model,
      capabilities: capabilities ?? [],
      suggestion: 'send text, or use a model with vision',
    },
  });
}
