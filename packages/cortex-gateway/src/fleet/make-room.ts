/**
 * The evict half of a load. All victims of a plan drain first (they take no new request and keep those they
 * have) and only then is the first unloaded, so that nobody goes for a plan that fails. One that another
 * gateway uses at the last moment stays: the neuron says so. The node's memory is read again after each, so
 * one sufficient eviction is never followed by another. Limit: the time to drain.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { UseMark } from 'cortex-core/wire/neuron';
import type { Victim } from '../decide/eviction.ts';
import { causeOf } from './lifecycle-answer.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadJob } from './load-job.ts';
import { memoryBack } from './memory-back.ts';
import type { NodeState } from './node-state.ts';

/** Between two looks at a load of others, which no event of ours ends. */
const foreignTryMs = 1000;

/**
 * Drains and unloads the victims of one plan, in its order. Resolves with those that were still busy when
 * the time was over; then nobody was unloaded; or with the one that is in use again.
 */
export async function makeRoom(
  node: NodeState,
  job: LoadJob,
  victims: readonly Victim[],
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { cutAfter } = deps.drain;
  for (const each of victims) node.drain(each.model, true);
  try {
    job.state = 'draining';
    const busy = await drained(node, victims, deps, signal);
    if (busy.length > 0) {
      deps.log.warn('did not drain in time', {
        node: node.name,
        models: busy,
        for: job.model,
        cut: cutAfter,
      });
      if (!cutAfter) return busy;
    }
    if (job.waiters.size === 0 && !job.explicit) {
      throw new AppError('load_cancelled', `nobody waits for model "${job.model}" any more`);
    }
    job.state = 'unloading';
    for (const each of victims) {
      // what is cut goes in any case
      const since = busy.includes(each.model) ? null : (node.readUse(each.model)?.mark ?? null);
      if (!(await unload(node, each, since, deps, signal))) return [each.model];
      deps.onEvent({ kind: 'evicted', node: node.name, model: each.model, reason: 'room' });
      deps.log.info('evicted', { node: node.name, model: each.model, for: job.model });
    }
    if (job.turn !== null) {
      deps.onEvent({ kind: 'swapped', node: node.name, model: job.model, reason: job.turn });
    }
    return [];
  } finally {
    for (const each of victims) node.drain(each.model, false);
    deps.changed();
  }
}

/**
 * Unloads one drained model; used by evictions and by the admin API. `since`: not if others have used it
 * since it stood so; null = in any case. Resolves with whether it is gone.
 */
export async function unload(
  node: NodeState,
  victim: Victim,
  since: UseMark | null,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<boolean> {
  const freeMb = (): number | null => node.readFreeMb();
  const beforeMb = freeMb();
  node.setStatus(victim.model, victim.wireId, 'unloading');
  const body = { model_id: victim.wireId, ...(since === null ? {} : { unused_since: since }) };
  const answer = await node.client
    .postJson('/models/unload', body, deps.loadTimeoutMs, signal)
    .catch((cause) => {
      node.setStatus(victim.model, victim.wireId, 'unknown');
      throw cause;
    });
  if ((answer.status < 200 || answer.status > 299) && answer.status !== 404) {
    node.setStatus(victim.model, victim.wireId, 'loaded');
    if (causeOf(answer.body).code === 'model_in_use') {
      deps.log.info('used by another gateway, and stays', { node: node.name, model: victim.model });
      await deps.refresh(node);
      return false;
    }
    const message = `${node.name} refused to unload "${victim.model}": ${causeOf(answer.body).message}`;
    throw new AppError('cold_load_failed', message, { retryAfterSecs: 5 });
  }
  node.setStatus(victim.model, victim.wireId, 'available');
  node.loadCycles++;
  node.returning(victim.model, true);
  try {
    await memoryBack(node, { freeMb, beforeMb, freedMb: victim.vramMb }, deps, signal);
  } finally {
    node.returning(victim.model, false);
  }
  return true;
}

/** Waits until no victim answers any more, for the bound at most. Resolves with those that still do. */
async function drained(
  node: NodeState,
  victims: readonly Victim[],
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const late = new AbortController();
  const onAbort = (): void => late.abort(signal.reason);
  const timer = deps.clock.setTimer(deps.drain.timeoutMs, () => late.abort(new Error('drain timeout')));
  signal.addEventListener('abort', onAbort, { once: true });
  const wait = async ({ model }: Victim): Promise<string | null> => {
    try {
      // somebody else's load of it may be under way
      while (node.toView().models.get(model)?.status === 'loading') {
        await deps.clock.sleep(foreignTryMs, late.signal);
        await deps.refresh(node);
        late.signal.throwIfAborted();
      }
      await deps.idle(node, model, late.signal);
      return null;
    } catch (thrown) {
      if (signal.aborted || !(late.signal.aborted || isHeldByOthers(thrown))) throw thrown;
      return model;
    }
  };
  try {
    const busy = await Promise.all(victims.map(wait));
    return busy.filter((model): model is string => model !== null);
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', onAbort);
  }
}

/** Another gateway goes on using it. */
function isHeldByOthers(thrown: unknown): boolean {
  return thrown instanceof AppError && thrown.code === 'insufficient_vram';
}
