/**
 * A neuron's refusal as one of ours: status, code, message and Retry-After survive the change of envelope.
 */
import { AppError, type ErrorCode, errorCatalogue } from 'cortex-core/wire/errors';

export function toUpstreamError(status: number, body: string, retryAfter: string | null): AppError {
  const { code, message, param } = readEnvelope(body);
  const known = code !== null && code in errorCatalogue ? (code as ErrorCode) : null;
  // a 401 or 403 is about the gateway's key there, whatever its code: not the client's
  const isOurs = status === 401 || status === 403;
  const isKnown = known !== null && !isOurs && errorCatalogue[known].status === status;
  const chosen = isKnown ? known : codeOfStatus(status);
  const secs = retryAfter === null ? Number.NaN : Number(retryAfter);
  return new AppError(chosen, message ?? `the neuron answered ${status}`, {
    ...(Number.isFinite(secs) ? { retryAfterSecs: secs } : {}),
    ...(param === null ? {} : { param }),
  });
}

/** OpenAI's envelope, or the lifecycle API's flat one. */
export function readEnvelope(body: string): {
  readonly code: string | null;
  readonly message: string | null;
  readonly param: string | null;
} {
  const none = { code: null, message: null, param: null };
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json !== 'object' || json === null || !('error' in json)) return none;
    const { error } = json;
    if (typeof error === 'string') {
      const code = 'code' in json ? text(json.code) : null;
      return { code, message: error, param: null };
    }
    if (typeof error !== 'object' || error === null) return none;
    const fields = error as Record<string, unknown>;
    return { code: text(fields.code), message: text(fields.message), param: text(fields.param) };
  } catch {
    return none;
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
