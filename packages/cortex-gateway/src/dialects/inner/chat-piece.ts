/** What is read of a neuron's chat answer, whole or in chunks; anything may be missing or of another type. */
import { AppError } from 'cortex-core/wire/errors';
import type { AnswerUsage, StopReason } from './answer-event.ts';

export interface ChatPiece {
  readonly id?: unknown;
  readonly error?: unknown;
  readonly choices?: readonly ChatChoice[] | null;
  readonly usage?: ChatPieceUsage | null;
}

export interface ChatChoice {
  readonly index?: unknown;
  readonly delta?: ChatPieceMessage | null;
  /** Of a completion, which has neither delta nor message. */
  readonly text?: unknown;
  readonly message?: ChatPieceMessage | null;
  readonly finish_reason?: unknown;
  /** With `stop` the stop text that matched, with `length` perhaps `context_full`; elsewhere a token. */
  readonly stop_reason?: unknown;
}

export interface ChatPieceMessage {
  readonly content?: unknown;
  readonly refusal?: unknown;
  readonly reasoning_content?: unknown;
  /** What some engines call `reasoning_content`. */
  readonly reasoning?: unknown;
  readonly tool_calls?: readonly ChatPieceCall[] | null;
}

export interface ChatPieceCall {
  readonly index?: unknown;
  readonly id?: unknown;
  readonly function?: { readonly name?: unknown; readonly arguments?: unknown } | null;
}

interface ChatPieceUsage {
  readonly prompt_tokens?: unknown;
  readonly completion_tokens?: unknown;
  readonly prompt_tokens_details?: { readonly cached_tokens?: unknown } | null;
  readonly completion_tokens_details?: { readonly reasoning_tokens?: unknown } | null;
}

/** Throws `upstream_malformed_response`. */
export function parsePiece(text: string): ChatPiece {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // below
  }
  throw malformed('something that is not a chat answer');
}

export function malformed(what: string): AppError {
  return new AppError('upstream_malformed_response', `the neuron sent ${what}; try again`);
}

/** The first choice; null when there is none. */
export function choiceOf(piece: ChatPiece): ChatChoice | null {
  if (!Array.isArray(piece.choices)) return null;
  const choice: unknown = piece.choices.find((each: ChatChoice | null) => (each?.index ?? 0) === 0);
  return typeof choice === 'object' && choice !== null ? choice : null;
}

export function toAnswerUsage(usage: ChatPieceUsage): AnswerUsage {
  return {
    promptTokens: count(usage.prompt_tokens),
    cachedTokens: count(usage.prompt_tokens_details?.cached_tokens),
    completionTokens: count(usage.completion_tokens),
    reasoningTokens: count(usage.completion_tokens_details?.reasoning_tokens),
  };
}

/** `called`: the answer has calls. Engines differ in whether `stop` or `tool_calls` ends one that has. */
export function toStop(
  choice: ChatChoice,
  called: boolean,
): { readonly reason: StopReason; readonly stopText: string | null } {
  const said = typeof choice.stop_reason === 'string' ? choice.stop_reason : null;
  switch (choice.finish_reason) {
    case 'length':
      return { reason: said === 'context_full' ? 'context_full' : 'length', stopText: null };
    case 'content_filter':
      return { reason: 'refusal', stopText: null };
    case 'tool_calls':
    case 'function_call':
      return { reason: called ? 'calls' : 'end', stopText: null };
    default:
      if (said !== null) return { reason: 'stop_text', stopText: said };
      return { reason: called ? 'calls' : 'end', stopText: null };
  }
}

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? Math.floor(value) : 0;
}
