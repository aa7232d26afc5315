/**
 * When a node is defragmented: by hand, or by itself once its devices are worn and nobody waits. (A load that
 * only fragments keep out makes its moves itself: run-load.ts.) The plan is made again when the node's
 * turn comes, in the tick in which it begins. Limits: one at a time per node, with the node's other lifecycle
 * work; by itself at most every `restMs`.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
import { cyclesOf, type DefragPlan, isIdle, planDefrag } from '../decide/defrag.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { NodeState } from './node-state.ts';
import { runMoves, runRecycle } from './run-moves.ts';

export interface DefragmenterOptions {
  readonly deps: LifecycleDeps;
  /** Runs work when no other lifecycle operation of that node runs. */
  readonly exclusive: (node: string, work: () => Promise<void>) => Promise<void>;
  readonly closing: AbortSignal;
  /** Unloads of a node after which it is done by itself; 0 = never. */
  readonly afterCycles: () => number;
  readonly waiting: () => number;
}

export interface DefragReport {
  readonly plan: DefragPlan;
  /** Steps that were carried out. */
  readonly moved: number;
  readonly recycled: number;
  /** Models that a fresh owner did not get back, and that are being loaded again. */
  readonly reloading: readonly string[];
  /** Why it ended before its last step; null = it did not. */
  readonly error: string | null;
}

const restMs = 5 * 60_000;

export class Defragmenter {
  readonly #options: DefragmenterOptions;
  readonly #restUntilMs = new WeakMap<NodeState, number>();
  readonly #running = new Set<NodeState>();

  constructor(options: DefragmenterOptions) {
    this.#options = options;
  }

  /** What would be done now. */
  plan(node: NodeState, model: string | null): DefragPlan {
    return planDefrag(this.#options.deps.view(), node.toView(), { model, wornAfter: 1 });
  }

  /** Because a person asked: also waits for requests that run. Never rejects but for a stop. */
  async run(node: NodeState, model: string | null): Promise<DefragReport> {
    let report: DefragReport | null = null;
    await this.#options.exclusive(node.name, async () => {
      report = await this.#execute(node, this.plan(node, model));
    });
    if (report === null) throw new AppError('shutting_down', 'the gateway is shutting down');
    return report;
  }

  /** Begins one where it is due and disturbs nobody. */
  onPolled(node: NodeState): void {
    const { deps, exclusive, closing } = this.#options;
    const afterCycles = this.#options.afterCycles();
    const nowMs = deps.clock.monotonicMs();
    if (node.movesBarredUntilMs !== null && node.movesBarredUntilMs <= nowMs) node.movesBarredUntilMs = null;
    if (afterCycles === 0 || closing.aborted || this.#running.has(node)) return;
    if (nowMs < (this.#restUntilMs.get(node) ?? 0) || this.#idlePlan(node) === null) return;
    this.#running.add(node);
    exclusive(node.name, async () => {
      const plan = this.#idlePlan(node);
      if (plan === null) return;
      this.#restUntilMs.set(node, deps.clock.monotonicMs() + restMs);
      const { moved, recycled, error } = await this.#execute(node, plan);
      deps.log.info('defragmented', { node: node.name, why: plan.why, moved, recycled, error });
    })
      .catch((cause) => deps.log.warn('defragmentation failed', { node: node.name, cause: String(cause) }))
      .finally(() => this.#running.delete(node));
  }

  /** Null: it is not due, or someone would wait for it. */
  #idlePlan(node: NodeState): DefragPlan | null {
    const { waiting } = this.#options;
    const afterCycles = this.#options.afterCycles();
    const nodeView = node.toView();
    if (!nodeView.healthy || cyclesOf(nodeView) < afterCycles) return null;
    if (waiting() > 0 || nodeView.pending.length > 0) return null;
    const wornAfter = Math.ceil(afterCycles / Math.max(1, nodeView.devices.length));
    const plan = planDefrag(this.#options.deps.view(), nodeView, { model: null, wornAfter });
    const concerned = plan.recycle.flatMap(({ models }) => models);
    const isQuiet = concerned.every((id) => {
      const model = nodeView.models.get(id);
      return model === undefined || isIdle(nodeView, model);
    });
    return isQuiet && plan.moves.length + plan.recycle.length > 0 ? plan : null;
  }

  async #execute(node: NodeState, plan: DefragPlan): Promise<DefragReport> {
    const { deps, closing } = this.#options;
    let moved = 0;
    let recycled = 0;
    const reloading: string[] = [];
    try {
      if (plan.moves.length > 0) await runMoves(node, plan.moves, deps, closing);
      moved = plan.moves.length;
      for (const { device } of plan.recycle) {
        // the moves have changed who is where
        const models = this.#modelsOn(node, device);
        reloading.push(...(await runRecycle(node, { device, models, why: '' }, deps, closing)));
        recycled++;
      }
      return { plan, moved, recycled, reloading, error: null };
    } catch (thrown) {
      if (closing.aborted) throw thrown;
      const { message, code } = toAppError(thrown);
      deps.log.warn('defragmentation stopped', { node: node.name, code, cause: message });
      return { plan, moved, recycled, reloading, error: message };
    }
  }

  #modelsOn(node: NodeState, device: number): readonly string[] {
    const models = [...node.toView().models.values()];
    const here = models.filter(({ status, devices }) => status === 'loaded' && devices.includes(device));
    return here.filter(({ devices }) => devices.length === 1).map(({ id }) => id);
  }
}
