/**
 * How one step's token budget is shared: a pure function, so that fairness can be tested without a model.
 *
 * Every decoding sequence gets its one token first. What is left is spread evenly over the prompts being
 * read: a short prompt takes what it needs and leaves the rest to the others.
 */
import { draftRowsMax } from 'cortex-core/wire/inference';

export interface StepLoad {
  /** Sequences that add one token each. */
  readonly decoding: number;
  /** Prompt tokens still to be read, per prefilling sequence in order of arrival. */
  readonly pending: readonly number[];
  /** Tokens per compute graph at most. */
  readonly ubatch: number;
  /** Counts steps: decides who gets the odd tokens, so that nobody is always last. */
  readonly turn: number;
}

/**
 * While streams run, a step reads at most this part of a full graph: a stream then waits a quarter of the
 * time that a full prefill graph takes. Fixed, not adapted to measured speed: the same load gives the same
 * batches.
 */
const prefillShareWhileDecoding = 1 / 4;
/** Prompts go on even when there are more streams than the graph has room for. */
const prefillTokensMin = 16;
/**
 * ggml's flash attention takes 64 rows of a sequence at once; fewer go through it one by one, which takes
 * about twice as long a row. So no rest below that is left of a prompt where it can be helped.
 */
const attentionTileRows = 64;

/** Prompt tokens that each prefilling sequence may add in this step. */
export function planPrefill({ decoding, pending, ubatch, turn }: StepLoad): number[] {
  const room = decoding === 0 ? ubatch : Math.floor(ubatch * prefillShareWhileDecoding) - decoding;
  let budget = Math.max(room, prefillTokensMin);
  const shares = pending.map(() => 0);
  const order = pending.map((_, index) => (index + turn) % pending.length);
  let open = order.filter((index) => (pending[index] as number) > 0);
  while (budget > 0 && open.length > 0) {
    const share = Math.max(1, Math.floor(budget / open.length));
    for (const index of open) {
      const taken = Math.min(share, budget, (pending[index] as number) - (shares[index] as number));
      shares[index] = (shares[index] as number) + taken;
      budget -= taken;
    }
    open = open.filter((index) => (shares[index] as number) < (pending[index] as number));
  }
  return shares.map((share, index) => leaveTile(share, pending[index] as number));
}

/** A share that leaves nothing, or enough for a tile, if it is large enough to give some back. */
function leaveTile(share: number, pending: number): number {
  const rest = pending - share;
  const missing = rest > 0 && rest < attentionTileRows ? attentionTileRows - rest : 0;
  return share - missing < attentionTileRows ? share : share - missing;
}

/** The most tokens that a step can put into one batch. */
export function stepTokensMax(slots: number, ubatch: number): number {
  return slots + Math.max(ubatch, prefillTokensMin, draftRowsMax);
}

/** The most rows of logits that a step can ask for. */
export function stepOutputsMax(sequences: number, isSpeculating: boolean): number {
  return sequences + (isSpeculating ? draftRowsMax : 0);
}
