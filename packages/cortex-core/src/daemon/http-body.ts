import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { AppError } from '../wire/errors.ts';

/**
 * The whole body, decompressed. The limit holds for what arrives and for what it expands to, so a small
 * compressed body cannot fill the memory.
 */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  bytesMax: number,
): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > bytesMax) throw tooLarge(bytesMax);
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue();
  const chunks: Buffer[] = [];
  let size = 0;
  const stream = decompressed(request);
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > bytesMax) throw tooLarge(bytesMax);
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw new AppError('invalid_request', 'the body broke off or could not be decompressed; send it again', {
      cause,
    });
  }
  return Buffer.concat(chunks, size);
}

function decompressed(request: IncomingMessage): Readable {
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase();
  const decoder = decoderOf(encoding);
  if (decoder === null) return request;
  request.once('error', (error) => decoder.destroy(error));
  request.once('close', () => {
    if (!request.complete) decoder.destroy(new Error('connection closed'));
  });
  return request.pipe(decoder);
}

function decoderOf(encoding: string): ReturnType<typeof createGunzip> | null {
  switch (encoding) {
    case 'identity':
    case '':
      return null;
    case 'gzip':
    case 'x-gzip':
      return createGunzip();
    case 'deflate':
      return createInflate();
    case 'br':
      return createBrotliDecompress();
    default:
      throw new AppError(
        'unsupported_media_type',
        `content-encoding "${encoding.slice(0, 40)}" is not supported; send gzip, br, deflate or none`,
      );
  }
}

function tooLarge(bytesMax: number): AppError {
  const mb = Math.floor(bytesMax / (1024 * 1024));
  return new AppError(
    'request_too_large',
    `the body is larger than ${mb} MiB; raise max_body_mb or send less`,
  );
}
