/** What `chooseTurn` and `nextInLine` promise to those that wait. */
export interface BoundTerms {
  readonly maxWaitMs: number;
  /** Models that compete for the same memory. */
  readonly models: number;
  /** The longest load with the unloads before it, residency and request, ms. */
  readonly loadMs: number;
  readonly residencyMs: number;
  readonly serviceMs: number;
  /** Requests that a model takes at once. */
  readonly slots: number;
  /** Requests that were waiting for any of these models when this one came. */
  readonly ahead: number;
}

/**
 * How long a request waits at most until its model takes it, ms, whatever was estimated of anything.
 *
 * Once it has waited `maxWaitMs` it is due: of its own line only older requests go before it, and when its
 * model is not resident only models with an older one. A turn lasts a residency, a drain and a load at most.
 * One may be under way; each other model has one; each `slots` requests ahead cost one more. While its own
 * model is resident and its slots are taken by those ahead, another may be due in between: one more again.
 */
export function waitBoundMs(terms: BoundTerms): number {
  const turnMs = terms.residencyMs + terms.serviceMs + terms.loadMs;
  const turns = terms.models + 1 + 2 * Math.floor(terms.ahead / terms.slots);
  return terms.maxWaitMs + turns * turnMs;
}
