/**
 * A request's body: within its limit, decompressed, text, and not slower than it need be.
 *
 * The limit holds for what arrives and for what it expands to, so that a small compressed body cannot fill
 * the memory. A body that moves may take as long as it likes; one that brings less than 1 KiB in a window of
 * `slowMs` holds a connection for nothing, and is refused with 408.
 */
import { isUtf8 } from 'node:buffer';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { AppError } from '../wire/errors.ts';
import { bodyTooLarge } from './body-too-large.ts';
import { decodeContent } from './content-encodings.ts';
import { ZstdFault } from './zstd-frames.ts';

export interface BodyLimits {
  readonly bytesMax: number;
  /** Window in which at least 1 KiB, or the rest, has to arrive. */
  readonly slowMs: number;
}

const windowBytesMin = 1024;

/**
 * Errors: `request_too_large`, `unsupported_media_type`, `request_timeout`, `malformed_json` for bytes that
 * are no UTF-8, `invalid_request` for a body that broke off or cannot be decompressed.
 */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  { bytesMax, slowMs }: BodyLimits,
): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > bytesMax) throw bodyTooLarge(bytesMax);
  const source = watched(request, slowMs);
  const content = decodeContent(source, request.headers['content-encoding'], bytesMax);
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue();
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of content) {
      size += chunk.length;
      if (size > bytesMax) throw bodyTooLarge(bytesMax);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    const why = cause instanceof ZstdFault ? cause.message : 'broke off or could not be decompressed';
    throw new AppError('invalid_request', `the body ${why}; send it again`, { cause });
  }
  return asText(Buffer.concat(chunks, size));
}

/** The request itself stays open, so that a refusal can still be answered on it. */
async function* watched(request: IncomingMessage, slowMs: number): AsyncGenerator<Buffer, void, void> {
  let arrived = 0;
  let before = 0;
  let refuse: (error: AppError) => void = () => {};
  const slow = new Promise<never>((_, reject) => {
    refuse = reject;
  });
  slow.catch(() => {});
  const timer = setInterval(() => {
    if (arrived - before >= windowBytesMin) before = arrived;
    else refuse(tooSlow(arrived, slowMs));
  }, slowMs);
  const chunks = request.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>;
  try {
    for (;;) {
      const next = await Promise.race([chunks.next(), slow]);
      if (next.done === true) return;
      arrived += next.value.length;
      yield next.value;
    }
  } finally {
    clearInterval(timer);
  }
}

/** Without a byte-order mark, which some editors and shells put first. */
function asText(bytes: Buffer): Buffer {
  if (!isUtf8(bytes)) {
    throw new AppError('malformed_json', 'the body is not valid UTF-8; send JSON encoded as UTF-8');
  }
  const hasMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return hasMark ? bytes.subarray(3) : bytes;
}

function tooSlow(arrived: number, slowMs: number): AppError {
  const secs = slowMs / 1000;
  return new AppError(
    'request_timeout',
    `the body stopped: after ${arrived} bytes less than ${windowBytesMin} more came in ${secs} s; ` +
      'send it again',
  );
}
