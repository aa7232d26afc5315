import { AppError } from '../wire/errors.ts';

export function bodyTooLarge(bytesMax: number): AppError {
  const mb = Math.floor(bytesMax / (1024 * 1024));
  return new AppError(
    'request_too_large',
    `the body is larger than ${mb} MiB; raise max_body_mb or send less`,
  );
}
