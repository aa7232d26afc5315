/**
 * One load job per model and node; requests attach to it and may leave. A job begins when its turn comes
 * (`NodeTurns`), and its waiters get their leases before the node's next job begins. Limit: one lifecycle
 * operation at a time per node.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
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
import { stopLoad } from './stop-load.ts';

export interface LoadJobsOptions {
  readonly deps: LifecycleDeps;
  readonly node: (name: string) => NodeState | undefined;
  readonly rules: () => TurnRules;
  /** `error`: null, or why the load failed. Called before the node's next job begins. */
  readonly onEnded: (job: LoadJob, waiters: readonly Waiter[], error: unknown) => void;
}

export class LoadJobs {
  readonly #options: LoadJobsOptions;
  readonly #jobs = new Map<string, LoadJob>();
  readonly #queues = new NodeQueues();
  readonly #turns: NodeTurns;
  /** Queues in which a job runs, or what it left is not read yet. */
  readonly #busy = new Set<string>();

  constructor(options: LoadJobsOptions) {
    this.#options = options;
    const { deps, rules } = options;
    this.#turns = new NodeTurns({
      clock: deps.clock,
      rules,
      view: deps.view,
      queued: (name) => (this.#busy.has(this.#queueOf(name)) ? null : this.on(name)),
      begin: (job, reason) => this.#begin(job, reason),
      held: (name, untilMs) => this.#options.node(name)?.setTurn(untilMs),
    });
    deps.closing.addEventListener('abort', () => this.#close(), { once: true });
  }

  find(node: string, model: string): LoadJob | null {
    return this.#jobs.get(keyOf(node, model)) ?? null;
  }

  /**
   * The job for that model on that node: the one there is, or a new one; null = nobody waits for it. It
   * begins when its turn comes, maybe at once.
   */
  start(name: string, model: string, waiter: Waiter | null): LoadJob {
    const job = this.find(name, model) ?? this.#add(name, model);
    if (waiter !== null) job.waiters.add(waiter);
    this.consider(name);
    return job;
  }

  /** Something changed on that node: a turn may have come. */
  consider(name: string): void {
    this.#turns.consider(name);
  }

  /** When a load of that model would begin there, in words; null = at once, or it has begun. */
  outlook(name: string, model: string): string | null {
    const job = this.find(name, model);
    return job !== null && job.turn !== null ? null : this.#turns.outlook(name, model);
  }

  /** A job that has not begun and that nobody wants any more is dropped; one that runs goes on. */
  leave(waiter: Waiter): void {
    for (const [key, job] of this.#jobs) {
      if (!job.waiters.delete(waiter)) continue;
      if (job.waiters.size > 0 || job.explicit || job.state !== 'queued') continue;
      if (job.turn !== null && this.#queues.isHead(this.#queueOf(job.node))) continue;
      job.stop.abort(new AppError('load_cancelled', `nobody waits for "${job.model}" any more`));
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
    const state = progress?.phase ?? job?.state ?? 'loading';
    return { node: node.name, state, percent: progress?.percent ?? null, eta: progress?.eta_secs ?? null };
  }

  /** Because a person asked. Resolves when the model is up. */
  load(name: string, model: string): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const { closing } = this.#options.deps;
      if (closing.aborted) return reject(closing.reason);
      const job = this.find(name, model) ?? this.#add(name, model);
      job.explicit = true;
      job.listeners.push((error) => (error === null ? resolve() : reject(error)));
      this.consider(name);
    });
  }

  /** Loads of that node, whatever they wait for. */
  on(name: string): readonly LoadJob[] {
    return [...this.#jobs.values()].filter((job) => job.node === name);
  }

  /** Ends the loads that wait for their turn there; the one that runs goes on. */
  dropQueued(name: string, cause: (model: string) => AppError): void {
    for (const job of this.on(name)) {
      if (job.state !== 'queued') continue;
      job.stop.abort(cause(job.model));
      this.#end(job, job.stop.signal.reason);
    }
  }

  /** The node left the fleet: its waiters go elsewhere at once. What runs may end at the neuron. */
  dropAll(name: string, cause: (model: string) => AppError): void {
    this.dropQueued(name, cause);
    for (const job of this.on(name)) this.#end(job, cause(job.model));
  }

  /**
   * The node has another address: what is wanted there is loaded there. What the old one still does for it
   * ends, but for a load that runs: the neuron behind it may be the same.
   */
  restart(name: string, cause: (model: string) => AppError): void {
    for (const job of this.on(name)) {
      const { model, waiters, explicit, listeners, stop } = job;
      if (stop.signal.aborted) {
        this.#end(job, stop.signal.reason);
        continue;
      }
      this.#jobs.delete(keyOf(name, model));
      const next = this.#add(name, model);
      next.explicit = explicit;
      next.listeners.push(...listeners);
      for (const waiter of waiters) next.waiters.add(waiter);
      waiters.clear();
      if (job.state !== 'loading') stop.abort(cause(model));
    }
    this.consider(name);
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
    this.consider(node.name);
    deps.log.info('load cancelled', { node: node.name, model });
    return true;
  }

  /** Drains and unloads, after all that was queued for the node before. */
  unload(node: NodeState, model: string): Promise<void> {
    return this.#queues.run(this.#queueOf(node.name), () => this.#unloadOn(node, model, 'asked'));
  }

  /** Unloads what `isUnused` when the node has time for it; a request that came meanwhile keeps it. */
  unloadIdle(node: NodeState, model: string, isUnused: () => boolean): Promise<void> {
    return this.#queues.run(this.#queueOf(node.name), async () => {
      if (isUnused()) await this.#unloadOn(node, model, 'ttl', isUnused);
    });
  }

  /** Runs work when no other lifecycle operation of that node runs, after what was queued before. */
  exclusive(name: string, work: () => Promise<void>): Promise<void> {
    return this.#queues.run(this.#queueOf(name), work);
  }

  #add(node: string, model: string): LoadJob {
    const job: LoadJob = {
      ...{ node, model },
      explicit: false,
      state: 'queued',
      turn: null,
      stop: new AbortController(),
      waiters: new Set(),
      listeners: [],
    };
    this.#jobs.set(keyOf(node, model), job);
    this.#showPending(node);
    return job;
  }

  /** What has not begun never will: whoever asked for it hears so. What runs hears it itself. */
  #close(): void {
    this.#turns.close();
    const { reason } = this.#options.deps.closing;
    const asked = [...this.#jobs.values()].filter((job) => job.explicit && job.turn === null);
    for (const job of asked) this.#end(job, reason);
  }

  #begin(job: LoadJob, reason: TurnReason): void {
    const queue = this.#queueOf(job.node);
    job.turn = reason;
    this.#busy.add(queue);
    this.#showPending(job.node);
    this.#queues
      .run(queue, () => this.#run(job))
      .catch(() => {})
      .finally(() => {
        this.#busy.delete(queue);
        this.consider(job.node);
      });
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
    // the next plan is made on the memory that this load left
    if (!deps.closing.aborted) await deps.refresh(node).catch(() => {});
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

  #showPending(name: string): void {
    const begun = (job: LoadJob): number => Number(job.turn !== null);
    const jobs = [...this.on(name)].sort((a, b) => begun(b) - begun(a));
    const models = jobs.map((job) => job.model);
    this.#options.node(name)?.setPending(models, (model) => this.find(name, model)?.waiters.size ?? 0);
  }

  /** `isUnused`: asked when the neuron has told of the others; absent = they are waited for, and it goes. */
  async #unloadOn(
    node: NodeState,
    model: string,
    reason: EvictionReason,
    isUnused?: () => boolean,
  ): Promise<void> {
    const { deps } = this.#options;
    if (isUnused !== undefined) {
      await deps.refresh(node);
      if (!isUnused()) return;
    }
    const held = node.toView().models.get(model);
    if (held?.status !== 'loaded') return;
    node.drain(model, true);
    try {
      if (isUnused === undefined) await deps.idle(node, model, deps.closing);
      const since = isUnused === undefined ? null : (node.readUse(model)?.mark ?? null);
      const victim = { model, wireId: held.wireId, vramMb: sizeOf(deps.view(), held) };
      if (!(await unload(node, victim, since, deps, deps.closing))) return;
      deps.onEvent({ kind: 'evicted', node: node.name, model, reason });
      deps.log.info('unloaded', { node: node.name, model, reason });
    } finally {
      node.drain(model, false);
      deps.changed();
      this.consider(node.name);
    }
  }
}
