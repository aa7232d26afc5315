/**
 * The one FleetView, kept up to date: a change of a node marks its slot, and the next reader mends what is
 * marked. A request that nothing happened before makes nothing.
 */
import { FleetIndex } from '../decide/fleet-index.ts';
import type { EvictionStrategy, FleetView, HostedModels } from '../decide/fleet-view.ts';
import type { RateBook } from '../decide/rate-book.ts';
import type { Catalogue } from './catalogue.ts';
import type { NodeState } from './node-state.ts';

export interface PictureOptions {
  /** Sorted by name. */
  readonly nodes: readonly NodeState[];
  readonly catalogue: Catalogue;
  readonly strategy: EvictionStrategy;
  readonly rates: RateBook;
  readonly nowMs: () => number;
  /** What providers have; absent = nothing. */
  readonly hosted?: HostedModels;
}

export class FleetPicture {
  readonly #slots: ReadonlyMap<NodeState, number>;
  readonly #changed = new Set<NodeState>();
  readonly #index: FleetIndex;
  readonly #view: FleetView;

  constructor({ nodes, catalogue, strategy, rates, nowMs, hosted }: PictureOptions) {
    const { entries, aliases } = catalogue;
    this.#slots = new Map(nodes.map((node, slot) => [node, slot]));
    const facts = { catalogue: entries, aliases, strategy, rates };
    for (const node of nodes) node.watch({ nowMs, onChanged: () => this.#changed.add(node) });
    const views = nodes.map((node) => node.toView());
    this.#index = new FleetIndex(views, facts);
    this.#view = {
      ...facts,
      nodes: this.#index.nodes,
      index: this.#index,
      ...(hosted === undefined ? {} : { hosted }),
    };
  }

  /** As of now; it holds until the next await. */
  view(): FleetView {
    for (const node of this.#changed) {
      const slot = this.#slots.get(node);
      if (slot !== undefined) this.#index.update(slot, node.toView());
    }
    this.#changed.clear();
    return this.#view;
  }
}
