/** What a neuron's lifecycle API says when it refuses. */
import { AppError, errorCatalogue, toErrorCode } from 'cortex-core/wire/errors';

interface LifecycleAnswer {
  readonly status: number;
  readonly body: unknown;
}

export function isAlreadyLoaded(body: unknown): boolean {
  return causeOf(body).message.includes('already loaded');
}

export function loadError(node: string, model: string, answer: LifecycleAnswer): AppError {
  const { code, message } = causeOf(answer.body);
  const known = toErrorCode(code) ?? 'cold_load_failed';
  const retryable = errorCatalogue[known].retryable;
  return new AppError(known, `loading "${model}" on ${node} failed: ${message}`, {
    ...(retryable ? { retryAfterSecs: 5 } : {}),
  });
}

/** The lifecycle API says `{"error": text | {kind, ...}, code?}`. */
export function causeOf(body: unknown): { code: string | null; message: string } {
  if (typeof body !== 'object' || body === null || !('error' in body))
    return { code: null, message: 'no reason given' };
  const code = 'code' in body && typeof body.code === 'string' ? body.code : null;
  const { error } = body;
  if (typeof error === 'string') return { code, message: error.slice(0, 600) };
  if (typeof error !== 'object' || error === null) return { code, message: 'no reason given' };
  const kind = 'kind' in error ? String(error.kind) : 'code' in error ? String(error.code) : code;
  const text = 'message' in error ? String(error.message) : JSON.stringify(error);
  return { code: kind, message: text.slice(0, 600) };
}
