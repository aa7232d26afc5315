/**
 * Brings the nodes from one configuration to the next. Those that stay keep all that is known of them. One
 * that comes, or has another address, is asked once; those that leave, and the old address, serve until then.
 * They take no new request afterwards and keep those they have. A load that was wanted at the old address is
 * wanted at the new one.
 */
import type { Catalogue } from './catalogue.ts';
import type { LoadJobs } from './load-jobs.ts';
import type { NodeSet, NodeSpec } from './node-set.ts';
import type { NodeState } from './node-state.ts';
import type { Poller } from './poller.ts';
import { outOfService } from './rejections.ts';

export interface MembershipOptions {
  readonly nodes: NodeSet;
  readonly poller: Poller;
  readonly jobs: LoadJobs;
  readonly closing: AbortSignal;
  /** The nodes are others now, or are known by other entries. */
  readonly onChange: (catalogue: Catalogue) => void;
  /** What was known of the node is of no use any more; `next` has its name now, null = nobody. */
  readonly onLeft: (node: NodeState, next: NodeState | null) => void;
}

export class Membership {
  readonly #options: MembershipOptions;
  /** Gone from the configuration, until their last request has ended. */
  readonly #leaving = new Set<NodeState>();

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Those that get no new requests and still have some. */
  get leaving(): readonly NodeState[] {
    return [...this.#leaving];
  }

  /** The first nodes: they are not asked. */
  begin(specs: readonly NodeSpec[], catalogue: Catalogue): void {
    this.#replace(specs, catalogue, []);
  }

  /**
   * `isCurrent`: whether no later configuration came, which then decides. Resolves with whether the nodes are
   * the ones of this configuration.
   */
  async become(specs: readonly NodeSpec[], catalogue: Catalogue, isCurrent: () => boolean): Promise<boolean> {
    const { nodes, poller, closing } = this.#options;
    if (closing.aborted) return false;
    const names = new Set(specs.map(({ name }) => name));
    const leaving = nodes.all.filter(({ name }) => !names.has(name));
    const moved = specs.filter(({ name, endpoint }) => (nodes.get(name)?.endpoint ?? endpoint) !== endpoint);
    const meanwhile = specs.map((spec) => nodes.get(spec.name) ?? spec);
    const added = this.#replace([...meanwhile, ...leaving], catalogue, []);
    const arriving = moved.map((spec) => nodes.create(spec, catalogue));
    await poller.add([...added, ...arriving]);
    if (closing.aborted || !isCurrent()) {
      for (const node of arriving) this.#discard(node);
      return false;
    }
    this.#replace(specs, catalogue, arriving);
    return true;
  }

  /** A lease of that node was given back. */
  released(node: NodeState): void {
    if (node.leaseCount > 0 || !this.#leaving.delete(node)) return;
    this.#discard(node);
  }

  /** Returns those that nobody has asked yet. */
  #replace(
    specs: readonly NodeSpec[],
    catalogue: Catalogue,
    arriving: readonly NodeState[],
  ): readonly NodeState[] {
    const { nodes, onChange } = this.#options;
    const { added, removed } = nodes.replace(specs, catalogue, arriving);
    onChange(catalogue);
    for (const node of removed) this.#leave(node, nodes.get(node.name) ?? null);
    return added.filter((node) => !arriving.includes(node));
  }

  #leave(node: NodeState, next: NodeState | null): void {
    const { poller, jobs, onLeft } = this.#options;
    poller.remove(node);
    // who drained it meant the machine, whatever its address
    const { mode } = node.service;
    if (next !== null && mode !== 'open') next.service.close(mode, null);
    if (next === null) jobs.dropAll(node.name, (model) => outOfService(node.name, 'removed', model));
    else jobs.restart(node.name, (model) => outOfService(node.name, 'moved', model));
    onLeft(node, next);
    this.#leaving.add(node);
    this.released(node);
  }

  #discard(node: NodeState): void {
    this.#options.poller.remove(node);
    node.service.stop();
    node.client.close().catch(() => {});
  }
}
