/** What a person asks of the fleet: loads, unloads, nodes out of service, defragmentation. */
import type { Log } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { DefragPlan } from '../decide/defrag.ts';
import { type FleetView, resolveAlias } from '../decide/fleet-view.ts';
import { considerNode } from '../decide/placement.ts';
import { rejectUnknown } from '../decide/refusals.ts';
import type { RouteDecision } from '../decide/route.ts';
import type { Defragmenter, DefragReport } from './defragmenter.ts';
import type { LoadStatus } from './load-job.ts';
import type { LoadJobs } from './load-jobs.ts';
import type { NodeSet } from './node-set.ts';
import type { NodeState } from './node-state.ts';
import { outOfService, toError } from './rejections.ts';

export interface OperationsOptions {
  readonly nodes: NodeSet;
  /** Nodes that have gone and still have requests; one at another address has a successor of its name. */
  readonly leaving: () => readonly NodeState[];
  readonly jobs: LoadJobs;
  readonly defrag: Defragmenter;
  readonly log: Log;
  readonly view: () => FleetView;
  /** Where a request for that model would go. */
  readonly decide: (model: string) => RouteDecision;
}

export class Operations {
  readonly #options: OperationsOptions;

  constructor(options: OperationsOptions) {
    this.#options = options;
  }

  /** Of a load of that model under way or waiting for its turn; null = there is none. */
  loadStatus(requested: string): LoadStatus | null {
    const { nodes, jobs } = this.#options;
    const model = this.#resolve(requested);
    for (const node of nodes.all) {
      const status = jobs.statusOn(node, model);
      if (status !== null) return status;
    }
    return null;
  }

  /** Loads a model, on the named node or the best one. Resolves with the node when it is up. */
  async load(requested: string, nodeName: string | null): Promise<string> {
    const { nodes, jobs } = this.#options;
    const model = this.#resolve(requested);
    const name = nodeName ?? this.#pickForLoad(requested);
    const node = nodes.named(name);
    if (node.toView().models.get(model)?.status === 'loaded') return name;
    await jobs.load(name, model);
    return name;
  }

  /** Unloads a model from the named node or from all. Resolves with the nodes that had it. */
  async unload(requested: string, nodeName: string | null): Promise<readonly string[]> {
    const { nodes, jobs } = this.#options;
    const model = this.#resolve(requested);
    const holders = nodes.all.filter(
      (node) =>
        (nodeName === null || node.name === nodeName) && node.toView().models.get(model)?.status === 'loaded',
    );
    if (holders.length === 0) {
      const where = nodeName === null ? 'any node' : nodeName;
      throw new AppError('model_not_loaded', `model "${model}" is not loaded on ${where}`);
    }
    await Promise.all(holders.map((node) => jobs.unload(node, model)));
    return holders.map((node) => node.name);
  }

  /** Stops the loads of that model, on the named node or on all. Resolves with the nodes that had one. */
  async cancel(requested: string, nodeName: string | null): Promise<readonly string[]> {
    const { nodes, jobs } = this.#options;
    const model = this.#resolve(requested);
    const asked = nodeName === null ? nodes.all : [nodes.named(nodeName)];
    const had = await Promise.all(asked.map((node) => jobs.cancel(node, model)));
    const stopped = asked.filter((_, i) => had[i] === true).map((node) => node.name);
    if (stopped.length > 0) return stopped;
    const where = nodeName === null ? 'any node' : nodeName;
    throw new AppError('model_not_loaded', `model "${model}" is not being loaded on ${where}`);
  }

  /**
   * `drained`: the node gets no new requests and no loads; running ones end, or are cut after `deadlineMs`.
   * `cordoned`: no loads only. Loads that wait for their turn there go elsewhere. Returns the node.
   */
  drain(name: string, mode: 'cordoned' | 'drained', deadlineMs: number | null): NodeState {
    const { nodes, jobs, log } = this.#options;
    const node = nodes.named(name);
    for (const each of [node, ...this.#leavingAs(name)]) each.service.close(mode, deadlineMs);
    jobs.dropQueued(name, (model) => outOfService(name, mode, model));
    log.info('node out of service', { node: name, mode, deadline_ms: deadlineMs });
    return node;
  }

  undrain(name: string): NodeState {
    const { nodes, jobs, log } = this.#options;
    const node = nodes.named(name);
    for (const each of [node, ...this.#leavingAs(name)]) each.service.open();
    jobs.consider(name);
    log.info('node back in service', { node: name });
    return node;
  }

  /** What a defragmentation would do now, on one node or on all; `model`: make room for that one. */
  planDefrag(nodeName: string | null, requested: string | null): readonly DefragPlan[] {
    const model = requested === null ? null : this.#resolveKnown(requested);
    return this.#nodesNamed(nodeName).map((node) => this.#options.defrag.plan(node, model));
  }

  /** Carries out what `planDefrag` shows, all nodes at once. */
  async defrag(nodeName: string | null, requested: string | null): Promise<readonly DefragReport[]> {
    const model = requested === null ? null : this.#resolveKnown(requested);
    return Promise.all(this.#nodesNamed(nodeName).map((node) => this.#options.defrag.run(node, model)));
  }

  /** Under that name at an address of before. */
  #leavingAs(name: string): readonly NodeState[] {
    return this.#options.leaving().filter((node) => node.name === name);
  }

  #resolve(requested: string): string {
    return resolveAlias(this.#options.view(), requested);
  }

  #resolveKnown(requested: string): string {
    const view = this.#options.view();
    const model = resolveAlias(view, requested);
    if (view.catalogue.has(model) || view.nodes.some((node) => node.models.has(model))) return model;
    throw toError(rejectUnknown(view, requested, model));
  }

  /** A person may load what is poisoned, which no request may. */
  #pickForLoad(requested: string): string {
    const decision = this.#options.decide(requested);
    if (decision.kind !== 'reject') return decision.node;
    const view = this.#options.view();
    const model = resolveAlias(view, requested);
    const node = view.nodes.find(
      (each) => !('reason' in considerNode(view, each, model, { explicit: true })),
    );
    if (node === undefined) throw toError(decision);
    return node.name;
  }

  #nodesNamed(name: string | null): readonly NodeState[] {
    const { nodes } = this.#options;
    if (name === null) return nodes.all.filter((node) => node.healthy);
    const node = nodes.named(name);
    if (!node.healthy) throw new AppError('node_unhealthy', `${name} does not answer; try again shortly`);
    return [node];
  }
}
