/**
 * The only writer of fleet state.
 *
 * Problem: many requests, one fleet; a decision made on what was true a moment ago evicts a model under a
 * request or loads it twice. Design: a request asks once; `route` decides on the current view and the lease
 * is taken in the same tick. What cannot be served at once waits in the `WaitingLine`; `LoadJobs` bring up
 * what it waits for.
 */
import { AppError } from 'cortex-core/wire/errors';
import { type Explanation, explain } from '../decide/explain.ts';
import { type FleetView, resolveAlias } from '../decide/fleet-view.ts';
import { RateBook } from '../decide/rate-book.ts';
import { type Forward, type RouteDecision, route } from '../decide/route.ts';
import type { RouteRequest } from '../decide/route-request.ts';
import { AffinityBook } from './affinity-book.ts';
import type { AnswerFacts, Ask } from './ask.ts';
import type { FleetOptions, Ticket } from './fleet-options.ts';
import { FleetPicture } from './fleet-picture.ts';
import { IdleWaits } from './idle-waits.ts';
import { Learning } from './learning.ts';
import type { Lease } from './lease.ts';
import type { FleetEvent, LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadStatus } from './load-job.ts';
import { LoadJobs } from './load-jobs.ts';
import type { NodeState } from './node-state.ts';
import { Poller } from './poller.ts';
import { shuttingDown, toError } from './rejections.ts';
import { routeNote } from './route-note.ts';
import { WaitingLine } from './waiting-line.ts';

export class Fleet {
  readonly #options: FleetOptions;
  readonly #nodes: readonly NodeState[];
  readonly #byName: ReadonlyMap<string, NodeState>;
  readonly #poller: Poller;
  readonly #jobs: LoadJobs;
  readonly #line: WaitingLine;
  readonly #idle = new IdleWaits();
  readonly #closing = new AbortController();
  readonly #picture: FleetPicture;
  readonly #affinity = new AffinityBook();
  readonly #learning: Learning;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#nodes = [...options.nodes].sort((a, b) => (a.name < b.name ? -1 : 1));
    this.#byName = new Map(this.#nodes.map((node) => [node.name, node]));
    const rates = options.rates ?? new RateBook();
    const { catalogue, strategy, clock } = options;
    const nowMs = (): number => clock.monotonicMs();
    this.#picture = new FleetPicture(rates, nowMs, { nodes: this.#nodes, catalogue, strategy });
    this.#learning = new Learning(rates, this.#affinity);
    this.#poller = new Poller({
      clock: options.clock,
      log: options.log,
      intervalMs: options.pollIntervalMs,
      timeoutMs: options.pollTimeoutMs,
      missesMax: options.missesMax,
      random: options.random ?? Math.random,
      onPolled: (node) => {
        this.#learning.polled(node);
        this.#line.wake();
      },
    });
    this.#jobs = new LoadJobs({
      deps: this.#lifecycleDeps(),
      node: (name) => this.#byName.get(name),
      closing: this.#closing.signal,
      onEnded: (job, waiters, error) => this.#line.jobEnded(job, waiters, error),
    });
    this.#line = new WaitingLine({
      waitersMax: options.waitersMax,
      jobs: this.#jobs,
      // who has waited once takes what there is
      decide: (ask, exclude) => this.#decide(ask, { exclude, mayReplicate: false }),
      lease: (ask, decision) => this.#lease(ask, decision, true),
    });
  }

  /** Resolves when every node was asked once. */
  start(): Promise<void> {
    return this.#poller.start(this.#nodes);
  }

  view(): FleetView {
    return this.#picture.view();
  }

  /** The nodes with what decisions do not need: readings, activation, progress. For listings and metrics. */
  nodes(): readonly NodeState[] {
    return this.#nodes;
  }

  get waitingCount(): number {
    return this.#line.size;
  }

  /** Throws an AppError when the model cannot be served at all. */
  request(ask: Ask, signal: AbortSignal, exclude: ReadonlySet<string> = new Set()): Ticket {
    if (this.#closing.signal.aborted) throw shuttingDown();
    const decision = this.#decide(ask, { exclude });
    if (decision.kind === 'reject') throw toError(decision);
    const { node, terms } = decision;
    const told = { node, why: routeNote(decision.why, terms), expectedMs: terms.totalMs };
    if (decision.kind === 'forward') {
      const lease = this.#lease(ask, decision, false);
      return { ...told, lease, ready: Promise.resolve(lease) };
    }
    return { ...told, lease: null, ready: this.#line.enter(ask, decision, signal, exclude) };
  }

  /** Another replica that serves right now, or null: a failover never loads. */
  another(ask: Ask, exclude: ReadonlySet<string>): Lease | null {
    const decision = this.#decide(ask, { exclude, mayReplicate: false, mustServeNow: true });
    return decision.kind === 'forward' ? this.#lease(ask, decision, false) : null;
  }

  /** Each candidate for such a request, its terms, and why it lost. Changes nothing. */
  explain(ask: Ask): Explanation {
    return explain(this.view(), this.#toRequest(ask));
  }

  /** What an answer showed of the node that gave it. */
  learn(lease: Lease, facts: AnswerFacts): void {
    this.#learning.answered(lease, facts);
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
    this.#line.rejectAll(shuttingDown);
  }

  /** Also cuts the connections to the neurons. Idempotent. */
  async close(): Promise<void> {
    this.stop();
    await Promise.all(this.#nodes.map((node) => node.client.close()));
  }

  #lifecycleDeps(): LifecycleDeps {
    const { clock, log, loadTimeoutMs, onEvent } = this.#options;
    return {
      clock,
      log,
      loadTimeoutMs,
      view: () => this.view(),
      refresh: (node) => this.#refresh(node),
      idle: (node, model, signal) => this.#idle.wait(node, model, signal),
      changed: () => this.#line.wake(),
      onEvent: (event) => {
        this.#learnFrom(event);
        onEvent?.(event);
      },
    };
  }

  #decide(ask: Ask, terms: Partial<RouteRequest>): RouteDecision {
    return route(this.view(), { ...this.#toRequest(ask), ...terms });
  }

  #toRequest({ model, promptTokens, affinity }: Ask): RouteRequest {
    const resolved = this.#options.catalogue.aliases.get(model) ?? model;
    return {
      model,
      promptTokens: promptTokens ?? 1,
      cached: this.#affinity.cachedFor(resolved, affinity),
      nowMs: this.#options.clock.monotonicMs(),
    };
  }

  #learnFrom(event: FleetEvent): void {
    const node = this.#byName.get(event.node);
    if (node !== undefined) this.#learning.happened(event, node, this.view());
  }

  #lease(ask: Ask, decision: Forward, cold: boolean): Lease {
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
    const why = routeNote(cold ? `${decision.why}, after a load` : decision.why, decision.terms);
    return {
      node: node.name,
      model,
      wireId,
      why,
      options: this.#options.catalogue.aliasOptions.get(ask.model) ?? null,
      terms: decision.terms,
      ask,
      cold,
      open: (request) => node.client.open(request),
      release,
    };
  }

  #pickForLoad(requested: string): string {
    const decision = this.#decide({ model: requested }, {});
    if (decision.kind === 'reject') throw toError(decision);
    return decision.node;
  }

  /** A poll that began after this call. */
  async #refresh(node: NodeState): Promise<void> {
    await this.#poller.settled(node);
    if (!this.#closing.signal.aborted) await this.#poller.poll(node);
  }
}
