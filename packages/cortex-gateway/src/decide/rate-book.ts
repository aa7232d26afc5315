/**
 * How fast each node is with each model: moving averages of what was measured. It has no clock: what
 * happened comes in as numbers, so a simulator keeps one as the fleet does. Sums are kept with the values,
 * so that a mean over a thousand nodes costs a decision nothing. Limit: pairs of node and model; the model
 * that was longest untouched goes first.
 */

/** Of one model on one node, or over the nodes of a model; null = never measured. */
export interface Rates {
  /** From the call that loads it to the answer; what was evicted for it is not included. */
  readonly loadMs: number | null;
  /** Prompt tokens per second, of those that were not cached. */
  readonly prefillTokS: number | null;
  readonly decodeTokS: number | null;
  /** How long a request holds its slot. */
  readonly serviceMs: number | null;
}

export type RateName = keyof Rates;

export interface RateSource {
  of(node: string, model: string): Rates | null;
  /** Means over all nodes that have measured it. */
  ofModel(model: string): Rates | null;
  /**
   * By node, of those that have measured anything of that model. The map grows in place and a node's numbers
   * change in place; when the model is forgotten, the next map is another one.
   */
  byNode(model: string): ReadonlyMap<string, Rates>;
  /** At least the most `prefillTokS` and at most the least `serviceMs` of any node; null = none has any. */
  bestOf(model: string): BestRates | null;
  /** MiB of a model that come up per second on that node, whatever the model. */
  loadMbS(node: string): number | null;
}

/** Bounds of what the nodes of a model have measured. */
export interface BestRates {
  readonly prefillTokS: number;
  /** Infinite = not measured. */
  readonly serviceMs: number;
}

/** One pair as the state file keeps it. */
export interface RateRow extends Partial<Rates> {
  readonly node: string;
  readonly model: string;
}

export interface RateRows {
  readonly rates: readonly RateRow[];
  /** MiB per second by node. */
  readonly loadMbS: Readonly<Record<string, number>>;
}

type Values = { -readonly [K in RateName]: Rates[K] };

interface ModelRates {
  readonly byNode: Map<string, Values>;
  readonly means: Values;
  readonly counts: Record<RateName, number>;
  best: BestRates;
  /** Until `best` is taken from all nodes again. */
  notesLeft: number;
}

const rateNames = ['loadMs', 'prefillTokS', 'decodeTokS', 'serviceMs'] as const;
const newestWeight = 0.3;
const pairsMax = 20_000;
/** A best value that has passed is forgotten after so many measurements. */
const bestHoldsFor = 1000;
const noBest: BestRates = { prefillTokS: 0, serviceMs: Number.POSITIVE_INFINITY };

export class RateBook implements RateSource {
  readonly #models = new Map<string, ModelRates>();
  readonly #loadMbS = new Map<string, number>();
  #pairs = 0;
  /** Grows with each change, so that a keeper knows what it has not written. */
  version = 0;

  of(node: string, model: string): Rates | null {
    return this.#models.get(model)?.byNode.get(node) ?? null;
  }

  ofModel(model: string): Rates | null {
    return this.#models.get(model)?.means ?? null;
  }

  byNode(model: string): ReadonlyMap<string, Rates> {
    return this.#models.get(model)?.byNode ?? none;
  }

  bestOf(model: string): BestRates | null {
    return this.#models.get(model)?.best ?? null;
  }

  loadMbS(node: string): number | null {
    return this.#loadMbS.get(node) ?? null;
  }

  /** Takes a measurement in; what is not a positive number is none. */
  note(node: string, model: string, name: RateName, value: number): void {
    if (!Number.isFinite(value) || value <= 0) return;
    const rates = this.#touch(model);
    const pair = this.#pair(rates, node);
    const before = pair[name];
    const after = before === null ? value : before + newestWeight * (value - before);
    pair[name] = after;
    const count = rates.counts[name];
    const sum = (rates.means[name] ?? 0) * count;
    rates.counts[name] = before === null ? count + 1 : count;
    rates.means[name] = (sum - (before ?? 0) + after) / rates.counts[name];
    noteBest(rates, pair);
    this.version++;
    if (this.#pairs > pairsMax) this.#dropOldest();
  }

  /** A load of that many MiB took so long; 0 = the size is not known. */
  noteLoad(node: string, model: string, ms: number, sizeMb: number): void {
    this.note(node, model, 'loadMs', ms);
    if (!(sizeMb > 0 && ms > 0)) return;
    const rate = (sizeMb * 1000) / ms;
    const before = this.#loadMbS.get(node);
    this.#loadMbS.set(node, before === undefined ? rate : before + newestWeight * (rate - before));
  }

  toRows(): RateRows {
    const rates = [...this.#models].flatMap(([model, { byNode }]) =>
      [...byNode].map(([node, values]) => ({ node, model, ...values })),
    );
    return { rates, loadMbS: Object.fromEntries(this.#loadMbS) };
  }

  /** What an earlier life has measured, for what this one has not. */
  restore({ rates, loadMbS }: RateRows): void {
    for (const row of rates) {
      const known = this.of(row.node, row.model);
      for (const name of rateNames) {
        if (known === null || known[name] === null) this.note(row.node, row.model, name, row[name] ?? 0);
      }
    }
    for (const [node, value] of Object.entries(loadMbS)) {
      if (!this.#loadMbS.has(node)) this.#loadMbS.set(node, value);
    }
  }

  /** The model's rates, moved to the end: the first is the longest untouched. */
  #touch(model: string): ModelRates {
    const found = this.#models.get(model);
    if (found !== undefined) this.#models.delete(model);
    const rates = found ?? {
      byNode: new Map(),
      means: noValues(),
      counts: { loadMs: 0, prefillTokS: 0, decodeTokS: 0, serviceMs: 0 },
      best: noBest,
      notesLeft: bestHoldsFor,
    };
    this.#models.set(model, rates);
    return rates;
  }

  #pair(rates: ModelRates, node: string): Values {
    const found = rates.byNode.get(node);
    if (found !== undefined) return found;
    const made = noValues();
    rates.byNode.set(node, made);
    this.#pairs++;
    return made;
  }

  #dropOldest(): void {
    for (const [model, rates] of this.#models) {
      this.#models.delete(model);
      this.#pairs -= rates.byNode.size;
      return;
    }
  }
}

const none: ReadonlyMap<string, Rates> = new Map();

function noteBest(rates: ModelRates, pair: Values): void {
  if (--rates.notesLeft > 0) rates.best = better(rates.best, pair);
  else {
    rates.notesLeft = bestHoldsFor;
    rates.best = [...rates.byNode.values()].reduce(better, noBest);
  }
}

function better(best: BestRates, { prefillTokS, serviceMs }: Values): BestRates {
  const [most, least] = [prefillTokS ?? 0, serviceMs ?? Number.POSITIVE_INFINITY];
  if (most <= best.prefillTokS && least >= best.serviceMs) return best;
  return {
    prefillTokS: Math.max(best.prefillTokS, most),
    serviceMs: Math.min(best.serviceMs, least),
  };
}

function noValues(): Values {
  return { loadMs: null, prefillTokS: null, decodeTokS: null, serviceMs: null };
}
