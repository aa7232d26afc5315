import type { Sequence } from './sequence.ts';

/** What one sequence adds to a step. */
export interface Chunk {
  readonly sequence: Sequence;
  /** Tokens of its own: a piece of the prompt, or the one chosen last. */
  readonly count: number;
  /** Guesses that follow them. */
  readonly drafts: Int32Array;
  /** Place of its first token in the batch. */
  first: number;
  /** Place of its first output in the batch; null while its prompt goes on. */
  row: number | null;
}

/**
 * The same chunks by decode call, so that hidden states come out in a known order: one sequence's piece, or
 * one token each of several by slot (mtp-context.ts). It costs little: KV is split per sequence, so a longer
 * piece is a graph of its own in any case.
 */
export function toCalls(chunks: readonly Chunk[]): readonly (readonly Chunk[])[] {
  if (chunks.length === 1) return [chunks];
  const isSingle = ({ count, drafts }: Chunk): boolean => count + drafts.length === 1;
  const singles = bySlot(chunks.filter(isSingle));
  const pieces = chunks.filter((chunk) => !isSingle(chunk)).map((chunk) => [chunk]);
  return singles.length === 0 ? pieces : [singles, ...pieces];
}

/** Its sequence runs, or it would not have been planned. */
export function slotOf({ sequence }: Chunk): number {
  return sequence.slot ?? 0;
}

/** The order in which neighbours share a graph (close-ranks.ts). */
export function bySlot(chunks: readonly Chunk[]): Chunk[] {
  return [...chunks].sort((a, b) => slotOf(a) - slotOf(b));
}
