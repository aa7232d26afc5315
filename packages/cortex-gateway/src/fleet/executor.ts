/**
 * Carries out a load: evict by plan, then load. The plan is made again at each step from the current view,
 * because every await may have changed the fleet. A victim drains first (it takes no new request and keeps
 * those it has); after each unload the node's memory is read again, so one sufficient eviction is never
 * followed by another.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import { AppError, type ErrorCode, errorCatalogue } from 'cortex-core/wire/errors';
import { healthSchema, type ModelSpec } from 'cortex-core/wire/neuron';
import type { Victim } from '../decide/eviction.ts';
import type { FleetView } from '../decide/fleet-view.ts';
import { considerNode, type Placement } from '../decide/placement.ts';
import type { LoadJob } from './load-job.ts';
import type { NodeState } from './node-state.ts';

export type FleetEvent =
  | { readonly kind: 'loaded'; readonly node: string; readonly model: string; readonly ms: number }
  | { readonly kind: 'evicted'; readonly node: string; readonly model: string };

export interface ExecutorDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly loadTimeoutMs: number;
  readonly view: () => FleetView;
  /** A poll that began after this call. */
  readonly refresh: (node: NodeState) => Promise<void>;
  /** Resolves when no request of ours holds the model. */
  readonly idle: (node: NodeState, model: string, signal: AbortSignal) => Promise<void>;
  /** States changed: waiting requests may decide again. */
  readonly changed: () => void;
  readonly onEvent: (event: FleetEvent) => void;
}

const roundsMax = 4;
const progressEveryMs = 1000;
const memoryTriesMax = 20;
const memoryTryMs = 250;

export async function executeLoad(
  node: NodeState,
  job: LoadJob,
  deps: ExecutorDeps,
  signal: AbortSignal,
): Promise<void> {
  for (let round = 0; round < roundsMax; round++) {
    const placement = planNow(node, job, deps);
    if (placement === null) return;
    const [victim] = placement.evict;
    if (victim === undefined) return await load(node, job, placement, deps, signal);
    for (const each of placement.evict) node.drain(each.model, true);
    try {
      for (const each of placement.evict) {
        job.state = 'draining';
        await deps.idle(node, each.model, signal);
        job.state = 'unloading';
        await unload(node, each, deps, signal);
        deps.onEvent({ kind: 'evicted', node: node.name, model: each.model });
        deps.log.info('evicted', { node: node.name, model: each.model, for: job.model });
      }
    } finally {
      for (const each of placement.evict) node.drain(each.model, false);
      deps.changed();
    }
  }
  throw new AppError('insufficient_vram', `${node.name} could not make room for "${job.model}"; try again`, {
    retryAfterSecs: 5,
  });
}

/** Drains and unloads one model; used by evictions and by the admin API. */
export async function unload(
  node: NodeState,
  victim: Victim,
  deps: ExecutorDeps,
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

function planNow(node: NodeState, job: LoadJob, deps: ExecutorDeps): Placement | null {
  const view = deps.view();
  const nodeView = view.nodes.find((each) => each.name === node.name);
  if (nodeView === undefined) throw new AppError('node_unhealthy', `${node.name} is no longer in the fleet`);
  if (nodeView.models.get(job.model)?.status === 'loaded') return null;
  const candidate = considerNode(view, nodeView, job.model, job.explicit);
  if (!('reason' in candidate)) return candidate.placement;
  const code = candidate.unhealthy ? 'node_unhealthy' : 'no_feasible_node';
  throw new AppError(code, `model "${job.model}" cannot be loaded: ${candidate.reason}`, {
    ...(candidate.unhealthy ? { retryAfterSecs: 3 } : {}),
  });
}

async function load(
  node: NodeState,
  job: LoadJob,
  placement: Placement,
  deps: ExecutorDeps,
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
    deps.refresh(node).catch(() => {});
  }
}

/** Reads percent and time left while a load runs, and gives up when neither moved for the load timeout. */
async function watchProgress(
  node: NodeState,
  job: LoadJob,
  deps: ExecutorDeps,
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
function stopLoad(node: NodeState, spec: ModelSpec, deps: ExecutorDeps): void {
  node.client
    .postJson('/models/unload', { model_id: spec.model_id }, 5000)
    .catch((cause) => deps.log.warn('could not stop a load', { node: node.name, cause: String(cause) }));
}

/** A driver shows freed memory late: wait for half of it at least, then go on. */
async function memoryBack(
  node: NodeState,
  beforeMb: number | null,
  sizeMb: number,
  deps: ExecutorDeps,
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

function isAlreadyLoaded(body: unknown): boolean {
  return causeOf(body).message.includes('already loaded');
}

function loadError(node: string, model: string, answer: { status: number; body: unknown }): AppError {
  const { code, message } = causeOf(answer.body);
  const known = code !== null && code in errorCatalogue ? (code as ErrorCode) : 'cold_load_failed';
  const retryable = errorCatalogue[known].retryable;
  return new AppError(known, `loading "${model}" on ${node} failed: ${message}`, {
    ...(retryable ? { retryAfterSecs: 5 } : {}),
  });
}

/** The lifecycle API says `{"error": text | {kind, ...}, code?}`. */
function causeOf(body: unknown): { code: string | null; message: string } {
  if (typeof body !== 'object' || body === null || !('error' in body))
    return { code: null, message: 'no reason given' };
  const code = 'code' in body && typeof body.code === 'string' ? body.code : null;
  const { error } = body;
  if (typeof error === 'string') return { code, message: error.slice(0, 600) };
  if (typeof error !== 'object' || error === null) return { code, message: 'no reason given' };
  const kind = 'kind' in error ? String(error.kind) : 'code' in error ? String(error.code) : code;
  const text = 'message' in error ? String(error.message) : JSON.stringify(error);
  return { code: kind, message: text.slice(0, 600) };
}
