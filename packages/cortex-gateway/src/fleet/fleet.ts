/**
 * The only writer of fleet state.
 *
 * Problem: many requests, one fleet; a decision made on what was true a moment ago evicts a model under a
 * request or loads it twice. Design: a request asks once; `route` decides on the current view and the lease
 * is taken in the same tick. What cannot be served at once waits in the `WaitingLine`; `LoadJobs` bring up
 * what it waits for.
 */
import { AppError } from 'cortex-core/wire/errors';
import { instanceHeader } from 'cortex-core/wire/neuron';
import type { DefragPlan } from '../decide/defrag.ts';
import { type FleetView, resolveAlias } from '../decide/fleet-view.ts';
import { type RouteDecision, route } from '../decide/route.ts';
import { Defragmenter, type DefragReport } from './defragmenter.ts';
import { Doubts } from './doubts.ts';
import type { FleetOptions, Ticket } from './fleet-options.ts';
import { IdleWaits } from './idle-waits.ts';
import type { Lease, OpenRequest, UpstreamAnswer } from './lease.ts';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { LoadStatus } from './load-job.ts';
import { LoadJobs } from './load-jobs.ts';
import type { NodeState } from './node-state.ts';
import { Poller } from './poller.ts';
import { shuttingDown, toError } from './rejections.ts';
import { WaitingLine } from './waiting-line.ts';

export class Fleet {
  readonly #options: FleetOptions;
  readonly #nodes: readonly NodeState[];
  readonly #byName: ReadonlyMap<string, NodeState>;
  readonly #poller: Poller;
  readonly #jobs: LoadJobs;
  readonly #line: WaitingLine;
  readonly #defrag: Defragmenter;
  readonly #doubts: Doubts;
  readonly #idle = new IdleWaits();
  readonly #closing = new AbortController();

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#nodes = [...options.nodes].sort((a, b) => (a.name < b.name ? -1 : 1));
    this.#byName = new Map(this.#nodes.map((node) => [node.name, node]));
    this.#doubts = new Doubts(options.clock, () => this.#line.wake());
    this.#poller = new Poller({
      clock: options.clock,
      log: options.log,
      intervalMs: options.pollIntervalMs,
      timeoutMs: options.pollTimeoutMs,
      missesMax: options.missesMax,
      random: options.random ?? Math.random,
      onAnother: (node) => this.#doubts.dropAll(node),
      onPolled: (node) => {
        this.#line.wake();
        this.#defrag.onPolled(node);
      },
    });
    const deps = this.#lifecycleDeps();
    this.#jobs = new LoadJobs({
      deps,
      node: (name) => this.#byName.get(name),
      closing: this.#closing.signal,
      onEnded: (job, waiters, error) => this.#line.jobEnded(job, waiters, error),
    });
    this.#line = new WaitingLine({
      waitersMax: options.waitersMax,
      jobs: this.#jobs,
      decide: (requested, exclude) => route(this.view(), requested, exclude),
      lease: (decision) => this.#lease(decision, true),
    });
    this.#defrag = new Defragmenter({
      deps,
      exclusive: (name, work) => this.#jobs.exclusive(name, work),
      closing: this.#closing.signal,
      afterCycles: options.defragAfterCycles ?? 0,
      waiting: () => this.#line.size,
    });
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
    return this.#line.size;
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
    const ready = this.#line.enter(requested, decision, signal, exclude);
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
    // Of another neuron than was asked for: its own list counts, which is being read.
    if (node === undefined || node.isStranger) return;
    this.doubt(lease, 'model_not_loaded');
    node.setStatus(lease.model, lease.wireId, 'available');
  }

  /** The node answered that the model is not ready, although it is said to be loaded: ask again. */
  doubt(lease: Lease, code: string): void {
    const node = this.#byName.get(lease.node);
    if (node === undefined || this.#closing.signal.aborted) return;
    this.#doubts.raise(node, lease.model, code);
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
      bringBack: (node, model) => void this.#jobs.start(node, model),
      onEvent: (event) => onEvent?.(event),
    };
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
      open: (request) => this.#open(node, model, request),
      release,
    };
  }

  async #open(node: NodeState, model: string, request: OpenRequest): Promise<UpstreamAnswer> {
    const answer = await node.client.open(request);
    if (answer.status < 300) this.#doubts.drop(node, model);
    const instance = answer.headers[instanceHeader];
    if (typeof instance === 'string' && node.isAnother(instance)) {
      node.estrange();
      this.suspect(node.name);
    }
    return answer;
  }

  #pickForLoad(requested: string): string {
    const decision = route(this.view(), requested);
    if (decision.kind === 'reject') throw toError(decision);
    return decision.node;
  }

  #nodesNamed(name: string | null): readonly NodeState[] {
    if (name === null) return this.#nodes.filter((node) => node.healthy);
    const node = this.#byName.get(name);
    if (node === undefined) throw new AppError('not_found', `there is no node "${name}" in the fleet`);
    if (!node.healthy) throw new AppError('node_unhealthy', `${name} does not answer; try again shortly`);
    return [node];
  }

  /** A poll that began after this call. */
  async #refresh(node: NodeState): Promise<void> {
    await this.#poller.settled(node);
    if (!this.#closing.signal.aborted) await this.#poller.poll(node);
  }
}
