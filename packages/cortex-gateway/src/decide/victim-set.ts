/**
 * The cheapest set of victims that makes enough room.
 *
 * Two questions. A strategy that is an order (`lru`, `priority`) spares its last candidates first: a set is
 * better when its last member comes earlier in the order, then its last but one, and so on. A strategy that
 * is a price sums it: exactly for up to `exactMax` candidates (branch and bound), above that the best of
 * a few greedy sets, so that the work stays below a few hundred tries.
 */
interface Priced<T> {
  readonly item: T;
  /** More than 0. */
  readonly cost: number;
  /** MiB it frees. */
  readonly size: number;
}

const exactMax = 12;

/** `ordered`: who leaves first comes first; all together suffice. Exact for any number. */
export function lastInOrder<T>(
  ordered: readonly T[],
  suffices: (set: readonly T[]) => boolean,
): readonly T[] {
  let set = ordered;
  for (const candidate of [...ordered].reverse()) {
    const without = set.filter((each) => each !== candidate);
    if (suffices(without)) set = without;
  }
  return set;
}

/** All candidates together suffice. The result is minimal: without any one of it there is not enough room. */
export function cheapestSet<T>(
  candidates: readonly Priced<T>[],
  suffices: (set: readonly T[]) => boolean,
): readonly T[] {
  const chosen =
    candidates.length <= exactMax ? search(candidates, suffices) : bestGuess(candidates, suffices);
  return candidates.filter((each) => chosen.includes(each)).map((each) => each.item);
}

function search<T>(
  candidates: readonly Priced<T>[],
  suffices: (set: readonly T[]) => boolean,
): readonly Priced<T>[] {
  const byCost = [...candidates].sort((a, b) => a.cost - b.cost);
  let best = bestGuess(candidates, suffices);
  let bestCost = priceOf(best);
  const taken: Priced<T>[] = [];
  const visit = (at: number, cost: number): void => {
    if (cost >= bestCost) return;
    if (taken.length > 0 && suffices(taken.map((each) => each.item))) {
      best = [...taken];
      bestCost = cost;
      return;
    }
    for (let next = at; next < byCost.length; next++) {
      const candidate = byCost[next] as Priced<T>;
      // they come by price: whatever follows is no cheaper
      if (cost + candidate.cost >= bestCost) return;
      taken.push(candidate);
      visit(next + 1, cost + candidate.cost);
      taken.pop();
    }
  };
  visit(0, 0);
  return best;
}

/** Cheapest first, cheapest per MiB first, and the cheapest that suffices alone: the best of the three. */
function bestGuess<T>(
  candidates: readonly Priced<T>[],
  suffices: (set: readonly T[]) => boolean,
): readonly Priced<T>[] {
  const enough = (set: readonly Priced<T>[]) => suffices(set.map((each) => each.item));
  const byCost = [...candidates].sort((a, b) => a.cost - b.cost);
  const byDensity = [...candidates].sort(
    (a, b) => a.cost / Math.max(1, a.size) - b.cost / Math.max(1, b.size),
  );
  const guesses = [byCost, byDensity].map((order) => {
    const set: Priced<T>[] = [];
    for (const candidate of order) {
      set.push(candidate);
      if (enough(set)) break;
    }
    // the dearest that is not needed goes free first
    let left: readonly Priced<T>[] = set;
    for (const candidate of [...set].sort((a, b) => b.cost - a.cost)) {
      const without = left.filter((each) => each !== candidate);
      if (without.length > 0 && enough(without)) left = without;
    }
    return left;
  });
  const alone = byCost.find((candidate) => enough([candidate]));
  if (alone !== undefined) guesses.push([alone]);
  return guesses.reduce((best, guess) => (priceOf(guess) < priceOf(best) ? guess : best));
}

function priceOf<T>(set: readonly Priced<T>[]): number {
  return set.reduce((total, each) => total + each.cost, 0);
}
