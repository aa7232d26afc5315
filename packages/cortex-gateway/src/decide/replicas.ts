/**
 * The nodes that hold one model, side by side and in the order of their names: what a decision reads of each
 * without a look-up. A change of a node mends its row; leases are counted in the views themselves.
 */
import type { ModelView, NodeView } from './fleet-view.ts';
import type { Rates } from './rate-book.ts';

export class Replicas {
  readonly #slots: number[] = [];
  readonly #nodes: NodeView[] = [];
  readonly #held: (ModelView | undefined)[] = [];
  readonly #rates: (Rates | null)[] = [];
  /** What `#rates` were looked up in, and how many it had. */
  #ratesFrom: ReadonlyMap<string, Rates> | null = null;
  #ratesSize = 0;

  /** Ascending. */
  get slots(): readonly number[] {
    return this.#slots;
  }

  /** Of the node in the slot of that row. */
  get nodes(): readonly NodeView[] {
    return this.#nodes;
  }

  /** undefined = a load is wanted there, and the node does not list the model. */
  get held(): readonly (ModelView | undefined)[] {
    return this.#held;
  }

  /**
   * What each node measured with the model. `from`: by node. A row keeps what was found: such a map only
   * grows, and a node's numbers change in place (`RateSource`).
   */
  ratesIn(from: ReadonlyMap<string, Rates>): readonly (Rates | null)[] {
    const isOther = this.#ratesFrom !== from;
    if (!isOther && this.#ratesSize === from.size) return this.#rates;
    for (let row = 0; row < this.#nodes.length; row++) {
      if (isOther || this.#rates[row] === null) this.#look(row, from);
    }
    this.#ratesFrom = from;
    this.#ratesSize = from.size;
    return this.#rates;
  }

  /** The node of that slot has it, as `held` says. */
  put(slot: number, node: NodeView, held: ModelView | undefined): void {
    const row = rowOf(this.#slots, slot);
    if (this.#slots[row] !== slot) {
      this.#slots.splice(row, 0, slot);
      this.#nodes.splice(row, 0, node);
      this.#held.splice(row, 0, held);
      this.#rates.splice(row, 0, null);
      if (this.#ratesFrom !== null) this.#look(row, this.#ratesFrom);
      return;
    }
    this.#nodes[row] = node;
    this.#held[row] = held;
  }

  /** It does not have it any more; nothing happens where it never had. */
  remove(slot: number): void {
    const row = rowOf(this.#slots, slot);
    if (this.#slots[row] !== slot) return;
    for (const column of [this.#slots, this.#nodes, this.#held, this.#rates]) column.splice(row, 1);
  }

  #look(row: number, from: ReadonlyMap<string, Rates>): void {
    const node = this.#nodes[row];
    this.#rates[row] = node === undefined ? null : (from.get(node.name) ?? null);
  }
}

/** Where that slot is among those, ascending, or would be. */
export function rowOf(slots: readonly number[], slot: number): number {
  let low = 0;
  let high = slots.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((slots[middle] ?? 0) < slot) low = middle + 1;
    else high = middle;
  }
  return low;
}
