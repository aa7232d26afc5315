/**
 * A large JSON answer in pieces.
 *
 * Problem: to make text of millions of numbers at once stops every stream of the neuron for seconds.
 * Design:  a piece is made when the one before it is written; in between everything else has its turn. The
 *          socket's own buffer is the limit of what lies unread.
 * Limits:  60 s in which the client reads nothing, then it is cut.
 */
import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';

const unreadMsMax = 60_000;

/** Rejects when the client leaves. Whatever can fail must have happened before: the status is out. */
export async function sendPieces(exchange: Exchange, pieces: Iterable<string>, clock: Clock): Promise<void> {
  const { response, signal } = exchange;
  response.writeHead(200, { 'content-type': 'application/json' });
  for (const piece of pieces) {
    signal.throwIfAborted();
    if (response.write(piece)) await setImmediate();
    else {
      const unread = clock.setTimer(unreadMsMax, () => response.destroy());
      await once(response, 'drain', { signal }).finally(() => unread.cancel());
    }
  }
  response.end();
}
