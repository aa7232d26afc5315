/** The events of an answer -> an Anthropic message; and the parts that the stream shares with it. */
import type {
  AnthropicContent,
  AnthropicMessage,
  AnthropicStopReason,
  AnthropicUsage,
} from 'cortex-core/wire/anthropic';
import type { ThinkingDisplay } from './anthropic-request.ts';
import { toSignature } from './anthropic-signature.ts';
import type { AnswerEvent, AnswerUsage, StopReason } from './inner/answer-event.ts';
import { malformed } from './inner/chat-piece.ts';
import { readArguments, readPartialObject } from './partial-json.ts';

/** Throws the error that the answer ends with. */
export function toMessage(
  events: readonly AnswerEvent[],
  model: string,
  display: ThinkingDisplay,
): AnthropicMessage {
  const content: AnthropicContent[] = [];
  const calls = new Map<number, { readonly id: string; readonly name: string; text: string; at: number }>();
  let id: string | null = null;
  let stop: { reason: AnthropicStopReason; sequence: string | null } | null = null;
  let usage: AnswerUsage | null = null;
  for (const event of events) {
    switch (event.type) {
      case 'start':
        id = event.id;
        break;
      case 'text':
      case 'reasoning':
        addText(content, event.type, event.text, display);
        break;
      case 'call_start':
        calls.set(event.index, { id: event.id, name: event.name, text: '', at: content.length });
        content.push({ type: 'tool_use', id: event.id, name: event.name, input: {} });
        break;
      case 'call_arguments': {
        const call = calls.get(event.index);
        if (call !== undefined) call.text += event.text;
        break;
      }
      case 'call_stop':
        break;
      case 'usage':
        usage = event.usage;
        break;
      case 'stop':
        stop = { reason: toStopReason(event.reason), sequence: event.stopText };
        break;
      case 'error':
        throw event.error;
      default:
        event satisfies never;
    }
  }
  for (const call of calls.values()) {
    // where nothing was cut, to mend it would be to invent what the model asked for
    if (stop?.reason === 'tool_use' && readArguments(call.text) === null) {
      throw malformed(`a call of "${call.name}" whose arguments are no JSON object`);
    }
    const input = readPartialObject(call.text) ?? {};
    content[call.at] = { type: 'tool_use', id: call.id, name: call.name, input };
  }
  return {
    id: messageId(id),
    type: 'message',
    role: 'assistant',
    model,
    content: content.map((block) => (block.type === 'thinking' ? signed(block.thinking, display) : block)),
    stop_reason: stop?.reason ?? null,
    stop_sequence: stop?.sequence ?? null,
    usage: toUsage(usage ?? noUsage),
  };
}

function addText(
  content: AnthropicContent[],
  type: 'text' | 'reasoning',
  text: string,
  display: ThinkingDisplay,
): void {
  if (type === 'reasoning' && display === 'none') return;
  const last = content.at(-1);
  if (type === 'text' && last?.type === 'text') {
    content[content.length - 1] = { type: 'text', text: last.text + text };
  } else if (type === 'reasoning' && last?.type === 'thinking') {
    content[content.length - 1] = { ...last, thinking: last.thinking + text };
  } else content.push(type === 'text' ? { type, text } : { type: 'thinking', thinking: text, signature: '' });
}

function signed(text: string, display: ThinkingDisplay): AnthropicContent {
  const isHidden = display === 'omitted';
  return { type: 'thinking', thinking: isHidden ? '' : text, signature: toSignature(isHidden ? text : '') };
}

export function toStopReason(reason: StopReason): AnthropicStopReason {
  switch (reason) {
    case 'end':
      return 'end_turn';
    case 'length':
      return 'max_tokens';
    case 'context_full':
      return 'model_context_window_exceeded';
    case 'stop_text':
      return 'stop_sequence';
    case 'calls':
      return 'tool_use';
    case 'refusal':
      return 'refusal';
    default:
      return reason satisfies never;
  }
}

const noUsage: AnswerUsage = {
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  reasoningTokens: 0,
};

export function toUsage(usage: AnswerUsage): AnthropicUsage {
  return {
    ...toInputUsage(usage.promptTokens, usage.cachedTokens),
    output_tokens: usage.completionTokens,
    output_tokens_details: { thinking_tokens: usage.reasoningTokens },
  };
}

export function toInputUsage(promptTokens: number, cachedTokens: number) {
  return {
    input_tokens: Math.max(0, promptTokens - cachedTokens),
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cachedTokens,
  };
}

export function messageId(chatId: string | null): string {
  const tail = (chatId ?? '').replace(/^chatcmpl-/, '').replace(/[^\w-]/g, '');
  return `msg_${tail === '' ? 'unknown' : tail.slice(0, 64)}`;
}
