import { draftRowsMax } from 'cortex-core/wire/inference';
import { StepCosts, shortDraftMax } from './draft-policy.ts';
import type { DraftSource } from './draft-source.ts';
import type { KvMemory } from './kv-memory.ts';
import { proposeDraft } from './ngram-draft.ts';
import type { Sequence } from './sequence.ts';

export const noDrafts = new Int32Array(0);

/** Cells from which a single row is computed otherwise than drafted ones in any case (DESIGN.md). */
const longDraftsFrom = 512;
/**
 * Cells up to which drafted rows and single ones are computed alike on a CPU: ggml splits a lone row over its
 * threads from 512 cells on, counted in steps of 256. With a seed nothing is drafted beyond: how much is
 * drafted hangs on measured time, and the text must not.
 */
const alikeCellsMax = 256;
/** Drafts of fewer rows are as good for a rest of the answer below this. */
const longDraftsRest = 32;

export interface DraftPlannerOptions {
  readonly contextTokens: number;
  readonly kv: KvMemory;
  readonly ubatch: number;
  /** Asked where no n-gram is found. */
  readonly drafter: DraftSource | null;
}

/** What a sequence that decodes alone guesses of itself, and what is known of how well that goes. */
export class DraftPlanner {
  readonly #options: DraftPlannerOptions;
  readonly #costs = new StepCosts();
  /** By slot: the answer that ended there last. */
  readonly #said = new Map<number, { readonly promptLength: number; readonly acceptance: number }>();

  constructor(options: DraftPlannerOptions) {
    this.#options = options;
  }

  /** The next turn of a conversation will take as many drafts as the one before, near enough. */
  expect({ drafts, cells }: Sequence, slot: number): void {
    const before = this.#said.get(slot);
    if (before !== undefined && cells >= before.promptLength) drafts?.expect(before.acceptance);
  }

  /** The answer in `slot` has ended. */
  remember({ promptLength, drafts }: Sequence, slot: number): void {
    const acceptance = drafts?.acceptance ?? null;
    if (acceptance === null) this.#said.delete(slot);
    else this.#said.set(slot, { promptLength, acceptance });
  }

  /** What `slot` held is gone. */
  forget(slot: number): void {
    this.#said.delete(slot);
  }

  /** A step of one sequence with that many drafts took `ms`. */
  observe(drafts: number, ms: number): void {
    this.#costs.observe(drafts, ms);
  }

  /** Guesses of what follows the sequence's last token. */
  propose({ drafts, slot, tokens, cells, budget, completion, params }: Sequence): Int32Array {
    const { drafter, contextTokens, kv, ubatch } = this.#options;
    const rest = budget.tokens - completion - 1;
    const isSeeded = typeof params.sampling.seed === 'number';
    const room = (isSeeded ? Math.min(alikeCellsMax, contextTokens) : contextTokens) - cells - 1;
    const isLong =
      cells >= longDraftsFrom && rest >= longDraftsRest && room >= draftRowsMax && ubatch > draftRowsMax;
    const longest = Math.min(isLong ? draftRowsMax : shortDraftMax, kv.takeBackMax);
    const wanted = drafts?.wanted(this.#costs, longest) ?? 0;
    if (slot === null) return noDrafts;
    // The longest are whole or none: what makes so many rows cheap needs all of them. Those behind the
    // answer's end are cut off with the refused ones.
    const max = wanted === draftRowsMax ? wanted : Math.min(wanted, rest, room);
    if (max <= 0) return noDrafts;
    const found = proposeDraft(tokens.view, max);
    if (found.length > 0 || drafter === null) return found;
    return drafter.propose({ slot, tokens: tokens.view, max: Math.min(max, shortDraftMax, rest, room) });
  }
}
