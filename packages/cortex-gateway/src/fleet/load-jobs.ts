/**
 * One load job per model and node; requests attach to it and may leave. A job begins when its turn comes
 * (`NodeTurns`), and its waiters get their leases before the node's next job begins. Limit: one lifecycle
 * operation at a time per node.
 */
import { toAppError } from 'cortex-core/wire/errors';
import type { Lookups } from '../decide/contenders.ts';
import { sizeOf } from '../decide/eviction.ts';
import type { TurnReason, TurnRules } from '../decide/turns.ts';
import type { EvictionReason, LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadJob, LoadStatus, Waiter } from './load-job.ts';
import { unload } from './make-room.ts';
import { NodeQueues } from './node-queues.ts';
import type { NodeState } from './node-state.ts';
import { NodeTurns } from './node-turns.ts';
import { keyOf } from './rejections.ts';
import { runLoad } from './run-load.ts';

export interface LoadJobsOptions {
  readonly deps: LifecycleDeps;
  readonly node: (name: string) => NodeState | undefined;
  readonly closing: AbortSignal;
  readonly rules: TurnRules;
  readonly lookups: Lookups;
  /** `error`: null, or why the load failed. Called before the node's next job begins. */
  readonly onEnded: (job: LoadJob, waiters: readonly Waiter[], error: unknown) => void;
}

export class LoadJobs {
  readonly #options: LoadJobsOptions;
  readonly #jobs = new Map<string, LoadJob>();
  readonly #queues = new NodeQueues();
  readonly #turns: NodeTurns;
  /** Nodes on which a job runs, or what it left is not read yet. */
  readonly #busy = new Set<string>();

  constructor(options: LoadJobsOptions) {
    this.#options = options;
    const { deps, rules, lookups } = options;
    this.#turns = new NodeTurns({
      clock: deps.clock,
      rules,
      lookups,
      view: deps.view,
      queued: (name) => this.#queued(name),
      begin: (job, reason) => this.#begin(job, reason),
    });
    options.closing.addEventListener('abort', () => this.#turns.close(), { once: true });
  }

  find(node: string, model: string): LoadJob | null {
    return this.#jobs.get(keyOf(node, model)) ?? null;
  }

  /**
   * Attaches a request to the job for that model on that node: the one there is, or a new one; without one
   * a person asked for it. It begins when its turn comes, maybe at once.
   */
  start(name: string, model: string, waiter: Waiter | null): LoadJob {
    const existing = this.find(name, model);
    if (existing !== null) {
      if (waiter === null) existing.explicit = true;
      else existing.waiters.add(waiter);
      this.consider(name);
      return existing;
    }
    const job: LoadJob = {
      node: name,
      model,
      explicit: waiter === null,
      state: 'queued',
      turn: null,
      waiters: new Set(waiter === null ? [] : [waiter]),
      listeners: [],
    };
    this.#jobs.set(keyOf(name, model), job);
    this.#showPending(name);
    this.consider(name);
    return job;
  }

  /** Something changed on that node: a turn may have come. */
  consider(name: string): void {
    this.#turns.consider(name);
  }

  /** A queued job that nobody wants any more is dropped; one that runs goes on. */
  leave(waiter: Waiter): void {
    for (const [key, job] of this.#jobs) {
      if (!job.waiters.delete(waiter)) continue;
      if (job.waiters.size > 0 || job.explicit || job.turn !== null) continue;
      this.#jobs.delete(key);
      this.#showPending(job.node);
      this.consider(job.node);
    }
  }

  /** What is known of a model that comes up on that node; null when none does. */
  statusOn(node: NodeState, model: string): LoadStatus | null {
    const job = this.find(node.name, model);
    const progress = node.progressOf(model);
    if (job === null && progress === null) return null;
    const state =
      job === null ? 'loading' : job.state === 'loading' ? (progress?.phase ?? 'loading') : job.state;
    return { node: node.name, state, percent: progress?.percent ?? null, eta: progress?.eta_secs ?? null };
  }

  /** Because a person asked. Resolves when the model is up. */
  load(name: string, model: string): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const job = this.start(name, model, null);
      job.listeners.push((error) => (error === null ? resolve() : reject(error)));
    });
  }

  /** Drains and unloads, after all that was queued for the node before. */
  unload(node: NodeState, model: string): Promise<void> {
    return this.#queues.run(node.name, () => this.#unloadOn(node, model, 'asked'));
  }

  /** Unloads what `isUnused` when the node has time for it; a request that came meanwhile keeps it. */
  unloadIdle(node: NodeState, model: string, isUnused: () => boolean): Promise<void> {
    return this.#queues.run(node.name, async () => {
      if (isUnused()) await this.#unloadOn(node, model, 'ttl');
    });
  }

  /** The jobs of a node that have not begun; null = one has. */
  #queued(name: string): readonly LoadJob[] | null {
    if (this.#busy.has(name)) return null;
    return [...this.#jobs.values()].filter((job) => job.node === name);
  }

  #begin(job: LoadJob, reason: TurnReason): void {
    job.turn = reason;
    this.#busy.add(job.node);
    this.#showPending(job.node);
    this.#queues
      .run(job.node, () => this.#run(job))
      .catch(() => {})
      .finally(() => {
        this.#busy.delete(job.node);
        this.consider(job.node);
      });
  }

  async #run(job: LoadJob): Promise<void> {
    const { deps, closing } = this.#options;
    const node = this.#options.node(job.node);
    if (node === undefined || this.find(job.node, job.model) !== job) return;
    let error: unknown = null;
    try {
      await runLoad(node, job, deps, closing);
    } catch (thrown) {
      error = thrown;
      const { message, code } = toAppError(thrown);
      deps.log.warn('load failed', { node: job.node, model: job.model, code, cause: message });
    }
    this.#end(job, error);
    // the next plan is made on the memory that this load left
    await deps.refresh(node).catch(() => {});
  }

  #end(job: LoadJob, error: unknown): void {
    this.#jobs.delete(keyOf(job.node, job.model));
    this.#showPending(job.node);
    const waiters = [...job.waiters];
    job.waiters.clear();
    this.#options.onEnded(job, waiters, error);
    for (const listener of job.listeners) listener(error);
    this.#options.deps.changed();
  }

  #showPending(name: string): void {
    const jobs = [...this.#jobs.values()].filter((job) => job.node === name);
    jobs.sort((a, b) => Number(b.turn !== null) - Number(a.turn !== null));
    this.#options.node(name)?.setPending(jobs.map((job) => job.model));
  }

  async #unloadOn(node: NodeState, model: string, reason: EvictionReason): Promise<void> {
    const { deps, closing } = this.#options;
    const held = node.toView().models.get(model);
    if (held?.status !== 'loaded') return;
    node.drain(model, true);
    try {
      await deps.idle(node, model, closing);
      const victim = { model, wireId: held.wireId, vramMb: sizeOf(deps.view(), held) };
      await unload(node, victim, deps, closing);
      deps.onEvent({ kind: 'evicted', node: node.name, model, reason });
      deps.log.info('unloaded', { node: node.name, model, reason });
    } finally {
      node.drain(model, false);
      deps.changed();
      this.consider(node.name);
    }
  }
}
