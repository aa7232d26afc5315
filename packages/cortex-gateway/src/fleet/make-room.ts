/**
 * The evict half of a load: a victim drains first (it takes no new request and keeps those it has), is
 * unloaded, and the node's memory is read again, so one sufficient eviction is never followed by another.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { Victim } from '../decide/eviction.ts';
import { causeOf } from './lifecycle-answer.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadJob } from './load-job.ts';
import type { NodeState } from './node-state.ts';

const memoryTriesMax = 20;
const memoryTryMs = 250;

/** Drains and unloads the victims of one plan, in its order. */
export async function makeRoom(
  node: NodeState,
  job: LoadJob,
  victims: readonly Victim[],
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  for (const each of victims) node.drain(each.model, true);
  try {
    for (const each of victims) {
      job.state = 'draining';
      await deps.idle(node, each.model, signal);
      job.state = 'unloading';
      await unload(node, each, deps, signal);
      deps.onEvent({ kind: 'evicted', node: node.name, model: each.model });
      deps.log.info('evicted', { node: node.name, model: each.model, for: job.model });
    }
  } finally {
    for (const each of victims) node.drain(each.model, false);
    deps.changed();
  }
}

/** Unloads one drained model; used by evictions and by the admin API. */
export async function unload(
  node: NodeState,
  victim: Victim,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  const before = freeMbOf(node);
  node.setStatus(victim.model, victim.wireId, 'unloading');
  const body = { model_id: victim.wireId };
  const answer = await node.client
    .postJson('/models/unload', body, deps.loadTimeoutMs, signal)
    .catch((cause) => {
      node.setStatus(victim.model, victim.wireId, 'unknown');
      throw cause;
    });
  if ((answer.status < 200 || answer.status > 299) && answer.status !== 404) {
    node.setStatus(victim.model, victim.wireId, 'loaded');
    const message = `${node.name} refused to unload "${victim.model}": ${causeOf(answer.body).message}`;
    throw new AppError('cold_load_failed', message, { retryAfterSecs: 5 });
  }
  node.setStatus(victim.model, victim.wireId, 'available');
  node.loadCycles++;
  await memoryBack(node, before, victim.vramMb, deps, signal);
}

/** A driver shows freed memory late: wait for half of it at least, then go on. */
async function memoryBack(
  node: NodeState,
  beforeMb: number | null,
  sizeMb: number,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  for (let i = 0; i < memoryTriesMax; i++) {
    await deps.refresh(node);
    const free = freeMbOf(node);
    if (beforeMb === null || free === null || free >= beforeMb + sizeMb / 2) return;
    await deps.clock.sleep(memoryTryMs, signal);
  }
}

function freeMbOf(node: NodeState): number | null {
  const readings = node.health?.devices.map((device) => device.vram_free_mb) ?? [];
  if (readings.length === 0) return null;
  return readings.reduce<number | null>((sum, mb) => (sum === null || mb === null ? null : sum + mb), 0);
}
