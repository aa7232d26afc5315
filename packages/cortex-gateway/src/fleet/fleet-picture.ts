/**
 * The one FleetView, kept up to date: a change of a node marks its slot, and the next reader mends what is
 * marked. A request that nothing happened before makes nothing.
 */
import { FleetIndex } from '../decide/fleet-index.ts';
import type { EvictionStrategy, FleetView } from '../decide/fleet-view.ts';
import type { RateBook } from '../decide/rate-book.ts';
import type { Catalogue } from './catalogue.ts';
import type { NodeState } from './node-state.ts';

export interface PictureFacts {
  /** Sorted by name. */
  readonly nodes: readonly NodeState[];
  readonly catalogue: Catalogue;
  readonly strategy: EvictionStrategy;
}

export class FleetPicture {
  readonly #rates: RateBook;
  readonly #nowMs: () => number;
  readonly #changed = new Set<NodeState>();
  #slots: ReadonlyMap<NodeState, number> = new Map();
  #index: FleetIndex;
  #view: FleetView;

  constructor(rates: RateBook, nowMs: () => number, facts: PictureFacts) {
    this.#rates = rates;
    this.#nowMs = nowMs;
    [this.#view, this.#index] = this.#draw(facts);
  }

  /** Other nodes, another catalogue: all is drawn anew. */
  replace(facts: PictureFacts): void {
    [this.#view, this.#index] = this.#draw(facts);
  }

  /** As of now; it holds until the next await. */
  view(): FleetView {
    for (const node of this.#changed) {
      const slot = this.#slots.get(node);
      // one that left the fleet may still change
      if (slot !== undefined) this.#index.update(slot, node.toView());
    }
    this.#changed.clear();
    return this.#view;
  }

  #draw({ nodes, catalogue, strategy }: PictureFacts): readonly [FleetView, FleetIndex] {
    const { entries, aliases } = catalogue;
    const facts = { catalogue: entries, aliases, strategy, rates: this.#rates };
    const onChanged = (node: NodeState): void => void this.#changed.add(node);
    for (const node of nodes) node.watch({ nowMs: this.#nowMs, onChanged });
    this.#slots = new Map(nodes.map((node, slot) => [node, slot]));
    this.#changed.clear();
    const index = new FleetIndex(
      nodes.map((node) => node.toView()),
      facts,
    );
    return [{ ...facts, nodes: index.nodes, index }, index];
  }
}
