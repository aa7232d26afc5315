/**
 * Several jobs of one request beside each other.
 *
 * Problem: under one permit a request with many choices would have every slot, and whoever comes next waits
 *          for all of them.
 * Design:  the request's own permit carries one job after the other, so that it always gets on. A further
 *          lane takes a permit for each of its jobs and stands in the queue for it, one lane at a time, so
 *          that a request has one place there. Where one is refused, the lanes that there are go on.
 */
import { AppError } from 'cortex-core/wire/errors';

export interface SideBySide {
  /** Jobs, counted from 0 and begun in that order. */
  readonly count: number;
  /** At once, at most. */
  readonly lanes: number;
  /** A permit for one job more. Rejects with the refusal, or with the signal's reason. */
  readonly acquire: (patience: AbortSignal) => Promise<{ release(): void }>;
  /** Rejects once `signal` is aborted. */
  readonly run: (at: number) => Promise<void>;
  /** Aborts when one job has failed too. */
  readonly signal: AbortSignal;
}

/** Settles when nothing runs or waits any more; rejects with the signal's reason, or that of a job. */
export async function runSideBySide({ count, lanes, acquire, run, signal }: SideBySide): Promise<void> {
  const begun = new AbortController();
  const patience = AbortSignal.any([signal, begun.signal]);
  let next = 0;
  const take = (): number | null => {
    const at = next < count ? next++ : null;
    if (next >= count) begun.abort();
    return at;
  };
  const own = async (): Promise<void> => {
    for (let at = take(); at !== null; at = take()) await run(at);
  };
  let line: Promise<unknown> = Promise.resolve();
  const further = async (): Promise<void> => {
    for (;;) {
      const turn = line.then(() => (patience.aborted ? null : acquire(patience)));
      line = turn.catch(() => begun.abort());
      const permit = await turn.catch((thrown: unknown) => onRefusal(thrown, signal, begun.signal));
      if (permit === null) return;
      try {
        const at = take();
        if (at === null) return;
        await run(at);
      } finally {
        permit.release();
      }
    }
  };
  const all = [own(), ...Array.from({ length: Math.min(lanes, count) - 1 }, further)];
  const settled = await Promise.allSettled(all);
  signal.throwIfAborted();
  for (const each of settled) if (each.status === 'rejected') throw each.reason;
}

function onRefusal(thrown: unknown, signal: AbortSignal, begun: AbortSignal): null {
  if (!signal.aborted && !begun.aborted && !(thrown instanceof AppError)) throw thrown;
  return null;
}
