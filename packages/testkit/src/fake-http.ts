/** What the fakes of this package answer with. */
import type { IncomingMessage, ServerResponse } from 'node:http';

const bodyBytesMax = 64 * 1024 * 1024;

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

/** A byte a millisecond, without end. */
export function drip(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  const timer = setInterval(() => response.write(' '), 1);
  response.once('close', () => clearInterval(timer));
}

export async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bodyBytesMax) throw new Error('body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
