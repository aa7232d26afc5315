/**
 * Carries out a load job: make room by plan, then load. The plan is made again at each step from the current
 * view, because every await may have changed the fleet.
 */
import { AppError } from 'cortex-core/wire/errors';
import { healthSchema, type ModelSpec } from 'cortex-core/wire/neuron';
import { considerNode, type Placement } from '../decide/placement.ts';
import { isAlreadyLoaded, loadError } from './lifecycle-answer.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadJob } from './load-job.ts';
import { makeRoom } from './make-room.ts';
import type { NodeState } from './node-state.ts';
import { doesNotDrain } from './rejections.ts';

const roundsMax = 4;
const progressEveryMs = 1000;

export async function runLoad(
  node: NodeState,
  job: LoadJob,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  const spared = new Set<string>();
  for (let round = 0; round < roundsMax; round++) {
    const placement = planNow(node, job, deps, spared);
    if (placement === null) return;
    if (placement.evict.length === 0) return await load(node, job, placement, deps, signal);
    for (const busy of await makeRoom(node, job, placement.evict, deps, signal)) spared.add(busy);
  }
  throw new AppError('insufficient_vram', `${node.name} could not make room for "${job.model}"; try again`, {
    retryAfterSecs: 5,
  });
}

/** `spared`: victims of an earlier plan that did not drain in time. */
function planNow(
  node: NodeState,
  job: LoadJob,
  deps: LifecycleDeps,
  spared: ReadonlySet<string>,
): Placement | null {
  const view = deps.view();
  const nodeView = view.nodes.find((each) => each.name === node.name);
  if (nodeView === undefined) throw new AppError('node_unhealthy', `${node.name} is no longer in the fleet`);
  if (nodeView.models.get(job.model)?.status === 'loaded') return null;
  const candidate = considerNode(view, nodeView, job.model, job.explicit, spared);
  if (!('reason' in candidate)) return candidate.placement;
  if (spared.size > 0) throw doesNotDrain(job.model, node.name, [...spared], deps.drain.timeoutMs);
  const code = candidate.unhealthy ? 'node_unhealthy' : 'no_feasible_node';
  throw new AppError(code, `model "${job.model}" cannot be loaded: ${candidate.reason}`, {
    ...(candidate.unhealthy ? { retryAfterSecs: 3 } : {}),
  });
}

async function load(
  node: NodeState,
  job: LoadJob,
  placement: Placement,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  const { spec } = placement;
  const startedMs = deps.clock.monotonicMs();
  job.state = 'loading';
  node.setStatus(job.model, spec.model_id, 'loading');
  const stop = new AbortController();
  const onAbort = (): void => stop.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const watch = watchProgress(node, job, deps, stop);
  try {
    const answer = await node.client.postJson('/models/load', spec, null, stop.signal);
    if (answer.status > 299 && !isAlreadyLoaded(answer.body)) throw loadError(node.name, job.model, answer);
    node.setStatus(job.model, spec.model_id, 'loaded', spec.devices ?? []);
    node.loadCycles++;
    const ms = deps.clock.monotonicMs() - startedMs;
    deps.onEvent({ kind: 'loaded', node: node.name, model: job.model, ms });
    deps.log.info('loaded', { node: node.name, model: job.model, ms: Math.round(ms) });
  } catch (thrown) {
    node.setStatus(job.model, spec.model_id, 'failed');
    if (stop.signal.aborted) stopLoad(node, spec, deps);
    throw thrown;
  } finally {
    stop.abort();
    signal.removeEventListener('abort', onAbort);
    await watch;
  }
}

/** Reads percent and time left while a load runs, and gives up when neither moved for the load timeout. */
async function watchProgress(
  node: NodeState,
  job: LoadJob,
  deps: LifecycleDeps,
  stop: AbortController,
): Promise<void> {
  let movedMs = deps.clock.monotonicMs();
  let last = '';
  while (!stop.signal.aborted) {
    try {
      await deps.clock.sleep(progressEveryMs, stop.signal);
      const health = await node.client.getJson('/health', 5000, stop.signal);
      node.ingestHealth(healthSchema.parse(health));
    } catch {
      // a load may keep a neuron too busy to answer: the deadline below decides
    }
    const progress = node.progressOf(job.model);
    const now = progress === null ? '' : `${progress.phase} ${progress.percent} ${progress.bytes_done}`;
    if (now !== last) movedMs = deps.clock.monotonicMs();
    last = now;
    if (deps.clock.monotonicMs() - movedMs < deps.loadTimeoutMs) continue;
    const secs = Math.round(deps.loadTimeoutMs / 1000);
    const message = `loading "${job.model}" on ${node.name} made no progress for ${secs} s and was stopped`;
    stop.abort(new AppError('cold_load_failed', message, { retryAfterSecs: 30 }));
  }
}

/** The loader that nobody waits for any more must not go on taking memory. */
function stopLoad(node: NodeState, spec: ModelSpec, deps: LifecycleDeps): void {
  node.client
    .postJson('/models/unload', { model_id: spec.model_id }, 5000)
    .catch((cause) => deps.log.warn('could not stop a load', { node: node.name, cause: String(cause) }));
}
