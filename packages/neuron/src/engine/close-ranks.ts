/**
 * Which running sequences share a compute graph, and who has to move so that all do: pure functions.
 *
 * With a KV stream each, libllama computes those rows together whose sequence ids follow one another in the
 * batch without a gap (`llama_batch_allocr::split_equal`); every gap is a graph more, and every graph reads
 * all weights. So rows go in order of slots, and a sequence that stands apart is moved when that has cost
 * more than the move.
 */

export interface RunningSlot {
  readonly slot: number;
  /** What a move would copy. */
  readonly bytes: number;
}

export interface SlotMove {
  readonly from: number;
  readonly to: number;
}

/** Graphs of a step in which every slot of `slots`, ascending, adds one row. */
export function countGraphs(slots: readonly number[]): number {
  return slots.filter((slot, index) => index === 0 || slot !== (slots[index - 1] as number) + 1).length;
}

/** The moves into free slots that leave no gap between the running ones, with the fewest bytes to copy. */
export function planMoves(running: readonly RunningSlot[], slots: number): readonly SlotMove[] {
  let best: { moves: readonly SlotMove[]; bytes: number } = { moves: [], bytes: Number.POSITIVE_INFINITY };
  for (let start = 0; start + running.length <= slots; start++) {
    const isInside = (slot: number): boolean => slot >= start && slot < start + running.length;
    const outside = running.filter(({ slot }) => !isInside(slot));
    const bytes = outside.reduce((sum, each) => sum + each.bytes, 0);
    if (bytes >= best.bytes) continue;
    const taken = new Set(running.map(({ slot }) => slot));
    const holes = Array.from(running, (_, index) => start + index).filter((slot) => !taken.has(slot));
    best = { moves: outside.map(({ slot }, index) => ({ from: slot, to: holes[index] as number })), bytes };
  }
  return best.moves;
}

/** A graph more costs about this part of what it takes: the other rows are computed in any case. */
const gapShare = 1 / 2;
/** Asking what moves would cost is not free: after a refusal the loss has to grow by this first. */
const growthMin = 1.25;

/** What gaps between the running slots have cost since there are any, in milliseconds. */
export class GapCosts {
  #ms = 0;
  #askAbove = 0;

  /** A step in which every sequence added one row, or one without a gap. */
  observe(graphs: number, ms: number): void {
    if (graphs === 1) this.clear();
    else this.#ms += (ms * gapShare * (graphs - 1)) / graphs;
  }

  /** What closing the gaps may cost; null = it is not yet time to ask. */
  get worthMs(): number | null {
    return this.#ms > this.#askAbove ? this.#ms : null;
  }

  refused(): void {
    this.#askAbove = this.#ms * growthMin;
  }

  clear(): void {
    this.#ms = 0;
    this.#askAbove = 0;
  }
}
