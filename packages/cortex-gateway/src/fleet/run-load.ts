/**
 * Carries out a load job: make room by plan, then load. The plan is made again at each step from the current
 * view, because every await may have changed the fleet.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
import type { ModelMove } from '../decide/defrag.ts';
import { considerNode, type Placement } from '../decide/placement.ts';
import { isAlreadyLoaded, loadError } from './lifecycle-answer.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadJob } from './load-job.ts';
import { makeRoom } from './make-room.ts';
import type { NodeState } from './node-state.ts';
import { doesNotDrain, doesNotStay } from './rejections.ts';
import { runMoves } from './run-moves.ts';
import { stopLoad } from './stop-load.ts';
import { watchLoad } from './watch-load.ts';

const roundsMax = 4;

export async function runLoad(
  node: NodeState,
  job: LoadJob,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  // the load before this one changed what the node has: its memory is read before more is promised
  if (node.isStale) await deps.refresh(node);
  const spared = new Set<string>();
  for (let round = 0; round < roundsMax; round++) {
    signal.throwIfAborted();
    const placement = planNow(node, job, deps, spared);
    if (placement === null) return;
    if (placement.moves !== undefined) {
      await moveAside(node, job, placement.moves, deps, signal);
      continue;
    }
    if (placement.evict.length === 0) return await load(node, job, placement, deps, signal);
    for (const busy of await makeRoom(node, job, placement.evict, deps, signal)) spared.add(busy);
  }
  throw new AppError('insufficient_vram', `${node.name} could not make room for "${job.model}"; try again`, {
    retryAfterSecs: 5,
  });
}

/** Room without an eviction. What fails is planned without moves in the next round. */
async function moveAside(
  node: NodeState,
  job: LoadJob,
  moves: readonly ModelMove[],
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  job.state = 'moving';
  try {
    await runMoves(node, moves, deps, signal);
  } catch (thrown) {
    if (signal.aborted) throw thrown;
    const { message, code } = toAppError(thrown);
    deps.log.warn('a move failed', { node: node.name, for: job.model, code, cause: message });
  }
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
  const status = nodeView.models.get(job.model)?.status;
  if (status === 'loaded') return null;
  const candidate = considerNode(view, nodeView, job.model, { explicit: job.explicit, spared });
  if (!('reason' in candidate)) {
    // another gateway loads it there: it has its room, and the neuron lets us attach
    if (status !== 'loading') return candidate.placement;
    const { moves: _, ...placement } = candidate.placement;
    return { ...placement, evict: [] };
  }
  if (spared.size > 0) throw doesNotDrain(job.model, node.name, [...spared]);
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
  if (signal.aborted) onAbort();
  const watch = watchLoad(node, job, deps, stop);
  try {
    const answer = await node.client.postJson('/models/load', spec, null, stop.signal);
    if (answer.status > 299) {
      if (!isAlreadyLoaded(answer.body))
        throw failed(node, job.model, loadError(node.name, job.model, answer), deps);
      if (node.isDoubted(job.model)) throw doesNotStay(job.model, node.name);
    }
    node.setDoubt('serves', job.model, null);
    deps.doubts.drop('loads', node, job.model);
    node.setStatus(job.model, spec.model_id, 'loaded', spec.devices ?? []);
    node.loadCycles++;
    const ms = deps.clock.monotonicMs() - startedMs;
    deps.onEvent({ kind: 'loaded', node: node.name, model: job.model, ms });
    deps.log.info('loaded', { node: node.name, model: job.model, ms: Math.round(ms) });
  } catch (thrown) {
    // a gateway that leaves takes no load with it: the neuron goes on, and the next gateway finds it
    if (stop.signal.aborted && !deps.closing.aborted) await stopLoad(node, spec.model_id, deps);
    node.setStatus(job.model, spec.model_id, 'failed');
    throw thrown;
  } finally {
    stop.abort();
    signal.removeEventListener('abort', onAbort);
    await watch;
  }
}

function failed(node: NodeState, model: string, error: AppError, { doubts }: LifecycleDeps): AppError {
  doubts.raise('loads', node, model, error.message);
  return error;
}
