/**
 * A neuron's refusal as one of ours: status, code, message and Retry-After survive the change of envelope.
 */
import { AppError, type ErrorCode, errorCatalogue, toErrorCode } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';

export function toUpstreamError(status: number, body: string, retryAfter: string | null): AppError {
  const { code, message, param } = readEnvelope(body);
  if (isShapeFault(status, body)) {
    return new AppError('invalid_request', message ?? 'the request has a wrong shape', {
      ...(param === null ? {} : { param }),
    });
  }
  const known = toErrorCode(code);
  const isKnown = known !== null && !isOfKeys(status) && errorCatalogue[known].status === status;
  const chosen = isKnown ? known : codeOfStatus(status);
  const secs = retryAfter === null ? Number.NaN : Number(retryAfter);
  return new AppError(chosen, message ?? `the neuron answered ${status}`, {
    ...(Number.isFinite(secs) ? { retryAfterSecs: secs } : {}),
    ...(param === null ? {} : { param }),
  });
}

/**
 * The `error` in an event of a stream, or in the place of a whole answer: its code and message as the neuron
 * said them. `answer`: what was parsed.
 */
export function toAnswerError(answer: unknown): AppError {
  const { code, message, param } = envelopeOf(answer);
  const known = toErrorCode(code) ?? 'internal_server_error';
  const chosen = isOfKeys(errorCatalogue[known].status) ? 'upstream_connection_error' : known;
  return new AppError(chosen, message ?? 'the neuron failed in the middle of its answer; try again', {
    ...(param === null ? {} : { param }),
  });
}

/** An error event's bytes, the same way. */
export function toInStreamError(event: Uint8Array): AppError {
  const [first] = new SseParser().push(event);
  return toAnswerError(parseOrNull(first?.data ?? ''));
}

/** It is about the gateway's key at the neuron, never about the client's at the gateway. */
function isOfKeys(status: number): boolean {
  return status === 401 || status === 403;
}

/** A neuron tells a wrong shape (422) from a wrong value (400); the vendors' APIs do not, and nor do we. */
export function isShapeFault(status: number, body: string): boolean {
  return status === 422 && readEnvelope(body).code === 'invalid_request_body';
}

interface Envelope {
  readonly code: string | null;
  readonly message: string | null;
  readonly param: string | null;
}

/** OpenAI's envelope, or the lifecycle API's flat one. */
export function readEnvelope(body: string): Envelope {
  return envelopeOf(parseOrNull(body));
}

function envelopeOf(json: unknown): Envelope {
  const none = { code: null, message: null, param: null };
  if (typeof json !== 'object' || json === null || !('error' in json)) return none;
  const { error } = json;
  if (typeof error === 'string') {
    return { code: 'code' in json ? text(json.code) : null, message: text(error), param: null };
  }
  if (typeof error !== 'object' || error === null) return none;
  const fields = error as Record<string, unknown>;
  return { code: text(fields.code), message: text(fields.message), param: text(fields.param) };
}

function parseOrNull(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

function codeOfStatus(status: number): ErrorCode {
  switch (status) {
    case 400:
      return 'invalid_request';
    case 401:
    case 403:
      return 'upstream_connection_error';
    case 404:
      return 'model_not_found';
    case 408:
      return 'request_timeout';
    case 409:
      return 'load_cancelled';
    case 413:
      return 'request_too_large';
    case 422:
      return 'invalid_request_body';
    case 429:
      return 'rate_limit_exceeded';
    case 502:
      return 'upstream_connection_error';
    case 503:
    case 529:
      return 'overloaded';
    case 504:
      return 'upstream_timeout';
    default:
      return status >= 400 && status < 500 ? 'invalid_request' : 'internal_server_error';
  }
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}
