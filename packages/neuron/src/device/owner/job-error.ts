import { AppError } from 'cortex-core/wire/errors';

/** What is not an AppError yet: JobFailed(cause). The cause's own text stays in the log. */
export function asJobError(kind: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new AppError('job_failed', `${kind} failed: ${text}`, { cause: error });
}
