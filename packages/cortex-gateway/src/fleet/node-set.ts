/** The nodes of the configuration, sorted by name. A reload keeps those that stay as they are. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import type { Catalogue } from './catalogue.ts';
import type { NodeServiceOptions } from './node-service.ts';
import { NodeState } from './node-state.ts';
import { noNode } from './rejections.ts';

export interface NodeSpec {
  readonly name: string;
  readonly endpoint: string;
}

export interface NodeSetOptions {
  readonly connect: (spec: NodeSpec) => NeuronClient;
  readonly service: (name: string) => NodeServiceOptions;
}

export interface NodeSetChange {
  readonly added: readonly NodeState[];
  readonly removed: readonly NodeState[];
}

export class NodeSet {
  readonly #options: NodeSetOptions;
  #byName = new Map<string, NodeState>();
  #all: readonly NodeState[] = [];

  constructor(options: NodeSetOptions) {
    this.#options = options;
  }

  get all(): readonly NodeState[] {
    return this.#all;
  }

  get(name: string): NodeState | undefined {
    return this.#byName.get(name);
  }

  /** Throws `not_found` for a name that no node has. */
  named(name: string): NodeState {
    const node = this.#byName.get(name);
    if (node === undefined) throw noNode(name);
    return node;
  }

  /**
   * A node at another address is another node: one of `arriving`, where it is there, else a new one. Removed
   * ones are the caller's to close.
   */
  replace(
    specs: readonly NodeSpec[],
    catalogue: Catalogue,
    arriving: readonly NodeState[] = [],
  ): NodeSetChange {
    const before = this.#byName;
    const arrived = new Map(arriving.map((node) => [node.name, node]));
    const kept = new Map<string, NodeState>();
    const added: NodeState[] = [];
    for (const spec of specs) {
      const known = before.get(spec.name);
      if (known !== undefined && known.endpoint === spec.endpoint) {
        known.setCatalogue(catalogue);
        kept.set(spec.name, known);
        continue;
      }
      const node = arrived.get(spec.name) ?? this.create(spec, catalogue);
      kept.set(spec.name, node);
      added.push(node);
    }
    const removed = [...before.values()].filter((node) => kept.get(node.name) !== node);
    this.#byName = kept;
    this.#all = [...kept.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return { added, removed };
  }

  /** One that is not in the set yet. */
  create(spec: NodeSpec, catalogue: Catalogue): NodeState {
    const client = this.#options.connect(spec);
    return new NodeState(spec, client, catalogue, this.#options.service(spec.name));
  }
}

export interface NodeSetParts {
  readonly connect: NodeSetOptions['connect'];
  readonly clock: Clock;
  readonly log: Log;
  readonly failuresMax: () => number;
  readonly onChange: () => void;
}

/** An empty set whose nodes tell the log when they rest. */
export function createNodeSet({ connect, clock, log, failuresMax, onChange }: NodeSetParts): NodeSet {
  return new NodeSet({
    connect,
    service: (name) => ({
      ...{ clock, failuresMax, onChange },
      onCircuit: (circuit) => log.warn('node circuit', { node: name, circuit }),
    }),
  });
}
