/**
 * A list of thousands of descriptions as one JSON answer: made and sent in slices, between which others get
 * their turn. A short one is sent as any other answer.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { drained } from './drained.ts';

/** How long one slice may keep the others waiting. */
const sliceMsMax = 10;

/** `{...head, data: [...], ...tail}`, status 200. Returns early when the client leaves. */
export async function sendList<T>(
  exchange: Exchange,
  clock: Clock,
  head: object,
  items: readonly T[],
  describe: (item: T) => unknown,
  tail: object,
  sliceMs = sliceMsMax,
): Promise<void> {
  const { request, response, signal } = exchange;
  let text = `{${membersOf(head, 'after')}"data":[`;
  let sinceMs = performance.now();
  for (const [at, item] of items.entries()) {
    text += (at === 0 ? '' : ',') + JSON.stringify(describe(item));
    if (performance.now() - sinceMs < sliceMs) continue;
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
    if (request.method !== 'HEAD' && !response.write(text)) await drained(response, signal, clock);
    text = '';
    await turn();
    if (signal.aborted) return;
    sinceMs = performance.now();
  }
  text += `]${membersOf(tail, 'before')}}`;
  if (!response.headersSent) exchange.sendText(200, text, 'application/json');
  else response.end(request.method === 'HEAD' ? undefined : text);
}

function membersOf(value: object, comma: 'before' | 'after'): string {
  const members = JSON.stringify(value).slice(1, -1);
  if (members === '') return '';
  return comma === 'before' ? `,${members}` : `${members},`;
}
