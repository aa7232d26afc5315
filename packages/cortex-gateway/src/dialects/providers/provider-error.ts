/**
 * A provider's refusal as one of ours. What is about the gateway's own account with it (key, money, an
 * unknown model or address) is the gateway's problem: 502, in words of ours, never the client's 401.
 */
import { AppError, type ErrorCode } from 'cortex-core/wire/errors';
import { objectOf } from '../wire-grammar/wire-grammar.ts';

export interface ProviderRefusal {
  readonly name: string;
  /** Its name of the model. */
  readonly model: string;
  /** The variable with its key; null = it needs none. */
  readonly keyEnv: string | null;
  readonly status: number;
  readonly body: string;
  readonly retryAfterSecs: number | null;
}

const messageCharsMax = 2000;

/** Errors: of the catalogue; `retryAfterSecs` and the provider's own words are kept where they help. */
export function toProviderError(refusal: ProviderRefusal): AppError {
  const { name, status, retryAfterSecs } = refusal;
  const ours = oursOf(refusal);
  if (ours !== null) return new AppError('upstream_connection_error', ours);
  const { message, param, code } = readFault(refusal.body);
  const chosen = isTooLong(code, message) ? 'context_length_exceeded' : codeOf(status);
  const said = message === null ? `answered ${status}` : message;
  return new AppError(chosen, `provider ${name}: ${said}`, {
    ...(retryAfterSecs === null ? {} : { retryAfterSecs }),
    ...(param === null ? {} : { param }),
  });
}

/** An error event in the middle of an answer, or an error in the place of one. */
export function toProviderFault(value: unknown): AppError {
  const { message, code } = readFault(JSON.stringify({ error: value }));
  const text = message ?? 'failed in the middle of its answer; try again';
  const isBusy = code === 'overloaded_error' || code === 'rate_limit_error' || code === 'overloaded';
  return new AppError(isBusy ? 'overloaded' : 'upstream_connection_error', `the provider: ${text}`);
}

export function malformed(what: string): AppError {
  return new AppError('upstream_malformed_response', `the provider sent ${what}; try again`);
}

function oursOf({ name, model, keyEnv, status, body }: ProviderRefusal): string | null {
  const key = keyEnv === null ? 'set key_env of the provider' : `check the environment variable ${keyEnv}`;
  if (status === 401 || status === 403) {
    return `provider ${name} refuses the gateway's key (${status}); ${key}`;
  }
  if (status === 402 || (status === 429 && readFault(body).code === 'insufficient_quota')) {
    return `the gateway's account with provider ${name} has no credit left (${status})`;
  }
  if (status === 404 || status === 405) {
    return `provider ${name} does not know "${model}" or the address (${status}); check its url and models`;
  }
  if (status >= 300 && status < 400) {
    return `provider ${name} redirects to another address (${status}), which is not followed; check its url`;
  }
  return null;
}

function codeOf(status: number): ErrorCode {
  if (status === 408 || status === 504) return 'upstream_timeout';
  if (status === 413) return 'request_too_large';
  if (status === 429) return 'rate_limit_exceeded';
  if (status === 503 || status === 529) return 'overloaded';
  return status >= 400 && status < 500 ? 'invalid_request' : 'upstream_connection_error';
}

function isTooLong(code: string | null, message: string | null): boolean {
  if (code === 'context_length_exceeded') return true;
  return /prompt is too long|maximum context length/i.test(message ?? '');
}

interface Fault {
  readonly message: string | null;
  readonly param: string | null;
  readonly code: string | null;
}

/** Both vendors' envelopes: the code stands in `code` or in `type`. What is no JSON is not shown. */
function readFault(body: string): Fault {
  const none: Fault = { message: null, param: null, code: null };
  try {
    const error: unknown = objectOf(JSON.parse(body))?.error;
    if (typeof error === 'string') return { ...none, message: error.slice(0, messageCharsMax) };
    const { message, param, code, type } = objectOf(error) ?? {};
    return {
      message: textOf(message)?.slice(0, messageCharsMax) ?? null,
      param: textOf(param),
      code: textOf(code) ?? textOf(type),
    };
  } catch {
    return none;
  }
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}
