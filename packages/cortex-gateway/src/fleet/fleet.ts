/**
 * The only writer of fleet state.
 *
 * Problem: many requests, one fleet; a decision made on what was true a moment ago evicts a model under a
 * request or loads it twice. Design: a request asks once; `route` decides on the current view and the lease
 * is taken in the same tick. What cannot be served at once waits in the `WaitingLine`; `LoadJobs` bring up
 * what it waits for. Settings are read at each use, so that a reload takes effect without a pause.
 */
import { setMaxListeners } from 'node:events';
import { type Explanation, explain } from '../decide/explain.ts';
import { type FleetView, resolveAlias, type TurnTerms } from '../decide/fleet-view.ts';
import { RateBook } from '../decide/rate-book.ts';
import { type Forward, type RouteDecision, route } from '../decide/route.ts';
import type { RouteRequest } from '../decide/route-request.ts';
import { AffinityBook } from './affinity-book.ts';
import type { AnswerFacts, Ask } from './ask.ts';
import { type AliasOptions, aliasOptionsOf } from './catalogue.ts';
import { CopiesSeen } from './copies-seen.ts';
import { Defragmenter } from './defragmenter.ts';
import { Doubts } from './doubts.ts';
import type { FleetOptions, FleetSettings, Ticket } from './fleet-options.ts';
import { createPicture, type FleetPicture } from './fleet-picture.ts';
import { idleEverywhere } from './foreign-idle.ts';
import { HabitBook } from './habit-book.ts';
import { IdleUnloads } from './idle-unloads.ts';
import { IdleWaits } from './idle-waits.ts';
import { Learning } from './learning.ts';
import type { Lease } from './lease.ts';
import { Leases } from './leases.ts';
import type { FleetEvent, LifecycleDeps } from './lifecycle-deps.ts';
import { LoadJobs } from './load-jobs.ts';
import { Membership } from './membership.ts';
import { NodeFacts } from './node-facts.ts';
import { createNodeSet, type NodeSet } from './node-set.ts';
import type { NodeState } from './node-state.ts';
import { Operations } from './operations.ts';
import { Poller } from './poller.ts';
import { Providers } from './providers.ts';
import { shuttingDown, toError } from './rejections.ts';
import { routeNote } from './route-note.ts';
import { WaitingLine } from './waiting-line.ts';

export class Fleet {
  readonly #options: FleetOptions;
  readonly #nodes: NodeSet;
  readonly #poller: Poller;
  readonly #jobs: LoadJobs;
  readonly #line: WaitingLine;
  readonly #defrag: Defragmenter;
  readonly #doubts: Doubts;
  readonly #idle = new IdleWaits();
  readonly #unused: IdleUnloads;
  readonly #habits = new HabitBook();
  readonly #leases: Leases;
  readonly #closing = new AbortController();
  readonly #members: Membership;
  readonly #affinity = new AffinityBook();
  readonly #copies = new CopiesSeen((node, models) => this.#affinity.forget(node, models));
  readonly #learning: Learning;
  readonly #hasSlot = (node: string, model: string): boolean => this.#nodes.get(node)?.hasSlot(model) ?? true;
  #settings: FleetSettings;
  readonly #picture: FleetPicture;
  /** Who serves what no node can. */
  readonly providers: Providers;
  /** What a person asks. */
  readonly operations: Operations;
  /** What is known of single nodes. */
  readonly facts: NodeFacts;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#settings = options.settings;
    const rates = options.rates ?? new RateBook();
    this.#learning = new Learning(rates, this.#affinity);
    // every load and every wait of an eviction listens to it
    setMaxListeners(0, this.#closing.signal);
    const { clock, log } = options;
    this.providers = new Providers({
      ...{ deps: options.providerDeps ?? null, clock, log, catalogue: () => this.#settings.catalogue },
      resolve: (requested) => resolveAlias(this.view(), requested),
      optionsOf: (requested) => this.aliasOptions(requested),
    });
    this.providers.replace(options.settings.providers ?? []);
    const turns = this.#turnTerms();
    this.#picture = createPicture(options.settings, rates, turns, clock, this.providers);
    this.#doubts = new Doubts(clock, () => this.#line.wake());
    this.#nodes = createNodeSet({
      ...{ connect: options.connect, clock, log },
      failuresMax: () => this.#settings.failuresMax,
      onChange: () => this.#line.wake(),
    });
    this.#poller = this.#createPoller();
    const deps = this.#lifecycleDeps();
    this.#jobs = new LoadJobs({
      deps,
      node: (name) => this.#nodes.get(name),
      rules: () => this.#settings.turns,
      onEnded: (job, waiters, error) => this.#line.jobEnded(job, waiters, error),
    });
    this.#line = new WaitingLine({
      clock,
      maxWaitMs: () => this.#settings.turns.maxWaitMs,
      waitersMax: () => this.#settings.waitersMax,
      jobs: this.#jobs,
      // who has waited once takes what there is
      decide: (ask, exclude) => this.#decide(ask, { exclude, mayReplicate: false }),
      hasSlot: ({ node, model }) => this.#hasSlot(node, model),
      lease: (ask, decision) => this.#lease(ask, decision, true),
    });
    this.#unused = new IdleUnloads({ clock, log, jobs: this.#jobs, ttlMs: (id) => this.#settings.ttlMs(id) });
    this.#leases = new Leases({
      ...{ clock, habits: this.#habits, doubts: this.#doubts },
      aliasOptions: ({ model }) => this.aliasOptions(model),
      charge: (...served) => this.#line.charge(...served),
      onReleased: (node, model) => this.#released(node, model),
      isCurrent: (node) => this.#nodes.get(node.name) === node,
      onAnother: (node) => this.suspect(node.name),
    });
    this.#defrag = new Defragmenter({
      deps,
      exclusive: (name, work) => this.#jobs.exclusive(name, work),
      closing: this.#closing.signal,
      afterCycles: () => this.#settings.defragAfterCycles,
      waiting: () => this.#line.size,
    });
    this.facts = new NodeFacts(this.#nodes, this.providers, (node) => this.#refresh(node));
    this.operations = new Operations({
      nodes: this.#nodes,
      leaving: () => this.#members.leaving,
      jobs: this.#jobs,
      defrag: this.#defrag,
      log,
      view: () => this.view(),
      decide: (model) => this.#decide({ model }, {}),
    });
    this.#members = this.#createMembership();
    this.#members.begin(options.settings.nodes, options.settings.catalogue);
  }

  /** Resolves when every node was asked once. */
  start(): Promise<void> {
    return this.#poller.add(this.#nodes.all);
  }

  /**
   * New settings, at once. Nodes that stay keep all that is known of them. Those that leave serve until those
   * that come were asked once, then take no new request and keep those they have. Loaded models stay loaded,
   * whatever the catalogue says of them. Resolves when the fleet is the new one.
   */
  async reconfigure(settings: FleetSettings): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#settings = settings;
    this.providers.replace(settings.providers ?? []);
    const isCurrent = (): boolean => this.#settings === settings;
    if (!(await this.#members.become(settings.nodes, settings.catalogue, isCurrent))) return;
    for (const node of this.#nodes.all) {
      this.#jobs.consider(node.name);
      this.#unused.look(node);
    }
  }

  view(): FleetView {
    return this.#picture.view();
  }

  /** The nodes with what decisions do not need: readings, activation, progress. For listings and metrics. */
  nodes(): readonly NodeState[] {
    return this.#nodes.all;
  }

  get waitingCount(): number {
    return this.#line.size;
  }

  /** Throws an AppError when the model cannot be served at all. */
  request(ask: Ask, signal: AbortSignal, exclude: ReadonlySet<string> = new Set()): Ticket {
    if (this.#closing.signal.aborted) throw shuttingDown();
    const decision = this.#decide(ask, { exclude });
    if (decision.kind === 'reject') return this.providers.ticket(ask, toError(decision), exclude);
    const { node, terms } = decision;
    const told = { node, why: routeNote(decision.why, terms), expectedMs: terms.totalMs };
    // nobody overtakes those that stand in line for the model
    const { model } = decision;
    if (decision.kind === 'forward' && this.#line.parkedFor(model) === 0 && this.#hasSlot(node, model)) {
      const lease = this.#lease(ask, decision, false);
      return { ...told, lease, ready: Promise.resolve(lease) };
    }
    this.#habits.arrived(node, model, this.#options.clock.monotonicMs());
    const enter = (patience: AbortSignal): Promise<Lease> =>
      this.#line.enter(ask, decision, patience, exclude);
    return { ...told, lease: null, ready: this.providers.orAfterWait(ask, enter, signal, exclude) };
  }

  /** Another replica that serves right now, or null: a failover never loads. */
  another(ask: Ask, exclude: ReadonlySet<string>): Lease | null {
    const decision = this.#decide(ask, { exclude, mayReplicate: false, mustServeNow: true });
    if (decision.kind === 'reject') return this.providers.lease(ask, decision.message, exclude);
    if (decision.kind !== 'forward' || !this.#hasSlot(decision.node, decision.model)) return null;
    return this.#lease(ask, decision, false);
  }

  /**
   * Each candidate for such a request, its terms, and why it lost. `turn`: when its load begins, and what is
   * in the way; null = at once, or there is none. Changes nothing.
   */
  explain(ask: Ask): Explanation & { readonly turn: string | null } {
    const explanation = this.providers.explained(explain(this.view(), this.#toRequest(ask)), ask);
    const { decision, node, model } = explanation;
    const hasLoad = decision === 'load' || (node !== null && this.#jobs.find(node, model) !== null);
    return { ...explanation, turn: node !== null && hasLoad ? this.#jobs.outlook(node, model) : null };
  }

  /** What an answer showed of the node that gave it. */
  learn(lease: Lease, facts: AnswerFacts): void {
    if (this.#leases.currentNode(lease) !== undefined) this.#learning.answered(lease, facts);
  }

  /** The node does not have the model after all: believe it, ask again. */
  disown(lease: Lease): void {
    const node = this.#leases.currentNode(lease);
    // Of another neuron than was asked for: its own list counts, which is being read.
    if (node === undefined || node.isStranger) return;
    node.setStatus(lease.model, lease.wireId, 'available');
    // it polls, and a poll from before the change would not count
    this.doubt(lease, 'model_not_loaded');
  }

  /** The node answered that the model is not ready, although it is said to be loaded: ask again. */
  doubt(lease: Lease, code: string): void {
    const node = this.#leases.currentNode(lease);
    if (node === undefined || this.#closing.signal.aborted) return;
    const why = `says that it has loaded "${lease.model}", and answers ${code}`;
    this.#doubts.raise('serves', node, lease.model, why);
    this.suspect(lease.node);
  }

  /** A request failed on the wire: poll now rather than at the next turn. */
  suspect(name: string): void {
    const node = this.#nodes.get(name);
    if (node !== undefined && !this.#closing.signal.aborted) void this.#poller.poll(node);
  }

  /** An answer arrived: the node lives, whatever a missed poll says. */
  noteAlive(lease: Lease): void {
    const node = this.#leases.currentNode(lease);
    if (node !== undefined) node.misses = 0;
  }

  /** What an alias says of a request that does not say it itself. */
  aliasOptions(requested: string): AliasOptions | null {
    return aliasOptionsOf(this.#settings.catalogue, requested, resolveAlias(this.view(), requested));
  }

  /** Polls one node now. */
  pollNow(name: string): Promise<void> {
    const node = this.#nodes.get(name);
    return node === undefined ? Promise.resolve() : this.#refresh(node);
  }

  /** Refuses all who wait, stops polling and loading; running requests go on. Idempotent. */
  stop(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(shuttingDown());
    this.#poller.close();
    this.#doubts.close();
    this.#unused.close();
    this.#line.rejectAll(shuttingDown);
    for (const node of this.#allNodes) node.service.stop();
  }

  /** Also cuts the connections to the neurons. Idempotent. */
  async close(): Promise<void> {
    this.stop();
    await Promise.all([...this.#allNodes.map((node) => node.client.close()), this.providers.close()]);
  }

  get #allNodes(): readonly NodeState[] {
    return [...this.#nodes.all, ...this.#members.leaving];
  }

  #createMembership(): Membership {
    return new Membership({
      ...{ nodes: this.#nodes, poller: this.#poller, jobs: this.#jobs, closing: this.#closing.signal },
      onChange: (catalogue) => {
        const { strategy } = this.#settings;
        this.#picture.replace({ nodes: this.#nodes.all, catalogue, strategy });
        this.#line.wake();
      },
      onLeft: (node, next) => this.#left(node, next),
    });
  }

  #createPoller(): Poller {
    const { clock, log, random = Math.random } = this.#options;
    return new Poller({
      clock,
      log,
      settings: () => this.#settings,
      random,
      onAnother: (node) => this.#doubts.dropAll(node),
      // one that arrives counts when it is there
      onPolled: (node) => (this.#nodes.get(node.name) === node ? this.#polled(node) : undefined),
    });
  }

  #turnTerms(): TurnTerms {
    return {
      rules: () => this.#settings.turns,
      habits: (node, model) => this.#habits.of(node, model),
      waiting: (model) => this.#line.parkedFor(model),
    };
  }

  #lifecycleDeps(): LifecycleDeps {
    const { clock, log, onEvent } = this.#options;
    const settings = (): FleetSettings => this.#settings;
    const refresh = (node: NodeState): Promise<void> => this.#refresh(node);
    return {
      ...{ clock, log, doubts: this.#doubts },
      get loadTimeoutMs() {
        return settings().loadTimeoutMs;
      },
      get drain() {
        return settings().drain;
      },
      closing: this.#closing.signal,
      view: () => this.view(),
      refresh,
      idle: async (node, model, signal) => {
        await this.#idle.wait(node, model, signal);
        await idleEverywhere(node, model, { clock, refresh }, signal);
      },
      changed: () => this.#line.wake(),
      bringBack: (node, model) => void this.#jobs.start(node, model, null),
      onEvent: (event) => {
        this.#learnFrom(event);
        onEvent?.(event);
      },
    };
  }

  #decide(ask: Ask, terms: Partial<RouteRequest>): RouteDecision {
    return route(this.view(), { ...this.#toRequest(ask), ...terms });
  }

  #lease(ask: Ask, decision: Forward, cold: boolean): Lease {
    return this.#leases.take(this.#nodes.named(decision.node), ask, decision, cold);
  }

  #released(node: NodeState, model: string): void {
    this.#idle.released(node, model);
    this.#line.wakeModel(model);
    this.#jobs.consider(node.name);
    this.#members.released(node);
  }

  #toRequest({ model, promptTokens, affinity }: Ask): RouteRequest {
    const resolved = resolveAlias(this.view(), model);
    return {
      model,
      promptTokens: promptTokens ?? 1,
      cached: this.#affinity.cachedFor(resolved, affinity),
      nowMs: this.#options.clock.monotonicMs(),
      hasSlot: this.#hasSlot,
    };
  }

  #learnFrom(event: FleetEvent): void {
    this.#habits.happened(event, this.#options.clock.monotonicMs());
    const node = this.#nodes.get(event.node);
    if (node !== undefined) this.#learning.happened(event, node, this.view());
  }

  #polled(node: NodeState): void {
    this.#learning.polled(node);
    this.#habits.polled(node);
    this.#copies.polled(node);
    this.#line.wake();
    if (!node.healthy) for (const job of this.#jobs.on(node.name)) this.#line.leaveSilent(job);
    this.#jobs.consider(node.name);
    this.#unused.look(node);
    this.#defrag.onPolled(node);
  }

  #left(node: NodeState, next: NodeState | null): void {
    this.#doubts.dropAll(node);
    this.#unused.forget(node);
    if (next === null) this.#habits.forget(node.name);
    // two that tell no instance look like one
    if (next?.health?.instance == null) this.#copies.forget(node.name);
    if (next !== null) this.#polled(next);
  }

  /** A poll that began after this call. */
  async #refresh(node: NodeState): Promise<void> {
    await this.#poller.settled(node);
    if (!this.#closing.signal.aborted) await this.#poller.poll(node);
  }
}
