/**
 * Several gateways may use one fleet, and each knows only its own leases. Before a model is unloaded the
 * neuron is asked whether others use it, and it is left alone while they do.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { NodeState } from './node-state.ts';

interface IdleDeps {
  readonly clock: Clock;
  /** A poll that began after this call. */
  readonly refresh: (node: NodeState) => Promise<void>;
}

const askEveryMs = 1000;
/** Others do not know that we wait, so their requests may never end. */
const waitMsMax = 30_000;

/** Resolves when the neuron tells of no request of others; rejects with a retryable error when that lasts. */
export async function idleEverywhere(
  node: NodeState,
  model: string,
  { clock, refresh }: IdleDeps,
  signal: AbortSignal,
): Promise<void> {
  const untilMs = clock.monotonicMs() + waitMsMax;
  for (;;) {
    await refresh(node);
    signal.throwIfAborted();
    if ((node.toView().models.get(model)?.foreignLoad ?? 0) === 0) return;
    if (clock.monotonicMs() >= untilMs) {
      const message = `"${model}" on ${node.name} is used by another gateway and was not evicted; try again`;
      throw new AppError('insufficient_vram', message, { retryAfterSecs: 5 });
    }
    await clock.sleep(askEveryMs, signal);
  }
}
