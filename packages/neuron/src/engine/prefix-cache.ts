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
 * Therefore states are saved at chosen points of a prompt (`checkpoints`): before its last token, where a
 * waiting sequence parts from it, and where it parts itself from what was read before: a third that begins
 * so will find it.
 *
 * Limits: a shared beginning below 32 tokens is not looked for; copies that would take longer than reading
 * the tokens again, as measured here, or more than 512 MiB, are not made.
 */
import type { KvPrefix } from 'cortex-core/wire/inference';
import {
  chooseSlot,
  findLeader,
  findPrefix,
  isWorthCopying,
  ownPrefix,
  type PrefixSource,
  type SlotView,
} from './choose-slot.ts';
import { planMoves, type SlotMove } from './close-ranks.ts';
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
/** States handed to another owner, all together: they travel as one message, which must stay below 2 GiB. */
const exportBytesMax = 512 * 1024 ** 2;
const rateWeight = 0.3;
/** Until a copy was measured: 1 GB/s, out and in again. */
const copyMsPerByteGuess = 1e-6;
const measuredBytesMin = 256 * 1024;
const forgetting = 0.98;
/** A copy is in host memory for a moment, beside what snapshots take. */
const copyBytesMax = 512 * 1024 ** 2;
const none = new Int32Array(0);

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  readonly #slots: Slot[];
  readonly #snapshots: SnapshotStore;
  #uses = 0;
  #readMsPerToken: number | null = null;
  #copyMsPerByte = copyMsPerByteGuess;

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

  /** Gives the sequence a slot and sets its `cells`; null when all are busy. */
  acquire(use: SlotUse): number | null {
    if (this.#slots.every((slot) => slot.use !== null)) return null;
    const prompt = use.tokens.view;
    const isWhole = !this.#options.kv.canTruncate;
    const source = this.#findSource(prompt, 0, this.#views());
    const choice = chooseSlot(prompt, this.#views(), source, isWhole);
    if (choice === null) return null;
    const parting = isWhole ? this.#partingOf(prompt) : 0;
    const slot = this.#slots[choice.slot] as Slot;
    const copied = choice.isCopied && source !== null ? this.#copy(slot, source, prompt) : null;
    use.cells = copied ?? this.#keepOwn(slot, prompt);
    slot.use = use;
    slot.kept = none;
    slot.usedAt = ++this.#uses;
    if (isWhole) use.checkpoints.push(prompt.length - 1);
    if (parting - use.cells >= sharedMin) use.checkpoints.push(parting);
    return choice.slot;
  }

  /** Takes over what others have computed of the sequence's prompt since. */
  extend(at: number): void {
    const { slot, use } = this.#busy(at);
    const prompt = use.tokens.view.subarray(0, use.promptLength);
    const others = this.#views().filter((view) => view.slot !== at);
    const source = this.#findSource(prompt, use.cells, others);
    if (source === null || !isWorthCopying(source, use.cells)) return;
    use.cells = this.#copy(slot, source, prompt) ?? use.cells;
  }

  /**
   * Another sequence, started earlier, that is reading what this one's prompt begins with; null = nobody.
   * A leader whose state cannot be cut is told to save it where the two part.
   */
  leaderFor(at: number): Leader | null {
    const { slot, use } = this.#busy(at);
    const earlier = new Set(this.#slots.filter((each) => each.usedAt < slot.usedAt).map((each) => each.slot));
    const prompt = use.tokens.view.subarray(0, use.promptLength);
    const found = findLeader(prompt, this.#views(), use.cells, earlier);
    if (found === null) return null;
    const leader = this.#slots[found.slot]?.use;
    if (!leader) return null;
    const { kv } = this.#options;
    const bytes = kv.sizeOf(found.slot);
    if (!kv.canTruncate && !this.#snapshots.hasRoomFor(bytes)) return null;
    // A recurrent state is as large at any length; of the others as much as there will be cells.
    const bytesThen = kv.canTruncate ? (bytes / Math.max(leader.cells, 1)) * found.length : bytes;
    if (leader.cells > 0 && !this.#pays(bytesThen, found.length - use.cells)) return null;
    if (!kv.canTruncate) leader.checkpoints.push(found.length);
    return { use: leader, length: found.length };
  }

  /** Whether there is still something to wait for. */
  isLeading({ use, length }: Leader): boolean {
    return use.cells < length && this.#slots.some((slot) => slot.use === use);
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

  /** Moves running sequences next to each other; says who moved, or null if that takes over `worthMs`. */
  closeRanks(worthMs: number): readonly SlotMove[] | null {
    const { kv } = this.#options;
    const running = this.#slots
      .filter(({ use }) => use !== null)
      .map(({ slot }) => ({ slot, bytes: kv.sizeOf(slot) }));
    const moves = planMoves(running, this.#slots.length);
    const sizes = moves.map(({ from }) => kv.sizeOf(from));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    const lostMs = moves.reduce((sum, { to }) => sum + this.#lossMs(this.#slots[to] as Slot), 0);
    if (Math.max(...sizes) > copyBytesMax || bytes * this.#copyMsPerByte + lostMs > worthMs) return null;
    return moves.filter(({ from, to }) => this.#move(this.#busy(from).slot, this.#slots[to] as Slot));
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
    const { kv } = this.#options;
    const prefixes: KvPrefix[] = [];
    let bytes = 0;
    const hasRoom = (size: number): boolean => bytes + size <= exportBytesMax;
    const add = (tokens: Int32Array, state: Uint8Array): void => {
      bytes += state.byteLength;
      prefixes.push({ tokens: tokens.slice(), state: state.slice() });
    };
    for (const { slot, kept } of this.#freeByUse()) {
      if (kept.length === 0 || !hasRoom(kv.sizeOf(slot))) continue;
      const state = kv.save(slot);
      if (state !== null) add(kept, state.data);
      state?.close();
    }
    for (const { id, tokens } of this.#snapshots.views) {
      if (!hasRoom(this.#snapshots.sizeOf(id))) continue;
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

  /** Keeps what a free slot has of `prompt` and saves what else it has; returns the cells that stay. */
  #keepOwn(slot: Slot, prompt: Int32Array): number {
    const { kv } = this.#options;
    const { kept } = slot;
    const own = ownPrefix(prompt, { tokens: kept, cells: kept.length }, !kv.canTruncate);
    if (kept.length - own >= saveMin) this.#save(slot.slot, kept);
    if (own === kept.length) return own;
    if (own > 0 && kv.truncate(slot.slot, own)) return own;
    kv.clear(slot.slot);
    return 0;
  }

  /** False when the state was not taken; the sequence then runs on where it was. */
  #move(from: Slot, to: Slot): boolean {
    const { kv } = this.#options;
    if (to.kept.length >= saveMin) this.#save(to.slot, to.kept);
    to.kept = none;
    kv.clear(to.slot);
    if (!this.#transfer(from.slot, to.slot)) return false;
    to.use = from.use;
    to.usedAt = from.usedAt;
    from.use = null;
    kv.clear(from.slot);
    return true;
  }

  /** What overwriting a free slot costs: a copy to host memory, or reading it again. */
  #lossMs({ slot, kept }: Slot): number {
    if (kept.length < saveMin) return 0;
    const bytes = this.#options.kv.sizeOf(slot);
    if (this.#snapshots.hasRoomFor(bytes)) return bytes * this.#copyMsPerByte;
    return kept.length * (this.#readMsPerToken ?? Number.POSITIVE_INFINITY);
  }

  /** Copies a whole state from stream to stream. */
  #transfer(from: number, to: number): boolean {
    const { kv, now } = this.#options;
    const startedAt = now();
    const state = kv.save(from);
    if (state === null) return false;
    const isRestored = kv.restore(to, state.data);
    this.#observeCopy(state.bytes, now() - startedAt);
    state.close();
    return isRestored;
  }

  /** Small states take as long as looking through the cells does: they say nothing of large ones. */
  #observeCopy(bytes: number, ms: number): void {
    if (bytes >= measuredBytesMin) this.#copyMsPerByte = smooth(this.#copyMsPerByte, ms / bytes);
  }

  /** The cells that `slot` has after it; 0 when the state was not taken, null when nothing was changed. */
  #copy(slot: Slot, source: PrefixSource, prompt: Int32Array): number | null {
    const { kv, now } = this.#options;
    const { from, length } = source;
    const isTemporary = from.kind === 'slot';
    // Touched first, so that what is saved next does not push it out.
    if (!isTemporary) this.#snapshots.use(from.id);
    if (slot.kept.length >= saveMin) this.#save(slot.slot, slot.kept);
    const startedAt = now();
    const state = isTemporary ? kv.save(from.slot) : this.#snapshots.use(from.id);
    if (state === null) return null;
    const isCut = this.#lengthOf(source) > length;
    const isRestored = kv.restore(slot.slot, state.data);
    if (isTemporary) this.#observeCopy(state.bytes, now() - startedAt);
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
    if (tokens.length === 0 || this.#snapshots.covers(tokens, kv.canTruncate)) return;
    if (!this.#snapshots.hasRoomFor(kv.sizeOf(slot))) return;
    const state = kv.save(slot);
    if (state !== null) this.#snapshots.add(tokens, state, kv.canTruncate);
  }

  /** The best source whose copy pays, for a prompt of which `have` tokens are there already. */
  #findSource(prompt: Int32Array, have: number, views: readonly SlotView[]): PrefixSource | null {
    const { kv } = this.#options;
    const isAffordable = ({ from, length }: PrefixSource): boolean => {
      const bytes = from.kind === 'slot' ? kv.sizeOf(from.slot) : this.#snapshots.sizeOf(from.id);
      return this.#pays(bytes, length - have);
    };
    return findPrefix(prompt, views, this.#snapshots.views, !kv.canTruncate, isAffordable);
  }

  /** Whether copying takes less time than reading the tokens, and no more memory than it may. */
  #pays(bytes: number, tokens: number): boolean {
    if (bytes > copyBytesMax) return false;
    if (this.#readMsPerToken === null || bytes * this.#copyMsPerByte < tokens * this.#readMsPerToken)
      return true;
    // Measured in a bad moment, it would never be measured again.
    this.#copyMsPerByte *= forgetting;
    return false;
  }

  /** How far `prompt` goes with the one of all known beginnings that it shares most with. */
  #partingOf(prompt: Int32Array): number {
    const known = [...this.#views(), ...this.#snapshots.views];
    return known.reduce((longest, { tokens }) => Math.max(longest, commonPrefix(prompt, tokens)), 0);
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

function smooth(old: number | null, value: number): number {
  return old === null ? value : old + rateWeight * (value - old);
}
