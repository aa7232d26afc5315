/**
 * The nodes that hold one model, side by side and in the order of their names: what a decision reads of each
 * without a look-up. A change of a node mends its row; leases are counted in the views themselves.
 */
import { slotsOf } from './expected-time.ts';
import type { ModelView, NodeView } from './fleet-view.ts';
import type { Rates } from './rate-book.ts';

export class Replicas {
  readonly #slots: number[] = [];
  readonly #nodes: NodeView[] = [];
  readonly #held: (ModelView | undefined)[] = [];
  readonly #serves: boolean[] = [];
  readonly #capacity: number[] = [];
  readonly #foreign: number[] = [];
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

  /** The node takes requests, and the model is loaded there and stays. */
  get serves(): readonly boolean[] {
    return this.#serves;
  }

  /** Requests that it runs at once. */
  get capacity(): readonly number[] {
    return this.#capacity;
  }

  /** Requests there that are not this gateway's, as of the last poll. */
  get foreign(): readonly number[] {
    return this.#foreign;
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
      this.#serves.splice(row, 0, node.healthy && isReady(held));
      this.#capacity.splice(row, 0, slotsOf(held));
      this.#foreign.splice(row, 0, held?.foreignLoad ?? 0);
      this.#rates.splice(row, 0, null);
      if (this.#ratesFrom !== null) this.#look(row, this.#ratesFrom);
      return;
    }
    this.#nodes[row] = node;
    this.#held[row] = held;
    this.#serves[row] = node.healthy && isReady(held);
    this.#capacity[row] = slotsOf(held);
    this.#foreign[row] = held?.foreignLoad ?? 0;
  }

  /** Of the node in that slot; null = it is none of them. */
  rowOf(slot: number): number | null {
    const row = rowOf(this.#slots, slot);
    return this.#slots[row] === slot ? row : null;
  }

  /** It does not have it any more; nothing happens where it never had. */
  remove(slot: number): void {
    const row = rowOf(this.#slots, slot);
    if (this.#slots[row] !== slot) return;
    for (const numbers of [this.#slots, this.#capacity, this.#foreign]) numbers.splice(row, 1);
    for (const others of [this.#nodes, this.#held, this.#serves, this.#rates]) others.splice(row, 1);
  }

  #look(row: number, from: ReadonlyMap<string, Rates>): void {
    const node = this.#nodes[row];
    this.#rates[row] = node === undefined ? null : (from.get(node.name) ?? null);
  }
}

/** It is loaded, can serve, and is no victim of another load. */
export function isReady(held: ModelView | undefined): boolean {
  return held?.status === 'loaded' && held.unservable === null && !held.draining;
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
