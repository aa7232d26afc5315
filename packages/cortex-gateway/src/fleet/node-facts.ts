/** What is known of single nodes and of the models on them, for whoever holds a lease there. */
import type { NodeSet } from './node-set.ts';
import type { NodeState } from './node-state.ts';
import type { Providers } from './providers.ts';

export class NodeFacts {
  readonly #nodes: NodeSet;
  readonly #providers: Pick<Providers, 'names' | 'capabilitiesOf'>;
  readonly #refresh: (node: NodeState) => Promise<void>;

  /** `refresh`: a poll that began after the call. */
  constructor(
    nodes: NodeSet,
    providers: Pick<Providers, 'names' | 'capabilitiesOf'>,
    refresh: (node: NodeState) => Promise<void>,
  ) {
    this.#nodes = nodes;
    this.#providers = providers;
    this.#refresh = refresh;
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
}
