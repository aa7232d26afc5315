import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';

/** A client that takes nothing for so long is gone, whatever its connection says; ms. */
export const stalledMsMax = 300_000;

/** Resolves when the client has taken what was written, or has left; one that stalls is cut. */
export function drained(response: Exchange['response'], signal: AbortSignal, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel();
      response.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = clock.setTimer(stalledMsMax, () => response.destroy());
    response.once('drain', done);
    signal.addEventListener('abort', done, { once: true });
    if (signal.aborted) done();
  });
}
