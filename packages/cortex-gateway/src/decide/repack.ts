/**
 * The cheapest moves of models between devices after which something holds.
 *
 * Problem: enough memory is free, but in pieces. Moving costs about what loading costs, so the plan with
 * the fewest MiB moved wins, then the one with the fewest moves. While a model moves both devices hold it,
 * so each step needs room for it where it goes. Design: A* over where the models are. Nothing moved by m
 * MiB can raise the memory that is free together by more than m, so what is still missing is a lower bound
 * of what is still to be moved. Limits: the `piecesMax` smallest models, `positionsMax` positions (a few
 * milliseconds); a search that ends there has no answer.
 */
export interface Piece {
  readonly id: string;
  /** MiB, more than 0. */
  readonly mb: number;
  readonly at: number;
  /** Devices where it may be. */
  readonly mayBe: readonly number[];
}

export interface RepackStep {
  readonly id: string;
  readonly from: number;
  readonly to: number;
  readonly mb: number;
}

export interface Repack {
  readonly steps: readonly RepackStep[];
  readonly movedMb: number;
}

interface Position {
  /** Device of each piece, in their order. */
  readonly at: readonly number[];
  readonly movedMb: number;
  readonly moves: number;
  /** movedMb and at least what is still to be moved. */
  readonly boundMb: number;
  readonly before: Position | null;
  readonly step: RepackStep | null;
}

const piecesMax = 24;
const positionsMax = 10_000;

/**
 * `missingMb`: how much more must be free together, for the free MiB per device; 0 = it fits. Null: no moves
 * lead there, or none were found within the limits; `mostMb`: what they may move at most.
 */
export function repack(
  free: ReadonlyMap<number, number>,
  all: readonly Piece[],
  missingMb: (free: ReadonlyMap<number, number>) => number,
  mostMb = Number.POSITIVE_INFINITY,
): Repack | null {
  const pieces = [...all].sort((a, b) => a.mb - b.mb || (a.id < b.id ? -1 : 1)).slice(0, piecesMax);
  const start = pieces.map((piece) => piece.at);
  const queue = new PositionHeap();
  const cheapest = new Map<string, number>([[start.join(), 0]]);
  queue.push({ at: start, movedMb: 0, moves: 0, boundMb: missingMb(free), before: null, step: null });
  let positions = 0;
  for (let position = queue.pop(); position !== null; position = queue.pop()) {
    const left = freeAt(free, pieces, position.at);
    if (missingMb(left) <= 0) return toRepack(position);
    for (const next of movesFrom(position, pieces, left, missingMb)) {
      if (next.boundMb > mostMb) continue;
      const key = next.at.join();
      if ((cheapest.get(key) ?? Number.POSITIVE_INFINITY) <= next.movedMb) continue;
      cheapest.set(key, next.movedMb);
      queue.push(next);
      if (++positions > positionsMax) return null;
    }
  }
  return null;
}

function* movesFrom(
  position: Position,
  pieces: readonly Piece[],
  left: ReadonlyMap<number, number>,
  missingMb: (free: ReadonlyMap<number, number>) => number,
): Generator<Position, void, void> {
  for (const [i, { id, mb, mayBe }] of pieces.entries()) {
    const from = position.at[i];
    if (from === undefined) continue;
    for (const to of mayBe) {
      const room = left.get(to);
      if (to === from || room === undefined || room < mb) continue;
      const movedMb = position.movedMb + mb;
      const then = new Map(left).set(to, room - mb).set(from, (left.get(from) ?? 0) + mb);
      yield {
        at: position.at.with(i, to),
        movedMb,
        moves: position.moves + 1,
        boundMb: movedMb + Math.max(0, missingMb(then)),
        before: position,
        step: { id, from, to, mb },
      };
    }
  }
}

function freeAt(
  free: ReadonlyMap<number, number>,
  pieces: readonly Piece[],
  at: readonly number[],
): Map<number, number> {
  const left = new Map(free);
  for (const [i, piece] of pieces.entries()) {
    const now = at[i] ?? piece.at;
    if (now === piece.at) continue;
    left.set(piece.at, (left.get(piece.at) ?? 0) + piece.mb);
    left.set(now, (left.get(now) ?? 0) - piece.mb);
  }
  return left;
}

function toRepack(end: Position): Repack {
  const steps: RepackStep[] = [];
  for (let at: Position | null = end; at !== null; at = at.before) if (at.step !== null) steps.push(at.step);
  return { steps: steps.reverse(), movedMb: end.movedMb };
}

/** A binary heap: the least bound first, then the fewest moves. */
class PositionHeap {
  readonly #items: Position[] = [];

  push(item: Position): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(items[at], items[parent])) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  pop(): Position | null {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (first === undefined || last === undefined) return null;
    if (items.length === 0) return first;
    items[0] = last;
    for (let at = 0; ; ) {
      const [left, right] = [2 * at + 1, 2 * at + 2];
      const child = isBefore(items[right], items[left]) ? right : left;
      if (!isBefore(items[child], items[at])) return first;
      this.#swap(at, child);
      at = child;
    }
  }

  #swap(a: number, b: number): void {
    const [first, second] = [this.#items[a], this.#items[b]];
    if (first === undefined || second === undefined) return;
    this.#items[a] = second;
    this.#items[b] = first;
  }
}

function isBefore(a: Position | undefined, b: Position | undefined): boolean {
  if (a === undefined || b === undefined) return a !== undefined;
  return a.boundMb < b.boundMb || (a.boundMb === b.boundMb && a.moves < b.moves);
}
