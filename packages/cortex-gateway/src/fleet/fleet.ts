/**
 * The only writer of fleet state.
 *
 * Problem: many requests, one fleet; a decision made on what was true a moment ago evicts a model under a
 * request or loads it twice. Design: a request asks once; `route` decides on the current view and the lease
 * is taken in the same tick. What cannot be served at once becomes a waiter that is attached to a load job,
 * or parked until a state changes, and then decides again. A job's waiters get their leases before the
 * node's next job begins. Limits: waiting requests, attempts per request, one load at a time per node.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
import { sizeOf } from '../decide/eviction.ts';
import { type FleetView, resolveAlias } from '../decide/fleet-view.ts';
import { type RouteDecision, route } from '../decide/route.ts';
import { type ExecutorDeps, executeLoad, unload } from './executor.ts';
import type { FleetOptions, Ticket } from './fleet-options.ts';
import { IdleWaits } from './idle-waits.ts';
import type { Lease } from './lease.ts';
import type { LoadJob, LoadStatus, Waiter } from './load-job.ts';
import { NodeQueues } from './node-queues.ts';
import type { NodeState } from './node-state.ts';
import { Poller } from './poller.ts';
import { doesNotStay, keyOf, shuttingDown, toError } from './rejections.ts';

const attemptsMax = 4;

export class Fleet {
  readonly #options: FleetOptions;
  readonly #nodes: readonly NodeState[];
  readonly #byName: ReadonlyMap<string, NodeState>;
  readonly #poller: Poller;
  readonly #jobs = new Map<string, LoadJob>();
  readonly #queues = new NodeQueues();
  readonly #idle = new IdleWaits();
  readonly #parked = new Set<Waiter>();
  readonly #waiting = new Set<Waiter>();
  readonly #closing = new AbortController();
  readonly #deps: ExecutorDeps;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#nodes = [...options.nodes].sort((a, b) => (a.name < b.name ? -1 : 1));
    this.#byName = new Map(this.#nodes.map((node) => [node.name, node]));
    this.#poller = new Poller({
      clock: options.clock,
      log: options.log,
      intervalMs: options.pollIntervalMs,
      timeoutMs: options.pollTimeoutMs,
      missesMax: options.missesMax,
      random: options.random ?? Math.random,
      onPolled: () => this.#wakeParked(),
    });
    this.#deps = {
      clock: options.clock,
      log: options.log,
      loadTimeoutMs: options.loadTimeoutMs,
      view: () => this.view(),
      refresh: (node) => this.#refresh(node),
      idle: (node, model, signal) => this.#idle.wait(node, model, signal),
      changed: () => this.#wakeParked(),
      onEvent: (event) => options.onEvent?.(event),
    };
  }

  /** Resolves when every node was asked once. */
  start(): Promise<void> {
    return this.#poller.start(this.#nodes);
  }

  view(): FleetView {
    const { catalogue, strategy } = this.#options;
    return {
      nodes: this.#nodes.map((node) => node.toView()),
      catalogue: catalogue.entries,
      aliases: catalogue.aliases,
      strategy,
    };
  }

  /** The nodes with what decisions do not need: readings, activation, progress. For listings and metrics. */
  nodes(): readonly NodeState[] {
    return this.#nodes;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Throws an AppError when the model cannot be served at all. */
  request(requested: string, signal: AbortSignal, exclude: ReadonlySet<string> = new Set()): Ticket {
    if (this.#closing.signal.aborted) throw shuttingDown();
    const decision = route(this.view(), requested, exclude);
    if (decision.kind === 'reject') throw toError(decision);
    if (decision.kind === 'forward') {
      const lease = this.#lease(decision, false);
      return { node: decision.node, why: decision.why, lease, ready: Promise.resolve(lease) };
    }
    if (this.#waiting.size >= this.#options.waitersMax) {
      throw new AppError('overloaded', 'too many requests wait for a model to load; try again', {
        retryAfterSecs: 5,
      });
    }
    const ready = this.#wait(requested, decision, signal, exclude);
    return { node: decision.node, why: decision.why, lease: null, ready };
  }

  /** Another replica that serves right now, or null: a failover never loads. */
  another(requested: string, exclude: ReadonlySet<string>): Lease | null {
    const decision = route(this.view(), requested, exclude);
    return decision.kind === 'forward' ? this.#lease(decision, false) : null;
  }

  /** The node does not have the model after all: believe it, ask again. */
  disown(lease: Lease): void {
    const node = this.#byName.get(lease.node);
    if (node === undefined) return;
    node.setStatus(lease.model, lease.wireId, 'available');
    this.suspect(lease.node);
  }

  /** A request failed on the wire: poll now rather than at the next turn. */
  suspect(name: string): void {
    const node = this.#byName.get(name);
    if (node !== undefined && !this.#closing.signal.aborted) void this.#poller.poll(node);
  }

  /** An answer arrived: the node lives, whatever a missed poll says. */
  noteAlive(name: string): void {
    const node = this.#byName.get(name);
    if (node !== undefined) node.misses = 0;
  }

  isHealthy(name: string): boolean {
    return this.#byName.get(name)?.healthy ?? false;
  }

  /** Polls one node now. */
  pollNow(name: string): Promise<void> {
    const node = this.#byName.get(name);
    return node === undefined ? Promise.resolve() : this.#refresh(node);
  }

  loadStatus(requested: string): LoadStatus | null {
    const model = resolveAlias(this.view(), requested);
    for (const node of this.#nodes) {
      const job = this.#jobs.get(keyOf(node.name, model));
      const progress = node.progressOf(model);
      if (job === undefined && progress === null) continue;
      const state =
        job === undefined ? 'loading' : job.state === 'loading' ? (progress?.phase ?? 'loading') : job.state;
      return { node: node.name, state, percent: progress?.percent ?? null, eta: progress?.eta_secs ?? null };
    }
    return null;
  }

  /** Loads a model, on the named node or the best one. Resolves with the node when it is up. */
  async load(requested: string, nodeName: string | null): Promise<string> {
    const view = this.view();
    const model = resolveAlias(view, requested);
    const name = nodeName ?? this.#pickForLoad(requested);
    const node = this.#byName.get(name);
    if (node === undefined) throw new AppError('not_found', `there is no node "${name}" in the fleet`);
    if (node.toView().models.get(model)?.status === 'loaded') return name;
    await new Promise<void>((resolve, reject) => {
      const job = this.#job(name, model);
      job.explicit = true;
      job.listeners.push((error) => (error === null ? resolve() : reject(error)));
    });
    return name;
  }

  /** Unloads a model from the named node or from all. Resolves with the nodes that had it. */
  async unload(requested: string, nodeName: string | null): Promise<readonly string[]> {
    const view = this.view();
    const model = resolveAlias(view, requested);
    const holders = this.#nodes.filter(
      (node) =>
        (nodeName === null || node.name === nodeName) && node.toView().models.get(model)?.status === 'loaded',
    );
    if (holders.length === 0) {
      const where = nodeName === null ? 'any node' : nodeName;
      throw new AppError('model_not_loaded', `model "${model}" is not loaded on ${where}`);
    }
    await Promise.all(holders.map((node) => this.#queues.run(node.name, () => this.#unloadOn(node, model))));
    return holders.map((node) => node.name);
  }

  /** Refuses all who wait, stops polling and loading; running requests go on. Idempotent. */
  stop(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(shuttingDown());
    this.#poller.close();
    for (const waiter of [...this.#waiting]) waiter.reject(shuttingDown());
  }

  /** Also cuts the connections to the neurons. Idempotent. */
  async close(): Promise<void> {
    this.stop();
    await Promise.all(this.#nodes.map((node) => node.client.close()));
  }

  #lease(decision: RouteDecision & { kind: 'forward' }, cold: boolean): Lease {
    const node = this.#byName.get(decision.node);
    if (node === undefined) throw new Error(`no node ${decision.node}`);
    const { model, wireId } = decision;
    node.lease(model, this.#options.clock.monotonicMs());
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      node.release(model, this.#options.clock.monotonicMs());
      this.#idle.released(node, model);
    };
    const why = cold ? `${decision.why}, after a load` : decision.why;
    return {
      node: node.name,
      model,
      wireId,
      why,
      cold,
      open: (request) => node.client.open(request),
      release,
    };
  }

  async #wait(
    requested: string,
    decision: RouteDecision & { kind: 'load' | 'wait' },
    signal: AbortSignal,
    exclude: ReadonlySet<string>,
  ): Promise<Lease> {
    let settle: Waiter | null = null;
    const onAbort = (): void => settle?.reject(signal.reason);
    try {
      return await new Promise<Lease>((resolve, reject) => {
        const end = (): void => {
          waiter.done = true;
          this.#waiting.delete(waiter);
          this.#parked.delete(waiter);
          this.#leave(waiter);
        };
        const waiter: Waiter = {
          requested,
          exclude: new Set(exclude),
          attempts: 0,
          done: false,
          resolve: (lease) => {
            end();
            resolve(lease);
          },
          reject: (cause) => {
            end();
            reject(cause);
          },
        };
        settle = waiter;
        this.#waiting.add(waiter);
        if (signal.aborted) return waiter.reject(signal.reason);
        signal.addEventListener('abort', onAbort, { once: true });
        this.#attach(waiter, decision);
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #attach(waiter: Waiter, decision: RouteDecision & { kind: 'load' | 'wait' }): void {
    const running = this.#jobs.get(keyOf(decision.node, decision.model));
    if (decision.kind === 'load') this.#job(decision.node, decision.model).waiters.add(waiter);
    else if (running !== undefined) running.waiters.add(waiter);
    else this.#parked.add(waiter);
  }

  /** Decides again for a waiter. `cause`: why its last attempt failed, preferred to a routing error. */
  #settle(waiter: Waiter, cause: unknown = null): void {
    if (waiter.done) return;
    this.#parked.delete(waiter);
    const decision = route(this.view(), waiter.requested, waiter.exclude);
    switch (decision.kind) {
      case 'forward':
        waiter.resolve(this.#lease(decision, true));
        break;
      case 'reject':
        waiter.reject(cause ?? toError(decision));
        break;
      case 'wait':
        this.#attach(waiter, decision);
        break;
      case 'load':
        waiter.attempts++;
        if (waiter.attempts < attemptsMax) this.#attach(waiter, decision);
        else waiter.reject(cause ?? doesNotStay(decision.model, decision.node));
        break;
      default:
        decision satisfies never;
    }
  }

  #wakeParked(): void {
    for (const waiter of [...this.#parked]) this.#settle(waiter);
  }

  /** The job for that model on that node: the running one, or a new one at the end of the node's queue. */
  #job(name: string, model: string): LoadJob {
    const key = keyOf(name, model);
    const existing = this.#jobs.get(key);
    if (existing !== undefined) return existing;
    const job: LoadJob = {
      node: name,
      model,
      explicit: false,
      state: 'queued',
      waiters: new Set(),
      listeners: [],
    };
    this.#jobs.set(key, job);
    this.#showPending(name);
    this.#queues.run(name, () => this.#runJob(job)).catch(() => {});
    return job;
  }

  async #runJob(job: LoadJob): Promise<void> {
    const node = this.#byName.get(job.node);
    if (node === undefined || this.#jobs.get(keyOf(job.node, job.model)) !== job) return;
    let error: unknown = null;
    try {
      await executeLoad(node, job, this.#deps, this.#closing.signal);
    } catch (thrown) {
      error = thrown;
      const { message, code } = toAppError(thrown);
      this.#options.log.warn('load failed', { node: job.node, model: job.model, code, cause: message });
    }
    this.#endJob(job, error);
  }

  #endJob(job: LoadJob, error: unknown): void {
    this.#jobs.delete(keyOf(job.node, job.model));
    this.#showPending(job.node);
    const waiters = [...job.waiters];
    job.waiters.clear();
    for (const waiter of waiters) {
      if (error === null) this.#settle(waiter);
      else if (toAppError(error).retryable && waiter.attempts < attemptsMax) {
        waiter.exclude.add(job.node);
        this.#settle(waiter, error);
      } else waiter.reject(error);
    }
    for (const listener of job.listeners) listener(error);
    this.#wakeParked();
  }

  /** A queued job that nobody wants any more is dropped; one that runs goes on. */
  #leave(waiter: Waiter): void {
    for (const [key, job] of this.#jobs) {
      if (!job.waiters.delete(waiter)) continue;
      if (job.waiters.size > 0 || job.explicit || job.state !== 'queued') continue;
      if (this.#queues.isHead(job.node)) continue;
      this.#jobs.delete(key);
      this.#showPending(job.node);
    }
  }

  #showPending(name: string): void {
    const models = [...this.#jobs.values()].filter((job) => job.node === name).map((job) => job.model);
    this.#byName.get(name)?.setPending(models);
  }

  #pickForLoad(requested: string): string {
    const decision = route(this.view(), requested);
    if (decision.kind === 'reject') throw toError(decision);
    return decision.node;
  }

  async #unloadOn(node: NodeState, model: string): Promise<void> {
    const held = node.toView().models.get(model);
    if (held?.status !== 'loaded') return;
    node.drain(model, true);
    try {
      await this.#idle.wait(node, model, this.#closing.signal);
      const victim = { model, wireId: held.wireId, vramMb: sizeOf(this.view(), held) };
      await unload(node, victim, this.#deps, this.#closing.signal);
    } finally {
      node.drain(model, false);
      this.#wakeParked();
    }
  }

  /** A poll that began after this call. */
  async #refresh(node: NodeState): Promise<void> {
    await this.#poller.settled(node);
    if (!this.#closing.signal.aborted) await this.#poller.poll(node);
  }
}
