/**
 * One load job per model and node; requests attach to it and may leave. A job's waiters get their leases
 * before the node's next job begins. Limit: one lifecycle operation at a time per node.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
import { sizeOf } from '../decide/eviction.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadJob, LoadStatus, Waiter } from './load-job.ts';
import { unload } from './make-room.ts';
import { NodeQueues } from './node-queues.ts';
import type { NodeState } from './node-state.ts';
import { keyOf } from './rejections.ts';
import { runLoad } from './run-load.ts';
import { stopLoad } from './stop-load.ts';

export interface LoadJobsOptions {
  readonly deps: LifecycleDeps;
  readonly node: (name: string) => NodeState | undefined;
  /** `error`: null, or why the load failed. Called before the node's next job begins. */
  readonly onEnded: (job: LoadJob, waiters: readonly Waiter[], error: unknown) => void;
}

export class LoadJobs {
  readonly #options: LoadJobsOptions;
  readonly #jobs = new Map<string, LoadJob>();
  readonly #queues = new NodeQueues();

  constructor(options: LoadJobsOptions) {
    this.#options = options;
  }

  find(node: string, model: string): LoadJob | null {
    return this.#jobs.get(keyOf(node, model)) ?? null;
  }

  /** The job for that model on that node: the running one, or a new one at the end of the node's queue. */
  start(name: string, model: string): LoadJob {
    const existing = this.find(name, model);
    if (existing !== null) return existing;
    const job: LoadJob = {
      node: name,
      model,
      explicit: false,
      state: 'queued',
      stop: new AbortController(),
      waiters: new Set(),
      listeners: [],
    };
    this.#jobs.set(keyOf(name, model), job);
    this.#showPending(name);
    this.#queues.run(this.#queueOf(name), () => this.#run(job)).catch(() => {});
    return job;
  }

  /** A queued job that nobody wants any more is dropped; one that runs goes on. */
  leave(waiter: Waiter): void {
    for (const [key, job] of this.#jobs) {
      if (!job.waiters.delete(waiter)) continue;
      if (job.waiters.size > 0 || job.explicit || job.state !== 'queued') continue;
      if (this.#queues.isHead(this.#queueOf(job.node))) continue;
      job.stop.abort(new AppError('load_cancelled', `nobody waits for "${job.model}" any more`));
      this.#jobs.delete(key);
      this.#showPending(job.node);
    }
  }

  /** What is known of a model that comes up on that node; null when none does. */
  statusOn(node: NodeState, model: string): LoadStatus | null {
    const job = this.find(node.name, model);
    const progress = node.progressOf(model);
    if (job === null && progress === null) return null;
    const state = progress?.phase ?? job?.state ?? 'loading';
    return { node: node.name, state, percent: progress?.percent ?? null, eta: progress?.eta_secs ?? null };
  }

  /** Because a person asked. Resolves when the model is up. */
  load(name: string, model: string): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const job = this.start(name, model);
      job.explicit = true;
      job.listeners.push((error) => (error === null ? resolve() : reject(error)));
    });
  }

  /** Ends the loads that wait for their turn there; the one that runs goes on. */
  dropQueued(name: string, cause: (model: string) => AppError): void {
    for (const job of this.#on(name)) {
      if (job.state !== 'queued') continue;
      job.stop.abort(cause(job.model));
      this.#end(job, job.stop.signal.reason);
    }
  }

  /** The node left the fleet: its waiters go elsewhere at once. What runs may end at the neuron. */
  dropAll(name: string, cause: (model: string) => AppError): void {
    this.dropQueued(name, cause);
    for (const job of this.#on(name)) this.#end(job, cause(job.model));
  }

  /**
   * Stops that load wherever it stands; its waiters hear `load_cancelled`. Resolves when it has ended, with
   * false when there was none.
   */
  async cancel(node: NodeState, model: string): Promise<boolean> {
    const { deps } = this.#options;
    const job = this.find(node.name, model);
    if (job === null) {
      const foreign = node.progressOf(model);
      if (foreign === null) return false;
      await stopLoad(node, foreign.model_id, deps);
      deps.refresh(node).catch(() => {});
      return true;
    }
    const cancelled = new AppError('load_cancelled', `the load of "${model}" on ${node.name} was cancelled`);
    const ended = new Promise<void>((resolve) => job.listeners.push(() => resolve()));
    const wasQueued = job.state === 'queued';
    job.stop.abort(cancelled);
    // one that does nothing yet ends at once, and its turn passes
    if (wasQueued) this.#end(job, cancelled);
    await ended;
    deps.log.info('load cancelled', { node: node.name, model });
    return true;
  }

  /** Drains and unloads, after all that was queued for the node before. */
  unload(node: NodeState, model: string): Promise<void> {
    return this.#queues.run(this.#queueOf(node.name), () => this.#unloadOn(node, model));
  }

  /** Runs work when no other lifecycle operation of that node runs, after what was queued before. */
  exclusive(name: string, work: () => Promise<void>): Promise<void> {
    return this.#queues.run(name, work);
  }

  async #run(job: LoadJob): Promise<void> {
    const { deps } = this.#options;
    const node = this.#options.node(job.node);
    if (node === undefined || this.find(job.node, job.model) !== job) return;
    let error: unknown = null;
    const onClose = (): void => job.stop.abort(deps.closing.reason);
    deps.closing.addEventListener('abort', onClose, { once: true });
    if (deps.closing.aborted) onClose();
    try {
      await runLoad(node, job, deps, job.stop.signal);
    } catch (thrown) {
      error = thrown;
      const { message, code } = toAppError(thrown);
      deps.log.warn('load failed', { node: job.node, model: job.model, code, cause: message });
    } finally {
      deps.closing.removeEventListener('abort', onClose);
    }
    this.#end(job, error);
  }

  #end(job: LoadJob, error: unknown): void {
    const key = keyOf(job.node, job.model);
    if (this.#jobs.get(key) !== job) return;
    this.#jobs.delete(key);
    this.#showPending(job.node);
    const waiters = [...job.waiters];
    job.waiters.clear();
    this.#options.onEnded(job, waiters, error);
    for (const listener of job.listeners) listener(error);
    this.#options.deps.changed();
  }

  /** A node that moved to another address does not wait for what its old one still does. */
  #queueOf(name: string): string {
    return `${name} ${this.#options.node(name)?.endpoint ?? ''}`;
  }

  #on(name: string): LoadJob[] {
    return [...this.#jobs.values()].filter((job) => job.node === name);
  }

  #showPending(name: string): void {
    const models = this.#on(name).map((job) => job.model);
    this.#options.node(name)?.setPending(models, (model) => this.find(name, model)?.waiters.size ?? 0);
  }

  async #unloadOn(node: NodeState, model: string): Promise<void> {
    const { deps } = this.#options;
    const held = node.toView().models.get(model);
    if (held?.status !== 'loaded') return;
    node.drain(model, true);
    try {
      await deps.idle(node, model, deps.closing);
      const victim = { model, wireId: held.wireId, vramMb: sizeOf(deps.view(), held) };
      await unload(node, victim, deps, deps.closing);
    } finally {
      node.drain(model, false);
      deps.changed();
    }
  }
}
