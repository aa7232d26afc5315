/**
 * The one FleetView, kept up to date: a change of a node marks its slot, and the next reader mends what is
 * marked. A request that nothing happened before makes nothing.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { FleetIndex } from '../decide/fleet-index.ts';
import type {
  EvictionStrategy,
  EvictionTerms,
  FleetView,
  HostedModels,
  TurnTerms,
} from '../decide/fleet-view.ts';
import type { RateBook } from '../decide/rate-book.ts';
import type { Catalogue } from './catalogue.ts';
import type { NodeState } from './node-state.ts';

export interface PictureFacts {
  /** Sorted by name. */
  readonly nodes: readonly NodeState[];
  readonly catalogue: Catalogue;
  readonly strategy: EvictionStrategy;
}

export interface PictureSources {
  readonly rates: RateBook;
  readonly nowMs: () => number;
  readonly turns: TurnTerms;
  /** What providers have; absent = nothing. */
  readonly hosted?: HostedModels;
}

export class FleetPicture {
  readonly #sources: PictureSources;
  readonly #terms: EvictionTerms;
  readonly #changed = new Set<NodeState>();
  #slots: ReadonlyMap<NodeState, number> = new Map();
  #index: FleetIndex;
  #view: FleetView;

  constructor(sources: PictureSources, facts: PictureFacts) {
    const { turns, nowMs } = sources;
    this.#sources = sources;
    this.#terms = {
      get nowMs() {
        return nowMs();
      },
      gapMs: (node, model) => turns.habits(node, model)?.gapMs ?? null,
    };
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
    const { rates, hosted, turns } = this.#sources;
    const facts = { catalogue: entries, aliases, strategy, rates, terms: this.#terms, turns };
    const onChanged = (node: NodeState): void => void this.#changed.add(node);
    for (const node of nodes) node.watch({ onChanged });
    this.#slots = new Map(nodes.map((node, slot) => [node, slot]));
    this.#changed.clear();
    const index = new FleetIndex(
      nodes.map((node) => node.toView()),
      facts,
    );
    return [{ ...facts, nodes: index.nodes, index, ...(hosted === undefined ? {} : { hosted }) }, index];
  }
}

/** A picture without nodes yet. */
export function createPicture(
  { catalogue, strategy }: Pick<PictureFacts, 'catalogue' | 'strategy'>,
  rates: RateBook,
  turns: TurnTerms,
  clock: Clock,
  hosted: HostedModels,
): FleetPicture {
  const nowMs = (): number => clock.monotonicMs();
  return new FleetPicture({ rates, turns, nowMs, hosted }, { nodes: [], catalogue, strategy });
}
