/**
 * Where a new sequence runs and what it does not have to compute again: pure functions of what lies where.
 *
 * A slot's cells hold the tokens of the sequence that ran or runs there. A prompt can take over a free slot
 * with what it shares, or have the shared part copied from any slot or snapshot. Overwriting cells that
 * another chat may come back for costs as much as computing them again; copying costs a fixed amount, and so
 * does a slot with no running neighbour, which will be a graph of its own (close-ranks.ts). The sum decides,
 * and of equals the one that has been idle longest.
 */
import { commonPrefix } from './token-list.ts';

/** A KV stream as the choice sees it. */
export interface SlotView {
  readonly slot: number;
  readonly isBusy: boolean;
  /** Ids of the sequence that runs or ran there. */
  readonly tokens: Int32Array;
  /** How many of `tokens` have been computed. */
  readonly cells: number;
  /** How many will have been when its prompt has been read; `cells` when nothing runs. */
  readonly cellsComing: number;
  /** Order of last use; larger is later. */
  readonly usedAt: number;
}

export interface SnapshotView {
  readonly id: number;
  readonly tokens: Int32Array;
}

/** Where the longest computed beginning of a prompt lies. */
export interface PrefixSource {
  readonly from:
    | { readonly kind: 'slot'; readonly slot: number }
    | { readonly kind: 'snapshot'; readonly id: number };
  readonly length: number;
}

/** Copying a stream costs about as much as this many tokens of a prompt. */
const copyCostTokens = 256;
/** A slot apart from those that run costs as much as this many tokens of a prompt. */
const apartCostTokens = 64;
/** Loss beyond this counts alike: what has been idle longest goes first. */
const lossMax = 512;
/** Shorter beginnings are not worth a copy or a wait. */
const gainMin = 32;

export interface SlotChoice {
  readonly slot: number;
  /** Whether the source is to be copied there; else what the slot has of its own is kept. */
  readonly isCopied: boolean;
}

/**
 * The free slot in which the prompt costs least: tokens to compute, a copy, what is overwritten, a gap.
 * `source`: what could be copied. `isWhole`: a state cannot be cut. Null when none is free.
 */
export function chooseSlot(
  prompt: Int32Array,
  slots: readonly SlotView[],
  source: PrefixSource | null,
  isWhole: boolean,
): SlotChoice | null {
  let best: (SlotChoice & { cost: number; usedAt: number }) | null = null;
  const isFirst = slots.every(({ isBusy }) => !isBusy);
  const runs = (slot: number): boolean => slots.some((view) => view.slot === slot && view.isBusy);
  for (const view of slots) {
    if (view.isBusy) continue;
    const own = ownPrefix(prompt, view, isWhole);
    const isSource = source?.from.kind === 'slot' && source.from.slot === view.slot;
    const isCopied = source !== null && !isSource && source.length - own >= gainMin;
    const toCompute = prompt.length - (isCopied ? source.length : own);
    const lost = Math.min(view.cells - own, lossMax);
    const isApart = !isFirst && !runs(view.slot - 1) && !runs(view.slot + 1);
    const cost = toCompute + lost + (isCopied ? copyCostTokens : 0) + (isApart ? apartCostTokens : 0);
    if (best === null || cost < best.cost || (cost === best.cost && view.usedAt < best.usedAt)) {
      best = { slot: view.slot, isCopied, cost, usedAt: view.usedAt };
    }
  }
  return best === null ? null : { slot: best.slot, isCopied: best.isCopied };
}

/** What a slot holds of the prompt, the prompt's last token left out. */
export function ownPrefix(
  prompt: Int32Array,
  { tokens, cells }: Pick<SlotView, 'tokens' | 'cells'>,
  isWhole: boolean,
): number {
  const shared = Math.min(commonPrefix(prompt, tokens), cells, prompt.length - 1);
  return isWhole && shared < cells ? 0 : shared;
}

/**
 * The longest beginning of `prompt` that lies somewhere and is worth the copy; its last token is left out
 * because its logits are needed. `isWhole`: a state cannot be cut (recurrent models), so only one whose every
 * token matches will do.
 */
export function findPrefix(
  prompt: Int32Array,
  slots: readonly SlotView[],
  snapshots: readonly SnapshotView[],
  isWhole: boolean,
  isAffordable: (source: PrefixSource) => boolean,
): PrefixSource | null {
  const found: PrefixSource[] = [];
  const consider = (from: PrefixSource['from'], tokens: Int32Array, cells: number): void => {
    const length = ownPrefix(prompt, { tokens, cells }, isWhole);
    if (length > 0) found.push({ from, length });
  };
  for (const { slot, tokens, cells } of slots) consider({ kind: 'slot', slot }, tokens, cells);
  for (const { id, tokens } of snapshots) consider({ kind: 'snapshot', id }, tokens, tokens.length);
  return found.sort((a, b) => b.length - a.length).find(isAffordable) ?? null;
}

/**
 * The sequence whose prompt is being read and will leave more of `prompt` in its cells than `have`: waiting
 * for it computes the shared part once. `earlier`: slots whose sequences started before, so that no two
 * wait for each other.
 */
export function findLeader(
  prompt: Int32Array,
  slots: readonly SlotView[],
  have: number,
  earlier: ReadonlySet<number>,
): { readonly slot: number; readonly length: number } | null {
  let best: { slot: number; length: number } | null = null;
  for (const { slot, isBusy, tokens, cells, cellsComing } of slots) {
    if (!isBusy || !earlier.has(slot)) continue;
    const length = Math.min(commonPrefix(prompt, tokens), cellsComing, prompt.length - 1);
    if (length <= cells || length - have < gainMin) continue;
    if (best === null || length > best.length) best = { slot, length };
  }
  return best;
}

/** Whether a copy of `source` beats what the slot has of its own. */
export function isWorthCopying(source: PrefixSource, own: number): boolean {
  return source.length - own >= gainMin;
}
