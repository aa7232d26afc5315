/**
 * What the KV memory of one context still holds of earlier prompts, and who may go on from it.
 *
 * Problem: agents and chats send the same beginning again and again; reading it costs more than the answer.
 *
 * Design: a slot keeps the cells of the sequence that ended there. A new sequence takes the free slot that
 * costs least to overwrite, with what it shares, or gets the shared beginning copied from another slot (busy
 * ones too) or from a snapshot in host memory (choose-slot.ts). What is overwritten goes to host memory
 * first, within a byte budget, least recently used out. A sequence whose beginning another one is just
 * reading waits for it (`leaderFor`) and then copies: a prompt shared by many at once is read once.
 *
 * Recurrent and hybrid models: their state cannot be cut, so only a state whose every token matches helps.
 * Therefore states are saved at chosen points of a prompt (`checkpoints`): before its last token, and where
 * a waiting sequence parts from it.
 *
 * Limits: one shared beginning below 32 tokens is not looked for; copies that would take longer than reading
 * the tokens again are not made (both measured here).
 */
import type { KvPrefix } from 'cortex-core/wire/inference';
import {
  chooseSlot,
  findLeader,
  findPrefix,
  isWorthCopying,
  type PrefixSource,
  type SlotView,
} from './choose-slot.ts';
import type { KvMemory } from './kv-memory.ts';
import { SnapshotStore } from './snapshot-store.ts';
import { commonPrefix, type TokenList } from './token-list.ts';

/** A sequence as far as its cells are concerned. */
export interface SlotUse {
  /** Prompt and answer. */
  readonly tokens: TokenList;
  readonly promptLength: number;
  /** How many of `tokens` are computed; written by the cache in `acquire` and `extend` only. */
  cells: number;
  /** Prompt positions at which `checkpoint` shall be called, any order. */
  readonly checkpoints: number[];
}

/** A sequence whose cells another one waits for. */
export interface Leader {
  readonly slot: number;
  readonly use: SlotUse;
  /** Cells to wait for. */
  readonly length: number;
}

export interface PrefixCacheOptions {
  readonly kv: KvMemory;
  readonly slots: number;
  /** Host memory for snapshots. */
  readonly bytesMax: number;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

interface Slot {
  readonly slot: number;
  /** Who runs there; null = free. */
  use: SlotUse | null;
  /** What a free slot's cells hold. */
  kept: Int32Array;
  usedAt: number;
}

/** A rest of an ended sequence shorter than this is not saved. */
const saveMin = 64;
/** A beginning that others will share is saved by itself when it is at least this long. */
const sharedMin = 128;
/** States handed to another owner, all together. */
const exportBytesMax = 512 * 1024 ** 2;
const rateWeight = 0.3;
const none = new Int32Array(0);

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  readonly #slots: Slot[];
  readonly #snapshots: SnapshotStore;
  #uses = 0;
  #readMsPerToken: number | null = null;
  #copyMsPerByte: number | null = null;

  constructor(options: PrefixCacheOptions) {
    this.#options = options;
    this.#slots = Array.from({ length: options.slots }, (_, slot) => ({
      slot,
      use: null,
      kept: none,
      usedAt: 0,
    }));
    this.#snapshots = new SnapshotStore(options.bytesMax);
  }

  /** Host memory that snapshots take. */
  get snapshotBytes(): number {
    return this.#snapshots.bytes;
  }

  /** Gives the sequence a slot and sets its `cells`; null when all are busy. */
  acquire(use: SlotUse): number | null {
    const prompt = use.tokens.view;
    const source = this.#findSource(prompt, null);
    const chosen = chooseSlot(prompt, this.#views(), source);
    if (chosen === null) return null;
    const slot = this.#slots[chosen] as Slot;
    use.cells = this.#occupy(slot, prompt, source);
    slot.use = use;
    slot.kept = none;
    slot.usedAt = ++this.#uses;
    if (!this.#options.kv.canTruncate) use.checkpoints.push(prompt.length - 1);
    return chosen;
  }

  /** Takes over what others have computed of the sequence's prompt since; true when `cells` grew. */
  extend(at: number): boolean {
    const { slot, use } = this.#busy(at);
    const prompt = use.tokens.view.subarray(0, use.promptLength);
    const source = this.#findSource(prompt, slot);
    if (source === null || !isWorthCopying(source, use.cells)) return false;
    const copied = this.#copy(slot, source, prompt);
    if (copied === null) return false;
    const grew = copied > use.cells;
    use.cells = copied;
    return grew;
  }

  /**
   * Another sequence, started earlier, that is reading what this one's prompt begins with; null = nobody.
   * A leader whose state cannot be cut is told to save it where the two part.
   */
  leaderFor(at: number): Leader | null {
    const { slot, use } = this.#busy(at);
    if (!this.#options.kv.canTruncate && !this.#snapshots.hasRoomFor(1)) return null;
    const earlier = new Set(this.#slots.filter((each) => each.usedAt < slot.usedAt).map((each) => each.slot));
    const prompt = use.tokens.view.subarray(0, use.promptLength);
    const found = findLeader(prompt, this.#views(), use.cells, earlier);
    if (found === null) return null;
    const leader = this.#slots[found.slot]?.use;
    if (!leader) return null;
    if (!this.#options.kv.canTruncate) leader.checkpoints.push(found.length);
    return { slot: found.slot, use: leader, length: found.length };
  }

  /** Whether there is still something to wait for. */
  isLeading({ slot, use, length }: Leader): boolean {
    return this.#slots[slot]?.use === use && use.cells < length;
  }

  /** Saves the state of a running sequence as it is now. */
  checkpoint(at: number): void {
    const { use } = this.#busy(at);
    this.#save(at, use.tokens.view.slice(0, use.cells));
  }

  /** Frees the slot. `isIntact`: its cells are what `cells` says and stay for the next. */
  release(at: number, isIntact: boolean): void {
    const slot = this.#slots[at] as Slot;
    const { use } = slot;
    if (use === null) return;
    slot.use = null;
    slot.usedAt = ++this.#uses;
    slot.kept = isIntact ? use.tokens.view.slice(0, use.cells) : none;
    if (slot.kept.length === 0) this.#options.kv.clear(at);
  }

  /** What reading prompts costs: decides which copies pay. */
  observeReading(tokens: number, ms: number): void {
    this.#readMsPerToken = smooth(this.#readMsPerToken, ms / tokens);
  }

  /** Forgets all but what runs. */
  clear(): void {
    for (const slot of this.#slots) {
      if (slot.use !== null) continue;
      this.#options.kv.clear(slot.slot);
      slot.kept = none;
    }
    this.#snapshots.clear();
  }

  /** The warm prefixes, most recently used first; running sequences are left out. */
  export(): readonly KvPrefix[] {
    const prefixes: KvPrefix[] = [];
    let bytes = 0;
    const add = (tokens: Int32Array, state: Uint8Array): void => {
      bytes += state.byteLength;
      if (bytes <= exportBytesMax) prefixes.push({ tokens: tokens.slice(), state: state.slice() });
    };
    for (const { slot, kept } of this.#freeByUse()) {
      const state = kept.length === 0 || bytes > exportBytesMax ? null : this.#options.kv.save(slot);
      if (state !== null) add(kept, state.data);
      state?.close();
    }
    for (const { id, tokens } of this.#snapshots.views) {
      const state = this.#snapshots.use(id);
      if (state !== null) add(tokens, state.data);
    }
    return prefixes;
  }

  /** Takes in what `export` of another owner gave; a state that is not of this model is left out. */
  import(prefixes: readonly KvPrefix[]): void {
    const empty = this.#slots.filter(({ use, kept }) => use === null && kept.length === 0);
    for (const { tokens, state } of [...prefixes].reverse()) {
      const slot = empty.pop() ?? this.#freeByUse().at(-1);
      if (slot === undefined) return;
      if (slot.kept.length > 0) this.#save(slot.slot, slot.kept);
      const isTaken = this.#options.kv.restore(slot.slot, state);
      slot.kept = isTaken ? tokens.slice() : none;
      slot.usedAt = ++this.#uses;
    }
  }

  /** Makes `slot` hold the longest beginning of `prompt` that is to be had; returns its length. */
  #occupy(slot: Slot, prompt: Int32Array, source: PrefixSource | null): number {
    const { kv } = this.#options;
    const shared = Math.min(commonPrefix(prompt, slot.kept), prompt.length - 1);
    const own = kv.canTruncate || shared === slot.kept.length ? shared : 0;
    if (source !== null && isWorthCopying(source, own) && !isSlot(source, slot)) {
      const copied = this.#copy(slot, source, prompt);
      if (copied !== null) return copied;
    }
    if (slot.kept.length - own >= saveMin) this.#save(slot.slot, slot.kept);
    if (own === slot.kept.length) return own;
    if (own > 0 && kv.truncate(slot.slot, own)) return own;
    kv.clear(slot.slot);
    return 0;
  }

  /** The cells that `slot` has after it; 0 when the state was not taken, null when nothing was changed. */
  #copy(slot: Slot, source: PrefixSource, prompt: Int32Array): number | null {
    const { kv, now } = this.#options;
    const startedAt = now();
    const { from, length } = source;
    const isTemporary = from.kind === 'slot';
    // Touched first, so that what is saved next does not push it out.
    if (!isTemporary) this.#snapshots.use(from.id);
    if (slot.kept.length >= saveMin) this.#save(slot.slot, slot.kept);
    const state = isTemporary ? kv.save(from.slot) : this.#snapshots.use(from.id);
    if (state === null) return null;
    const isCut = this.#lengthOf(source) > length;
    const isRestored = kv.restore(slot.slot, state.data);
    if (isTemporary) this.#copyMsPerByte = smooth(this.#copyMsPerByte, (now() - startedAt) / state.bytes);
    if (isTemporary) state.close();
    if (!isRestored) return this.#reset(slot);
    if (isCut && !kv.truncate(slot.slot, length)) return this.#reset(slot);
    // Two have begun alike, a third may: the shared part by itself is cheaper to copy than a whole chat.
    if (isCut && length >= sharedMin) this.#save(slot.slot, prompt.slice(0, length));
    return length;
  }

  #reset(slot: Slot): number {
    this.#options.kv.clear(slot.slot);
    return 0;
  }

  #save(slot: number, tokens: Int32Array): void {
    const { kv } = this.#options;
    if (tokens.length === 0 || this.#snapshots.covers(tokens)) return;
    if (!this.#snapshots.hasRoomFor(kv.sizeOf(slot))) return;
    const state = kv.save(slot);
    if (state !== null) this.#snapshots.add(tokens, state, kv.canTruncate);
  }

  /** The best source for `prompt` whose copy takes less time than reading it; `slot` has some already. */
  #findSource(prompt: Int32Array, slot: Slot | null): PrefixSource | null {
    const views = this.#views().filter((view) => view.slot !== slot?.slot);
    const source = findPrefix(prompt, views, this.#snapshots.views, !this.#options.kv.canTruncate);
    if (source === null || this.#readMsPerToken === null || this.#copyMsPerByte === null) return source;
    const isCopied = source.from.kind === 'slot' && this.#slots[source.from.slot]?.use !== null;
    if (!isCopied) return source;
    const bytes = this.#options.kv.sizeOf((source.from as { slot: number }).slot);
    const gain = source.length - (slot?.use?.cells ?? 0);
    return bytes * this.#copyMsPerByte < gain * this.#readMsPerToken ? source : null;
  }

  #lengthOf({ from, length }: PrefixSource): number {
    if (from.kind === 'snapshot') {
      return this.#snapshots.views.find(({ id }) => id === from.id)?.tokens.length ?? length;
    }
    const slot = this.#slots[from.slot] as Slot;
    return slot.use?.cells ?? slot.kept.length;
  }

  #views(): SlotView[] {
    return this.#slots.map(({ slot, use, kept, usedAt }) => ({
      slot,
      isBusy: use !== null,
      tokens: use?.tokens.view ?? kept,
      cells: use?.cells ?? kept.length,
      cellsComing: use === null ? kept.length : Math.max(use.cells, use.promptLength),
      usedAt,
    }));
  }

  #freeByUse(): Slot[] {
    return this.#slots.filter(({ use }) => use === null).sort((a, b) => b.usedAt - a.usedAt);
  }

  #busy(at: number): { slot: Slot; use: SlotUse } {
    const slot = this.#slots[at];
    if (!slot?.use) throw new Error(`slot ${at} is free`);
    return { slot, use: slot.use };
  }
}

function isSlot({ from }: PrefixSource, { slot }: Slot): boolean {
  return from.kind === 'slot' && from.slot === slot;
}

function smooth(old: number | null, value: number): number {
  return old === null ? value : old + rateWeight * (value - old);
}
