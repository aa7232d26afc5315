/**
 * The only writer of fleet state.
 *
 * Problem: many requests, one fleet; a decision made on what was true a moment ago evicts a model under a
 * request or loads it twice. Design: a request asks once; `route` decides on the current view and the lease
 * is taken in the same tick. What cannot be served at once waits in the `WaitingLine`; `LoadJobs` bring up
 * what it waits for.
 */
import { AppError } from 'cortex-core/wire/errors';
import { type FleetView, resolveAlias } from '../decide/fleet-view.ts';
import {
  afterAnswer,
  afterArrival,
  afterLoad,
  afterUnload,
  type Habits,
  noHabits,
} from '../decide/habits.ts';
import { type RouteDecision, route } from '../decide/route.ts';
import type { FleetOptions, Ticket } from './fleet-options.ts';
import { IdleUnloads } from './idle-unloads.ts';
import { IdleWaits } from './idle-waits.ts';
import type { Lease, RequestTerms } from './lease.ts';
import type { FleetEvent, LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadStatus } from './load-job.ts';
import { LoadJobs } from './load-jobs.ts';
import type { NodeState } from './node-state.ts';
import { Poller } from './poller.ts';
import { keyOf, shuttingDown, toError } from './rejections.ts';
import { WaitingLine } from './waiting-line.ts';

/** Who asks when nobody says: one of equal share and rank. */
const nobody: RequestTerms = { key: '', session: '', priority: 0, promptTokens: 0 };

export class Fleet {
  readonly #options: FleetOptions;
  readonly #nodes: readonly NodeState[];
  readonly #byName: ReadonlyMap<string, NodeState>;
  readonly #poller: Poller;
  readonly #jobs: LoadJobs;
  readonly #line: WaitingLine;
  readonly #idle = new IdleWaits();
  readonly #unused: IdleUnloads;
  readonly #habits = new Map<string, Habits>();
  readonly #closing = new AbortController();

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
      onPolled: (node) => {
        this.#line.wake();
        this.#jobs.consider(node.name);
        this.#unused.look(node);
      },
    });
    this.#jobs = new LoadJobs({
      deps: this.#lifecycleDeps(),
      node: (name) => this.#byName.get(name),
      closing: this.#closing.signal,
      rules: options.turns,
      lookups: {
        habits: (node, model) => this.#habits.get(keyOf(node, model)),
        waiting: (model) => this.#line.parkedFor(model),
      },
      onEnded: (job, waiters, error) => this.#line.jobEnded(job, waiters, error),
    });
    this.#line = new WaitingLine({
      clock: options.clock,
      waitersMax: options.waitersMax,
      maxWaitMs: options.turns.maxWaitMs,
      jobs: this.#jobs,
      decide: (requested, exclude) => route(this.view(), requested, exclude),
      hasSlot: (decision) => this.#hasSlot(decision),
      lease: (decision, terms) => this.#lease(decision, terms, true),
    });
    const { clock, log, ttlMs } = options;
    this.#unused = new IdleUnloads({ clock, log, jobs: this.#jobs, ttlMs });
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
      terms: {
        nowMs: this.#options.clock.monotonicMs(),
        loadMs: (node, model) => this.#habits.get(keyOf(node, model))?.loadMs ?? null,
        gapMs: (node, model) => this.#habits.get(keyOf(node, model))?.gapMs ?? null,
      },
    };
  }

  /** The nodes with what decisions do not need: readings, activation, progress. For listings and metrics. */
  nodes(): readonly NodeState[] {
    return this.#nodes;
  }

  get waitingCount(): number {
    return this.#line.size;
  }

  /** Throws an AppError when the model cannot be served at all. */
  request(
    requested: string,
    signal: AbortSignal,
    exclude: ReadonlySet<string> = new Set(),
    terms: RequestTerms = nobody,
  ): Ticket {
    if (this.#closing.signal.aborted) throw shuttingDown();
    const decision = route(this.view(), requested, exclude);
    if (decision.kind === 'reject') throw toError(decision);
    const { node, model, why } = decision;
    // nobody overtakes those that stand in line for the model
    if (decision.kind === 'forward' && this.#line.parkedFor(model) === 0 && this.#hasSlot(decision)) {
      const lease = this.#lease(decision, terms, false);
      return { node, why, lease, ready: Promise.resolve(lease) };
    }
    this.#note(node, model, (habits, nowMs) => afterArrival(habits, nowMs));
    return { node, why, lease: null, ready: this.#line.enter(requested, decision, signal, exclude, terms) };
  }

  /** Another replica that serves right now, or null: a failover never loads. */
  another(requested: string, exclude: ReadonlySet<string>): Lease | null {
    const decision = route(this.view(), requested, exclude);
    return decision.kind === 'forward' ? this.#lease(decision, nobody, false) : null;
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
      const status = this.#jobs.statusOn(node, model);
      if (status !== null) return status;
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
    await this.#jobs.load(name, model);
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
    await Promise.all(holders.map((node) => this.#jobs.unload(node, model)));
    return holders.map((node) => node.name);
  }

  /** Refuses all who wait, stops polling and loading; running requests go on. Idempotent. */
  stop(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(shuttingDown());
    this.#poller.close();
    this.#unused.close();
    this.#line.rejectAll(shuttingDown);
  }

  /** Also cuts the connections to the neurons. Idempotent. */
  async close(): Promise<void> {
    this.stop();
    await Promise.all(this.#nodes.map((node) => node.client.close()));
  }

  #lifecycleDeps(): LifecycleDeps {
    const { clock, log, loadTimeoutMs, drain } = this.#options;
    return {
      clock,
      log,
      loadTimeoutMs,
      drain,
      view: () => this.view(),
      refresh: (node) => this.#refresh(node),
      idle: (node, model, signal) => this.#idle.wait(node, model, signal),
      changed: () => this.#line.wake(),
      onEvent: (event) => this.#onEvent(event),
    };
  }

  #onEvent(event: FleetEvent): void {
    const { node, model } = event;
    if (event.kind === 'loaded') this.#note(node, model, (habits, now) => afterLoad(habits, event.ms, now));
    else if (event.kind === 'evicted') this.#note(node, model, afterUnload);
    this.#options.onEvent?.(event);
  }

  #note(node: string, model: string, change: (habits: Habits, nowMs: number) => Habits): void {
    const key = keyOf(node, model);
    this.#habits.set(key, change(this.#habits.get(key) ?? noHabits, this.#options.clock.monotonicMs()));
  }

  #hasSlot(decision: { readonly node: string; readonly model: string }): boolean {
    return this.#byName.get(decision.node)?.hasSlot(decision.model) ?? true;
  }

  #lease(decision: RouteDecision & { kind: 'forward' }, terms: RequestTerms, cold: boolean): Lease {
    const node = this.#byName.get(decision.node);
    if (node === undefined) throw new Error(`no node ${decision.node}`);
    const { model, wireId } = decision;
    const startedMs = this.#options.clock.monotonicMs();
    node.lease(model, startedMs);
    this.#note(node.name, model, afterArrival);
    this.#line.charge(terms, terms.promptTokens, 0);
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      const nowMs = this.#options.clock.monotonicMs();
      node.release(model, nowMs);
      const isIdle = node.leasesOf(model) === 0;
      this.#note(node.name, model, (habits) => afterAnswer(habits, nowMs - startedMs, isIdle, nowMs));
      this.#idle.released(node, model);
      this.#line.wakeModel(model);
      this.#jobs.consider(node.name);
    };
    const why = cold ? `${decision.why}, after a load` : decision.why;
    return {
      node: node.name,
      model,
      wireId,
      why,
      cold,
      open: (request) => node.client.open(request),
      charge: (answerTokens) => this.#line.charge(terms, 0, answerTokens),
      release,
    };
  }

  #pickForLoad(requested: string): string {
    const decision = route(this.view(), requested);
    if (decision.kind === 'reject') throw toError(decision);
    return decision.node;
  }

  /** A poll that began after this call. */
  async #refresh(node: NodeState): Promise<void> {
    await this.#poller.settled(node);
    if (!this.#closing.signal.aborted) await this.#poller.poll(node);
  }
}
