/** The response object around its items. */
import type { AppError } from 'cortex-core/wire/errors';
import type {
  ResponseEcho,
  ResponseObject,
  ResponseOutputItem,
  ResponseUsage,
} from 'cortex-core/wire/responses';
import type { AnswerUsage, StopReason } from '../inner/answer-event.ts';

export interface ResponseHead {
  readonly id: string;
  /** Seconds since the epoch. */
  readonly createdAt: number;
  readonly echo: ResponseEcho;
}

/** As it is before it has an end. */
export function startedResponse({ id, createdAt, echo }: ResponseHead): ResponseObject {
  return {
    ...{ id, object: 'response', created_at: createdAt, completed_at: null, status: 'in_progress' },
    ...{ error: null, incomplete_details: null, ...echo, output: [], usage: null },
  };
}

/** As it is before the model is asked. */
export function queuedResponse(head: ResponseHead): ResponseObject {
  return { ...startedResponse(head), status: 'queued' };
}

/** With what there was when somebody ended it. */
export function cancelledResponse(head: ResponseHead, end: Omit<ResponseEnd, 'completedAt'>): ResponseObject {
  return { ...startedResponse(head), status: 'cancelled', output: end.output, usage: end.usage };
}

export interface ResponseEnd {
  readonly output: readonly ResponseOutputItem[];
  readonly usage: ResponseUsage | null;
  readonly completedAt: number;
}

export function stoppedResponse(head: ResponseHead, reason: StopReason, end: ResponseEnd): ResponseObject {
  const { output, usage, completedAt } = end;
  const cut = cutBy(reason);
  const started = startedResponse(head);
  if (cut !== null)
    return { ...started, status: 'incomplete', incomplete_details: { reason: cut }, output, usage };
  return { ...started, status: 'completed', completed_at: completedAt, output, usage };
}

export function failedResponse(
  head: ResponseHead,
  error: AppError,
  end: Omit<ResponseEnd, 'completedAt'>,
): ResponseObject {
  const told = { code: failureCode(error), message: error.message };
  return { ...startedResponse(head), status: 'failed', error: told, output: end.output, usage: end.usage };
}

export function cutBy(reason: StopReason): 'max_output_tokens' | 'content_filter' | null {
  switch (reason) {
    case 'length':
    case 'context_full':
      return 'max_output_tokens';
    case 'refusal':
      return 'content_filter';
    case 'end':
    case 'stop_text':
    case 'calls':
      return null;
    default:
      return reason satisfies never;
  }
}

/** In the vendor's words, which decide whether agents try again: these three stop one, the rest does not. */
function failureCode({ code, status }: AppError): string {
  if (code === 'context_length_exceeded' || code === 'rate_limit_exceeded') return code;
  if (code === 'insufficient_quota') return code;
  return status >= 400 && status < 500 && status !== 408 && status !== 409
    ? 'invalid_prompt'
    : 'server_error';
}

export function toResponseUsage(usage: AnswerUsage): ResponseUsage {
  const { promptTokens, cachedTokens, completionTokens, reasoningTokens } = usage;
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: 0 },
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: promptTokens + completionTokens,
  };
}
