/** A whole OpenAI chat answer -> an Anthropic message; and the parts that the stream shares with it. */
import type { AnthropicMessage, AnthropicStopReason, AnthropicUsage } from 'cortex-core/wire/anthropic';
import { AppError } from 'cortex-core/wire/errors';

/** What is read of an answer or of one chunk; anything may be missing. */
export interface ChatPiece {
  readonly id?: unknown;
  readonly error?: unknown;
  readonly choices?: readonly ChatChoice[] | null;
  readonly usage?: ChatUsage | null;
}

interface ChatChoice {
  readonly delta?: { readonly content?: unknown } | null;
  readonly message?: { readonly content?: unknown } | null;
  readonly finish_reason?: unknown;
  /** The stop text that matched, from engines that tell. */
  readonly stop_reason?: unknown;
}

interface ChatUsage {
  readonly prompt_tokens?: number;
  readonly completion_tokens?: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
}

export function parsePiece(text: string): ChatPiece {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // below
  }
  throw new AppError(
    'upstream_malformed_response',
    'the neuron sent something that is not a chat answer; try again',
  );
}

export function toMessage(body: Uint8Array, model: string): AnthropicMessage {
  const answer = parsePiece(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  const choice = answer.choices?.[0];
  if (choice === undefined) {
    throw new AppError(
      'upstream_malformed_response',
      'the neuron sent an answer without a choice; try again',
    );
  }
  const text = typeof choice.message?.content === 'string' ? choice.message.content : '';
  const stop = toStop(choice);
  return {
    id: messageId(answer.id),
    type: 'message',
    role: 'assistant',
    model,
    content: text === '' ? [] : [{ type: 'text', text }],
    stop_reason: stop.reason,
    stop_sequence: stop.sequence,
    usage: toUsage(answer.usage ?? null),
  };
}

export function toStop(choice: Pick<ChatChoice, 'finish_reason' | 'stop_reason'>): {
  readonly reason: AnthropicStopReason;
  readonly sequence: string | null;
} {
  switch (choice.finish_reason) {
    case 'length':
      return { reason: 'max_tokens', sequence: null };
    case 'tool_calls':
      return { reason: 'tool_use', sequence: null };
    case 'content_filter':
      return { reason: 'refusal', sequence: null };
    default:
      return typeof choice.stop_reason === 'string'
        ? { reason: 'stop_sequence', sequence: choice.stop_reason }
        : { reason: 'end_turn', sequence: null };
  }
}

export function toUsage(usage: ChatUsage | null): AnthropicUsage {
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  return {
    input_tokens: Math.max(0, (usage?.prompt_tokens ?? 0) - cached),
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cached,
    output_tokens: usage?.completion_tokens ?? 0,
  };
}

export function messageId(chatId: unknown): string {
  const tail = typeof chatId === 'string' ? chatId.replace(/^chatcmpl-/, '').replace(/[^\w-]/g, '') : '';
  return `msg_${tail === '' ? 'unknown' : tail.slice(0, 64)}`;
}
