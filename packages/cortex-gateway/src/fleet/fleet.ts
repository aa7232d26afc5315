/**
 * The only writer of fleet state.
 *
 * Problem: many requests, one fleet; a decision made on what was true a moment ago evicts a model under a
 * request or loads it twice. Design: a request asks once; `route` decides on the current view and the lease
 * is taken in the same tick. What cannot be served at once waits in the `WaitingLine`; `LoadJobs` bring up
 * what it waits for. Settings are read at each use, so that a reload takes effect without a pause.
 */
import { setMaxListeners } from 'node:events';
import { AppError } from 'cortex-core/wire/errors';
import { instanceHeader } from 'cortex-core/wire/neuron';
import type { DefragPlan } from '../decide/defrag.ts';
import { type Explanation, explain } from '../decide/explain.ts';
import { type FleetView, resolveAlias } from '../decide/fleet-view.ts';
import { considerNode } from '../decide/placement.ts';
import { RateBook } from '../decide/rate-book.ts';
import { type Forward, type RouteDecision, route } from '../decide/route.ts';
import type { RouteRequest } from '../decide/route-request.ts';
import { AffinityBook } from './affinity-book.ts';
import type { AnswerFacts, Ask } from './ask.ts';
import type { Catalogue } from './catalogue.ts';
import { Defragmenter, type DefragReport } from './defragmenter.ts';
import { Doubts } from './doubts.ts';
import type { FleetOptions, FleetSettings, Ticket } from './fleet-options.ts';
import { FleetPicture } from './fleet-picture.ts';
import { idleEverywhere } from './foreign-idle.ts';
import { IdleWaits } from './idle-waits.ts';
import { Learning } from './learning.ts';
import type { Lease, UpstreamAnswer } from './lease.ts';
import type { FleetEvent, LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadStatus } from './load-job.ts';
import { LoadJobs } from './load-jobs.ts';
import { NodeSet, type NodeSetChange, type NodeSpec } from './node-set.ts';
import type { NodeState } from './node-state.ts';
import { Poller } from './poller.ts';
import { Providers } from './providers.ts';
import { noNode, outOfService, shuttingDown, toError } from './rejections.ts';
import { routeNote } from './route-note.ts';
import { WaitingLine } from './waiting-line.ts';
import { watchedOpen } from './watched-open.ts';

export class Fleet {
  readonly #options: FleetOptions;
  readonly #nodes: NodeSet;
  readonly #poller: Poller;
  readonly #jobs: LoadJobs;
  readonly #line: WaitingLine;
  readonly #defrag: Defragmenter;
  readonly #doubts: Doubts;
  readonly #idle = new IdleWaits();
  readonly #closing = new AbortController();
  /** Of nodes that left the configuration, until their last request has ended. */
  readonly #leaving = new Set<NodeState>();
  readonly #rates: RateBook;
  readonly #affinity = new AffinityBook();
  readonly #learning: Learning;
  readonly #providers: Providers;
  #settings: FleetSettings;
  #picture: FleetPicture;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#settings = options.settings;
    this.#rates = options.rates ?? new RateBook();
    this.#learning = new Learning(this.#rates, this.#affinity);
    // every load and every wait of an eviction listens to it
    setMaxListeners(0, this.#closing.signal);
    const { clock, log } = options;
    const catalogue = (): Catalogue => this.#settings.catalogue;
    this.#providers = new Providers({
      ...{ deps: options.providerDeps ?? null, clock, log, catalogue },
      resolve: (requested) => catalogue().aliases.get(requested) ?? requested,
      optionsOf: (requested) => catalogue().aliasOptions.get(requested) ?? null,
    });
    this.#providers.replace(options.settings.providers ?? []);
    this.#doubts = new Doubts(clock, () => this.#line.wake());
    this.#nodes = new NodeSet({
      connect: options.connect,
      service: (name) => ({
        clock,
        failuresMax: () => this.#settings.failuresMax,
        onChange: () => this.#line.wake(),
        onCircuit: (circuit) => log.warn('node circuit', { node: name, circuit }),
      }),
    });
    this.#poller = new Poller({
      clock,
      log,
      settings: () => this.#settings,
      random: options.random ?? Math.random,
      onAnother: (node) => this.#doubts.dropAll(node),
      onPolled: (node) => {
        this.#learning.polled(node);
        this.#line.wake();
        this.#defrag.onPolled(node);
      },
    });
    const deps = this.#lifecycleDeps();
    this.#jobs = new LoadJobs({
      deps,
      node: (name) => this.#nodes.get(name),
      onEnded: (job, waiters, error) => this.#line.jobEnded(job, waiters, error),
    });
    this.#line = new WaitingLine({
      waitersMax: () => this.#settings.waitersMax,
      jobs: this.#jobs,
      decide: (ask, exclude) => this.#decide(ask, exclude),
      lease: (ask, decision) => this.#lease(ask, decision, true),
    });
    this.#defrag = new Defragmenter({
      deps,
      exclusive: (name, work) => this.#jobs.exclusive(name, work),
      closing: this.#closing.signal,
      afterCycles: () => this.#settings.defragAfterCycles,
      waiting: () => this.#line.size,
    });
    this.#nodes.replace(options.settings.nodes, options.settings.catalogue);
    this.#picture = this.#draw();
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
    this.#settings = settings;
    const { nodes, catalogue } = settings;
    this.#providers.replace(settings.providers ?? []);
    const leaving = this.#nodes.all.filter(({ name }) => !nodes.some((spec) => spec.name === name));
    const { added, removed } = this.#replace([...nodes, ...leaving], catalogue);
    for (const node of removed) this.#remove(node);
    this.#line.wake();
    if (!this.#closing.signal.aborted) await this.#poller.add(added);
    // a later one came meanwhile, and decides
    if (this.#settings !== settings) return;
    for (const node of this.#replace(nodes, catalogue).removed) this.#remove(node);
    this.#line.wake();
  }

  view(): FleetView {
    return this.#picture.view();
  }

  /** The nodes with what decisions do not need: readings, activation, progress. For listings and metrics. */
  nodes(): readonly NodeState[] {
    return this.#nodes.all;
  }

  get providers(): Providers {
    return this.#providers;
  }

  get waitingCount(): number {
    return this.#line.size;
  }

  /** Throws an AppError when the model cannot be served at all. */
  request(ask: Ask, signal: AbortSignal, exclude: ReadonlySet<string> = new Set()): Ticket {
    if (this.#closing.signal.aborted) throw shuttingDown();
    const decision = this.#decide(ask, exclude);
    if (decision.kind === 'reject') return this.#providers.ticket(ask, toError(decision), exclude);
    const { node, terms } = decision;
    const told = { node, why: routeNote(decision.why, terms), expectedMs: terms.totalMs };
    if (decision.kind === 'forward') {
      const lease = this.#lease(ask, decision, false);
      return { ...told, lease, ready: Promise.resolve(lease) };
    }
    const enter = (patience: AbortSignal): Promise<Lease> =>
      this.#line.enter(ask, decision, patience, exclude);
    return { ...told, lease: null, ready: this.#providers.orAfterWait(ask, enter, signal, exclude) };
  }

  /** Another replica that serves right now, or null: a failover never loads. */
  another(ask: Ask, exclude: ReadonlySet<string>): Lease | null {
    const decision = this.#decide(ask, exclude);
    if (decision.kind === 'reject') return this.#providers.lease(ask, decision.message, exclude);
    return decision.kind === 'forward' ? this.#lease(ask, decision, false) : null;
  }

  /** Each candidate for such a request, its terms, and why it lost. Changes nothing. */
  explain(ask: Ask): Explanation {
    return this.#providers.explained(explain(this.view(), this.#toRequest(ask)), ask);
  }

  /** What an answer showed of the node that gave it. */
  learn(lease: Lease, facts: AnswerFacts): void {
    if (this.#nodes.get(lease.node) !== undefined) this.#learning.answered(lease, facts);
  }

  /** The node does not have the model after all: believe it, ask again. */
  disown(lease: Lease): void {
    const node = this.#nodes.get(lease.node);
    // Of another neuron than was asked for: its own list counts, which is being read.
    if (node === undefined || node.isStranger) return;
    this.doubt(lease, 'model_not_loaded');
    node.setStatus(lease.model, lease.wireId, 'available');
  }

  /** The node answered that the model is not ready, although it is said to be loaded: ask again. */
  doubt(lease: Lease, code: string): void {
    const node = this.#nodes.get(lease.node);
    if (node === undefined || this.#closing.signal.aborted) return;
    this.#doubts.raise(node, lease.model, code);
    this.suspect(lease.node);
  }

  /** A request failed on the wire: poll now rather than at the next turn. */
  suspect(name: string): void {
    const node = this.#nodes.get(name);
    if (node !== undefined && !this.#closing.signal.aborted) void this.#poller.poll(node);
  }

  /** An answer arrived: the node lives, whatever a missed poll says. */
  noteAlive(name: string): void {
    const node = this.#nodes.get(name);
    if (node !== undefined) node.misses = 0;
  }

  isHealthy(name: string): boolean {
    return this.#nodes.get(name)?.healthy ?? false;
  }

  /** What the model can do on a node; null = not known. */
  capabilitiesOf(name: string, model: string): readonly string[] | null {
    const held = this.#nodes.get(name)?.toView().models.get(model);
    if (held === undefined) return this.#providers.capabilitiesOf(name, model);
    return held.capabilities.length === 0 ? null : held.capabilities;
  }

  /** Names the weights and the template of a model on a node; null when the node does not say. */
  identityOf(name: string, model: string): string | null {
    return this.#nodes.get(name)?.identityOf(model) ?? null;
  }

  /** Nodes whose loaded copy has other weights or another template; of providers neither is known. */
  unlike(model: string, identity: string): readonly string[] {
    const holders = this.#nodes.all.filter((node) => node.toView().models.get(model)?.status === 'loaded');
    const others = holders.filter((node) => (node.identityOf(model) ?? identity) !== identity);
    return [...others.map((node) => node.name), ...this.#providers.names];
  }

  /** Asks a node now. Null when it does not answer, else for how many seconds it has been up. */
  async upFor(name: string): Promise<number | null> {
    const node = this.#nodes.get(name);
    // a provider is not polled: that it comes back soon is nothing to wait for
    if (node === undefined) return this.#providers.names.includes(name) ? 0 : null;
    await this.#refresh(node);
    return node.misses === 0 && node.healthy ? this.lastUpFor(name) : null;
  }

  /** As of the last poll. */
  lastUpFor(name: string): number {
    return this.#nodes.get(name)?.health?.uptime_secs ?? 0;
  }

  /** Polls one node now. */
  pollNow(name: string): Promise<void> {
    const node = this.#nodes.get(name);
    return node === undefined ? Promise.resolve() : this.#refresh(node);
  }

  loadStatus(requested: string): LoadStatus | null {
    const model = resolveAlias(this.view(), requested);
    for (const node of this.#nodes.all) {
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
    const node = this.#nodeOf(name);
    if (node.toView().models.get(model)?.status === 'loaded') return name;
    await this.#jobs.load(name, model);
    return name;
  }

  /** Unloads a model from the named node or from all. Resolves with the nodes that had it. */
  async unload(requested: string, nodeName: string | null): Promise<readonly string[]> {
    const view = this.view();
    const model = resolveAlias(view, requested);
    const holders = this.#nodes.all.filter(
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

  /** Stops the loads of that model, on the named node or on all. Resolves with the nodes that had one. */
  async cancel(requested: string, nodeName: string | null): Promise<readonly string[]> {
    const model = resolveAlias(this.view(), requested);
    const nodes = nodeName === null ? this.#nodes.all : [this.#nodeOf(nodeName)];
    const had = await Promise.all(nodes.map((node) => this.#jobs.cancel(node, model)));
    const stopped = nodes.filter((_, i) => had[i] === true).map((node) => node.name);
    if (stopped.length > 0) return stopped;
    const where = nodeName === null ? 'any node' : nodeName;
    throw new AppError('model_not_loaded', `model "${model}" is not being loaded on ${where}`);
  }

  /**
   * `drained`: the node gets no new requests and no loads; running ones end, or are cut after `deadlineMs`.
   * `cordoned`: no loads only. Loads that wait for their turn there go elsewhere. Returns the node.
   */
  drain(name: string, mode: 'cordoned' | 'drained', deadlineMs: number | null): NodeState {
    const node = this.#nodeOf(name);
    node.service.close(mode, deadlineMs);
    this.#jobs.dropQueued(name, (model) => outOfService(name, mode, model));
    this.#options.log.info('node out of service', { node: name, mode, deadline_ms: deadlineMs });
    return node;
  }

  undrain(name: string): NodeState {
    const node = this.#nodeOf(name);
    node.service.open();
    this.#options.log.info('node back in service', { node: name });
    return node;
  }

  /** What a defragmentation would do now, on one node or on all; `model`: make room for that one. */
  planDefrag(nodeName: string | null, requested: string | null): readonly DefragPlan[] {
    const model = requested === null ? null : resolveAlias(this.view(), requested);
    return this.#nodesNamed(nodeName).map((node) => this.#defrag.plan(node, model));
  }

  /** Carries out what `planDefrag` shows, all nodes at once. */
  defrag(nodeName: string | null, requested: string | null): Promise<readonly DefragReport[]> {
    const model = requested === null ? null : resolveAlias(this.view(), requested);
    return Promise.all(this.#nodesNamed(nodeName).map((node) => this.#defrag.run(node, model)));
  }

  /** Refuses all who wait, stops polling and loading; running requests go on. Idempotent. */
  stop(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(shuttingDown());
    this.#poller.close();
    this.#doubts.close();
    this.#line.rejectAll(shuttingDown);
    for (const node of this.#nodes.all) node.service.stop();
  }

  /** Also cuts the connections to the neurons. Idempotent. */
  async close(): Promise<void> {
    this.stop();
    const nodes = [...this.#nodes.all, ...this.#leaving];
    await Promise.all([...nodes.map((node) => node.client.close()), this.#providers.close()]);
  }

  #lifecycleDeps(): LifecycleDeps {
    const { clock, log, onEvent } = this.#options;
    const settings = (): FleetSettings => this.#settings;
    const refresh = (node: NodeState): Promise<void> => this.#refresh(node);
    return {
      clock,
      log,
      get loadTimeoutMs() {
        return settings().loadTimeoutMs;
      },
      closing: this.#closing.signal,
      view: () => this.view(),
      refresh,
      idle: async (node, model, signal) => {
        await this.#idle.wait(node, model, signal);
        await idleEverywhere(node, model, { clock, refresh }, signal);
      },
      changed: () => this.#line.wake(),
      bringBack: (node, model) => void this.#jobs.start(node, model),
      onEvent: (event) => {
        this.#learnFrom(event);
        onEvent?.(event);
      },
    };
  }

  #decide(ask: Ask, exclude: ReadonlySet<string>): RouteDecision {
    return route(this.view(), { ...this.#toRequest(ask), exclude });
  }

  #toRequest({ model, promptTokens, affinity }: Ask): RouteRequest {
    const resolved = this.#settings.catalogue.aliases.get(model) ?? model;
    return {
      model,
      promptTokens: promptTokens ?? 1,
      cached: this.#affinity.cachedFor(resolved, affinity),
      nowMs: this.#options.clock.monotonicMs(),
    };
  }

  #learnFrom(event: FleetEvent): void {
    const node = this.#nodes.get(event.node);
    if (node !== undefined) this.#learning.happened(event, node, this.view());
  }

  #replace(nodes: readonly NodeSpec[], catalogue: Catalogue): NodeSetChange {
    const change = this.#nodes.replace(nodes, catalogue);
    this.#picture = this.#draw();
    return change;
  }

  #draw(): FleetPicture {
    const { catalogue, strategy } = this.#settings;
    const nowMs = (): number => this.#options.clock.monotonicMs();
    return new FleetPicture({
      nodes: this.#nodes.all,
      catalogue,
      strategy,
      rates: this.#rates,
      nowMs,
      hosted: this.#providers,
    });
  }

  #lease(ask: Ask, decision: Forward, cold: boolean): Lease {
    const node = this.#nodeOf(decision.node);
    const { model, wireId } = decision;
    node.lease(model, this.#options.clock.monotonicMs());
    const watched = watchedOpen(node);
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      watched.end();
      node.release(model, this.#options.clock.monotonicMs());
      this.#idle.released(node, model);
      if (this.#leaving.has(node) && node.leaseCount === 0) this.#forget(node);
    };
    const why = routeNote(cold ? `${decision.why}, after a load` : decision.why, decision.terms);
    return {
      node: node.name,
      model,
      wireId,
      why,
      options: this.#settings.catalogue.aliasOptions.get(ask.model) ?? null,
      terms: decision.terms,
      ask,
      cold,
      open: (request) => this.#open(node, model, () => watched.open(request)),
      release,
    };
  }

  #nodeOf(name: string): NodeState {
    const node = this.#nodes.get(name);
    if (node === undefined) throw noNode(name);
    return node;
  }

  async #open(node: NodeState, model: string, send: () => Promise<UpstreamAnswer>): Promise<UpstreamAnswer> {
    const answer = await send();
    if (answer.status < 300) this.#doubts.drop(node, model);
    const instance = answer.headers[instanceHeader];
    if (typeof instance === 'string' && node.isAnother(instance)) {
      node.estrange();
      this.suspect(node.name);
    }
    return answer;
  }

  /** A person may load what is poisoned, which no request may. */
  #pickForLoad(requested: string): string {
    const decision = this.#decide({ model: requested }, new Set());
    if (decision.kind !== 'reject') return decision.node;
    const view = this.view();
    const model = resolveAlias(view, requested);
    const node = view.nodes.find(
      (each) => !('reason' in considerNode(view, each, model, { explicit: true })),
    );
    if (node === undefined) throw toError(decision);
    return node.name;
  }

  #remove(node: NodeState): void {
    this.#poller.remove(node);
    node.service.stop();
    this.#jobs.dropAll(node.name, (model) => outOfService(node.name, 'removed', model));
    this.#leaving.add(node);
    if (node.leaseCount === 0) this.#forget(node);
  }

  #forget(node: NodeState): void {
    this.#leaving.delete(node);
    node.client.close().catch(() => {});
  }

  #nodesNamed(name: string | null): readonly NodeState[] {
    if (name === null) return this.#nodes.all.filter((node) => node.healthy);
    const node = this.#nodeOf(name);
    if (!node.healthy) throw new AppError('node_unhealthy', `${name} does not answer; try again shortly`);
    return [node];
  }

  /** A poll that began after this call. */
  async #refresh(node: NodeState): Promise<void> {
    await this.#poller.settled(node);
    if (!this.#closing.signal.aborted) await this.#poller.poll(node);
  }
}
