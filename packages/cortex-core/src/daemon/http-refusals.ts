/** What ends a connection: requests that cannot be read, and bodies that nobody wants. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { AppError, toOpenAiEnvelope } from '../wire/errors.ts';

/** How long a client may go on sending what is not wanted before the connection is cut. */
const lingerMs = 2000;

/**
 * The answer to what is no HTTP request; there is no exchange for it. Two lengths, a length and chunks, or a
 * header without an end are refused by the parser (RFC 9112, section 6.3): requests are smuggled with those.
 */
export function refuseUnread(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const [line, refusal] = refusalOf(error.code);
  const body = Buffer.from(JSON.stringify(toOpenAiEnvelope(refusal)));
  const head = [
    `HTTP/1.1 ${line}`,
    'content-type: application/json',
    `content-length: ${body.length}`,
    'connection: close',
  ];
  socket.end(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), body]));
}

function refusalOf(code: string | undefined): readonly [string, AppError] {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return [
        '431 Request Header Fields Too Large',
        new AppError('headers_too_large', 'the headers are larger than 64 KiB; send fewer or shorter ones'),
      ];
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return [
        '408 Request Timeout',
        new AppError('request_timeout', 'the headers did not come in time; send the request again'),
      ];
    default:
      return [
        '400 Bad Request',
        new AppError('invalid_request', 'this is not an HTTP request that can be read; check its headers'),
      ];
  }
}

/**
 * The answer is out and the request is still coming. It is read and dropped for a while, because a connection
 * that is closed over unread bytes may lose the answer on its way; then it is cut.
 */
export function cutUnread(request: IncomingMessage): void {
  if (request.complete) return;
  const { socket } = request;
  const timer = setTimeout(() => {
    if (!request.complete) socket.destroy();
  }, lingerMs);
  timer.unref();
  request.once('close', () => clearTimeout(timer));
}
