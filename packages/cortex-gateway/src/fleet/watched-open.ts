/**
 * A lease's request as the node's service sees it: how it ended, and a hand on it for a drain whose time is
 * over. A thin wrapper: one promise hop a chunk.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { OpenRequest, UpstreamAnswer } from '../upstream/neuron-client.ts';
import type { Outcome } from './breaker.ts';
import type { NodeState } from './node-state.ts';

/** An answer of these is the node's failure, not the request's and not want of room. */
const failures: ReadonlySet<number> = new Set([500, 502, 504]);

export interface WatchedOpen {
  readonly open: (request: OpenRequest) => Promise<UpstreamAnswer>;
  /** The lease is given back. */
  readonly end: () => void;
}

export function watchedOpen(node: NodeState): WatchedOpen {
  const stop = new AbortController();
  let outcome: Outcome = 'unknown';
  let detach = (): void => {};
  const attempt = node.service.begin((reason) => stop.abort(reason));
  const open = async (request: OpenRequest): Promise<UpstreamAnswer> => {
    const { signal } = request;
    const onAbort = (): void => stop.abort(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    detach = () => signal.removeEventListener('abort', onAbort);
    const fail = (thrown: unknown): never => {
      // what the client or a drain ended says nothing of the node
      if (!stop.signal.aborted && isNodeFailure(thrown)) outcome = 'failed';
      throw stop.signal.aborted ? stop.signal.reason : thrown;
    };
    const answer = await node.client.open({ ...request, signal: stop.signal }).catch(fail);
    outcome = failures.has(answer.status) ? 'failed' : answer.status === 503 ? 'unknown' : 'ok';
    const answered = outcome === 'ok' ? attempt.answered : () => {};
    return { ...answer, chunks: watched(answer.chunks, answered, fail) };
  };
  const end = (): void => {
    detach();
    attempt.end(outcome);
  };
  return { open, end };
}

function watched(
  chunks: AsyncIterable<Buffer>,
  answered: () => void,
  fail: (thrown: unknown) => never,
): AsyncIterable<Buffer> {
  return {
    [Symbol.asyncIterator]: () => {
      const inner = chunks[Symbol.asyncIterator]();
      let isFirst = true;
      const next = (): Promise<IteratorResult<Buffer>> => {
        if (!isFirst) return inner.next().catch(fail);
        isFirst = false;
        return inner.next().then((result) => {
          answered();
          return result;
        }, fail);
      };
      return {
        next,
        return: async () => (await inner.return?.()) ?? { done: true as const, value: undefined },
      };
    },
  };
}

function isNodeFailure(thrown: unknown): boolean {
  return (
    thrown instanceof AppError &&
    (thrown.code === 'upstream_connection_error' || thrown.code === 'upstream_timeout')
  );
}
