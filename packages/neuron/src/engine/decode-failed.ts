import { AppError } from 'cortex-core/wire/errors';

/** `code`: what llama_decode returned (llama.h), not 0. */
export function decodeFailed(modelId: string, code: number): AppError {
  const why =
    code === 1
      ? 'its KV cache has no room'
      : code === 2
        ? 'the computation was aborted'
        : 'the device failed';
  return new AppError('job_failed', `model "${modelId}": a decode step failed, ${why}; try again`, {
    detail: { llama_decode: code },
  });
}
