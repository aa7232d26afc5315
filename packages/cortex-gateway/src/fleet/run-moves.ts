/**
 * Carries out moves between the devices of a node, and fresh owners for its devices. Who moves takes no new
 * request: requests for it wait until it serves again. A neuron puts a model back that it could not move; one
 * that it lost on the way is loaded again.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { DeviceRecycled } from 'cortex-core/wire/neuron';
import type { ModelMove, Recycle } from '../decide/defrag.ts';
import { causeOf } from './lifecycle-answer.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import { memoryBack } from './memory-back.ts';
import type { NodeState } from './node-state.ts';

/** After a failed move its node plans none for so long: what refuses once refuses again. */
const movesBarredMs = 5 * 60_000;
const drainMsMax = 60_000;

/** Rejects at the first move that fails, when the node's state is known again; the rest is not tried. */
export async function runMoves(
  node: NodeState,
  moves: readonly ModelMove[],
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  const models = [...new Set(moves.map((move) => move.model))];
  await whileDrained(node, models, deps, signal, async () => {
    for (const move of moves) await runMove(node, move, deps, signal);
  });
}

/** Resolves with the models that the fresh owner has not: they are being loaded again. */
export async function runRecycle(
  node: NodeState,
  { device, models }: Recycle,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<readonly string[]> {
  return await whileDrained(node, models, deps, signal, async () => {
    const answer = await post(node, '/devices/recycle', { device }, deps, signal);
    await deps.refresh(node);
    if (answer.status > 299) {
      restore(node, models, deps);
      throw refused(node, `recycle device ${device}`, answer.body);
    }
    const { failed = [] } = answer.body as Partial<DeviceRecycled>;
    const lost = models.filter((id) => failed.includes(node.toView().models.get(id)?.wireId ?? id));
    for (const id of lost) deps.bringBack(node.name, id);
    deps.onEvent({ kind: 'recycled', node: node.name, device });
    deps.log.info('device recycled', { node: node.name, device, models: models.length, failed: lost });
    return lost;
  });
}

async function runMove(
  node: NodeState,
  move: ModelMove,
  deps: LifecycleDeps,
  signal: AbortSignal,
): Promise<void> {
  const { model, wireId, from, to, vramMb } = move;
  await deps.refresh(node);
  const freeMb = (): number | null => freeOn(node, from);
  const beforeMb = freeMb();
  try {
    const answer = await post(node, '/models/move', { model_id: wireId, devices: [to] }, deps, signal);
    if (answer.status > 299) throw refused(node, `move "${model}" to device ${to}`, answer.body);
  } catch (thrown) {
    node.movesBarredUntilMs = deps.clock.monotonicMs() + movesBarredMs;
    await deps.refresh(node);
    restore(node, [model], deps);
    throw thrown;
  }
  node.setStatus(model, wireId, 'loaded', [to]);
  deps.onEvent({ kind: 'moved', node: node.name, model });
  deps.log.info('model moved', { node: node.name, model, from, to });
  await memoryBack(node, { freeMb, beforeMb, freedMb: vramMb }, deps, signal);
}

/** Takes no new request for the models while `work` runs, which begins when the last one has ended. */
async function whileDrained<T>(
  node: NodeState,
  models: readonly string[],
  deps: LifecycleDeps,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const mine = models.filter((model) => !node.isDraining(model));
  const late = new AbortController();
  const timer = deps.clock.setTimer(drainMsMax, () => late.abort(stillBusy(node, models)));
  for (const model of mine) node.drain(model, true);
  try {
    const either = AbortSignal.any([signal, late.signal]);
    for (const model of models) await deps.idle(node, model, either);
    timer.cancel();
    return await work();
  } finally {
    timer.cancel();
    for (const model of mine) node.drain(model, false);
    deps.changed();
  }
}

function post(node: NodeState, path: string, body: unknown, deps: LifecycleDeps, signal: AbortSignal) {
  return node.client.postJson(path, body, deps.loadTimeoutMs, signal);
}

/** Called when the node was just asked: what it still has, or brings back itself, is left alone. */
function restore(node: NodeState, models: readonly string[], deps: LifecycleDeps): void {
  for (const model of models) {
    const status = node.toView().models.get(model)?.status;
    if (status === 'available' || status === 'failed') deps.bringBack(node.name, model);
  }
}

function freeOn(node: NodeState, device: number): number | null {
  return node.health?.devices.find((each) => each.index === device)?.vram_free_mb ?? null;
}

function refused(node: NodeState, what: string, body: unknown): AppError {
  const { message } = causeOf(body);
  return new AppError('cold_load_failed', `${node.name} could not ${what}: ${message}`, {
    retryAfterSecs: 5,
  });
}

function stillBusy(node: NodeState, models: readonly string[]): AppError {
  const busy = models.filter((model) => node.leasesOf(model) > 0).join(', ');
  const secs = drainMsMax / 1000;
  return new AppError('overloaded', `${busy} on ${node.name} still answers after ${secs} s; try again`, {
    retryAfterSecs: 30,
  });
}
