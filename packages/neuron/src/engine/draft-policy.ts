/**
 * How many tokens to draft: pure arithmetic over what was accepted and what steps cost.
 *
 * k drafts of a sequence yield p + p^2 + ... + p^k tokens more on average when each is accepted with
 * probability p (Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023, eq. 1),
 * and the step takes what steps of 1 + k rows have taken here. The k with the best rate wins; 0 = plain
 * decoding. A sequence whose drafts do not pay stops; while it pauses, guesses are compared with what is said
 * without spending a row on them, so that it starts again when they would have been right.
 */

import { draftRowsMax } from 'cortex-core/wire/inference';

/** Lengths that are considered: each is a batch shape, and few shapes keep graphs reusable. */
const lengths = [1, 3, 7, 15, draftRowsMax] as const;
/** The longest but one: what is drafted where the longest is not allowed. */
export const shortDraftMax = 15;
const costWeightUp = 0.1;
const costWeightDown = 0.5;
/** The first steps of a shape build its graph and say little. */
const plainStepsMin = 3;
/** Part of a step that a drafted row is taken to cost until one was measured. */
const draftRowGuess = 0.3;
/**
 * Part of what rows cost so far that further ones are taken to cost until measured: kernels of many rows are
 * quicker a row. With nothing but what fewer rows cost, the longest drafts would never be tried.
 */
const furtherRowGuess = 0.5;
/** Every so many steps one goes without drafts, so that what drafts are compared with is known. */
const plainEvery = 16;
/** A cost that has not been seen for so many steps is forgotten: the machine may be quieter now. */
const stepsKnown = 512;
const acceptanceWeight = 0.1;
/** Before anything was seen: drafts are tried. */
const acceptanceFirst = 0.75;
/** An answer is not as sure to repeat something as the one before it was. */
const acceptanceTaken = 0.99;
const pauseMin = 8;
const pauseMax = 256;

/** Measured duration of steps in which one sequence decodes alone, by the rows drafted; one per model. */
export class StepCosts {
  readonly #costs = new Map<number, Cost>();
  #steps = 0;

  observe(drafts: number, ms: number): void {
    this.#steps++;
    const known = this.#costs.get(drafts);
    if (known === undefined || this.#isOld(drafts, known)) {
      this.#costs.set(drafts, { ms, seenAt: this.#steps, count: 1 });
      return;
    }
    // A slow step may have been disturbed, a quick one was not.
    const weight = ms < known.ms ? costWeightDown : costWeightUp;
    const next = known.ms + weight * (ms - known.ms);
    this.#costs.set(drafts, { ms: next, seenAt: this.#steps, count: known.count + 1 });
  }

  /**
   * Milliseconds; null while too little is known of steps without drafts. Between two known sizes and beyond
   * them lies a line; before any was tried, a drafted row is taken to cost a part of a step.
   */
  estimate(drafts: number): number | null {
    const plain = this.#costs.get(0);
    if (plain === undefined || plain.count < plainStepsMin) return null;
    let below: readonly [number, number] = [0, plain.ms];
    let above: readonly [number, number] | null = null;
    for (const [size, cost] of this.#costs) {
      if (size === 0 || this.#isOld(size, cost)) continue;
      if (size <= drafts && size > below[0]) below = [size, cost.ms];
      if (size >= drafts && (above === null || size < above[0])) above = [size, cost.ms];
    }
    if (below[0] === drafts) return below[1];
    const slope =
      above !== null
        ? (above[1] - below[1]) / (above[0] - below[0])
        : below[0] === 0
          ? draftRowGuess * plain.ms
          : (furtherRowGuess * (below[1] - plain.ms)) / below[0];
    return below[1] + Math.max(0, slope) * (drafts - below[0]);
  }

  #isOld(drafts: number, { seenAt }: Cost): boolean {
    return drafts > 0 && this.#steps - seenAt > stepsKnown;
  }
}

interface Cost {
  readonly ms: number;
  /** Step that it was last measured in. */
  readonly seenAt: number;
  readonly count: number;
}

/** Whether and how far one sequence drafts. */
export class DraftPolicy {
  #acceptance = acceptanceFirst;
  #hasLearned = false;
  #turn = 0;
  #hasWatched = false;
  #pauseLeft = 0;
  #pause = pauseMin;
  drafted = 0;
  accepted = 0;

  /** Probability that a draft is accepted; null before anything was seen. */
  get acceptance(): number | null {
    return this.#hasLearned ? this.#acceptance : null;
  }

  /** Goes on from what an earlier answer of the same conversation has shown. */
  expect(acceptance: number): void {
    if (!this.#hasLearned) this.#acceptance = Math.min(acceptance, acceptanceTaken);
  }

  /** How many drafts, at most `max`, would make the next step's rate best; 0 where they do not pay. */
  wanted(costs: StepCosts, max: number): number {
    if (this.#pauseLeft > 0) {
      this.#pauseLeft--;
      // Nothing was learned meanwhile: one more try is paid for, from a neutral guess.
      if (this.#pauseLeft === 0 && !this.#hasWatched) this.#acceptance = acceptanceFirst;
      return 0;
    }
    const plain = costs.estimate(0);
    if (plain === null || ++this.#turn % plainEvery === 0) return 0;
    let best = { length: 0, rate: 1 / plain };
    for (const length of lengths) {
      if (length > max) break;
      const ms = costs.estimate(length) ?? plain;
      const rate = (1 + extraTokens(this.#acceptance, length)) / ms;
      if (rate > best.rate) best = { length, rate };
    }
    if (best.length === 0) this.#rest();
    return best.length;
  }

  /** `isOver`: the answer ended within the draft, which says nothing of the tokens behind. */
  observe(drafted: number, accepted: number, isOver = false): void {
    this.drafted += drafted;
    this.accepted += accepted;
    // Every accepted draft is a success, the first refused one a failure; those behind it say nothing.
    for (let index = 0; index < accepted; index++) this.#learn(1);
    if (accepted === drafted || isOver) this.#pause = pauseMin;
    else this.#learn(0);
  }

  /** A guess that cost nothing, because no row was spent on it, was right or wrong. */
  watch(isRight: boolean): void {
    this.#hasWatched = true;
    this.#learn(isRight ? 1 : 0);
  }

  #learn(outcome: 0 | 1): void {
    this.#hasLearned = true;
    this.#acceptance += acceptanceWeight * (outcome - this.#acceptance);
  }

  #rest(): void {
    this.#pauseLeft = this.#pause;
    this.#pause = Math.min(this.#pause * 2, pauseMax);
    this.#hasWatched = false;
  }
}

/** Accepted drafts on average: p + p^2 + ... + p^k. */
function extraTokens(acceptance: number, drafts: number): number {
  if (acceptance >= 1) return drafts;
  return (acceptance * (1 - acceptance ** drafts)) / (1 - acceptance);
}
