/**
 * Guesses of a model's own layers for multi-token prediction (DeepSeek-V3, arXiv:2412.19437, section 2.2;
 * llama.cpp common/speculative.cpp, `draft-mtp`).
 *
 * Problem: such a layer says what follows a token from the token and the hidden state that the model had one
 * position before. It has keys and values of its own, so it must see every position; and a hidden state is
 * known only once, while the model computes its position.
 *
 * Design: after each decode call `take` keeps the new states of a sequence, and a follower per slot knows
 * which positions the layers' context holds. Short pieces wait until they are needed or many, so a sequence
 * that does not draft costs one call in many steps; pieces of a prompt are computed at once. `propose`
 * computes what waits and then guesses token after token: one layer again and again from its own state, or,
 * where a model has several, the next layer for each next token, over all rows since the last token that the
 * model chose, because each layer has its own keys. What was refused is cut by `truncate`, as the model's own
 * cells are.
 *
 * Where a sequence goes on from cells whose states nobody has seen (a cut into the cached prefix, cells of an
 * owner without these layers, a failed call), the first state is taken to be zero or the layers begin there:
 * they attend to what they have, positions counted from where they begin. That makes guesses worse for a
 * while, never an answer: the model's sampler decides (batch-loop.ts).
 */
import type { DraftRequest, DraftSource } from './draft-source.ts';
import { likeliest } from './likeliest.ts';
import type { MtpContext, MtpRow } from './mtp-context.ts';

export interface MtpPiece {
  readonly slot: number;
  /** Position of the first token. */
  readonly start: number;
  /** What the last decode call computed of the sequence, in order, drafts included. */
  readonly tokens: Int32Array;
  /** Place of the first one in that call's batch. */
  readonly row: number;
}

/** What the layers know of the sequence in one slot. Positions are the sequence's own. */
interface Follower {
  /** Where their keys begin. */
  origin: number;
  /** Positions below it are in their context; above `end` only from `propose` to the next `take`. */
  held: number;
  /** The model's states of positions below it were seen. */
  end: number;
  /** `states` and `tokens` begin with what belongs to this position; not above `held` or `end`. */
  base: number;
  /** Row i: the model's state of position base + i - 1, which is computed with token base + i. */
  readonly states: Float32Array;
  readonly tokens: Int32Array;
}

/** States that wait: those of the longest drafts, and the one that is kept. */
const waitingMax = 66;

export class MtpDraft implements DraftSource {
  readonly #context: MtpContext;
  readonly #followers: readonly Follower[];

  /** Takes the context over. */
  constructor(context: MtpContext, slots: number) {
    this.#context = context;
    this.#followers = Array.from({ length: slots }, () => ({
      origin: 0,
      held: 0,
      end: 0,
      base: 0,
      states: new Float32Array(waitingMax * context.width),
      tokens: new Int32Array(waitingMax),
    }));
  }

  get slots(): number {
    return this.#followers.length;
  }

  /** The weights are the model's. */
  get weightsBytes(): number {
    return 0;
  }

  get contextBytes(): number {
    return this.#context.contextBytes;
  }

  /** Of one sequence: before the next decode call and before anything of it is cut. */
  take({ slot, start, tokens, row }: MtpPiece): void {
    const follower = this.#of(slot);
    if (start !== follower.end) this.#begin(slot, start);
    const states = this.#context.trunkStates(row, tokens.length);
    if (states === null) return;
    if (follower.end - follower.base + 1 + tokens.length > waitingMax) this.#computeWaiting(slot);
    if (tokens.length < waitingMax) this.#append(follower, tokens, states);
    else this.#computePiece(slot, tokens, states);
  }

  /** What would come next; empty where the layers are unsure. */
  propose({ slot, tokens, max }: DraftRequest): Int32Array {
    const follower = this.#of(slot);
    const { end } = follower;
    if (end !== tokens.length - 1 || max < 1) return new Int32Array(0);
    this.#computeWaiting(slot);
    const last = tokens[end] as number;
    const { heads } = this.#context;
    const guesses = heads > 1 ? this.#chain(slot, last, Math.min(max, heads)) : this.#repeat(slot, last, max);
    return Int32Array.from(guesses);
  }

  /** The sequence was cut to `length` positions. */
  truncate(slot: number, length: number): void {
    const follower = this.#of(slot);
    if (length >= follower.end) return;
    if (length <= follower.origin) {
      this.#begin(slot, length);
      return;
    }
    if (follower.held > length) this.#cut(slot, length);
    follower.end = length;
    if (length >= follower.base) return;
    follower.base = length;
    follower.states.fill(0, 0, this.#context.width);
  }

  clear(slot: number): void {
    this.#begin(slot, 0);
  }

  /** Bytes of the layers' cells, near enough: those of states that still wait are not there yet. */
  sizeOf(slot: number): number {
    return this.#context.kv.sizeOf(slot);
  }

  /** The layers' own cells, and the state that the next position needs. */
  save(slot: number): { readonly cells: Uint8Array; readonly origin: number; readonly state: Float32Array } {
    this.#computeWaiting(slot);
    const { origin, states } = this.#of(slot);
    const saved = this.#context.kv.save(slot);
    const cells = saved === null ? new Uint8Array(0) : saved.data.slice();
    saved?.close();
    return { cells, origin, state: states.slice(0, this.#context.width) };
  }

  get stateLength(): number {
    return this.#context.width;
  }

  /** The sequence now holds `length` positions, which came with what `save` gave; null = with nothing. */
  restore(slot: number, length: number, saved: ReturnType<MtpDraft['save']> | null): void {
    const follower = this.#of(slot);
    this.#begin(slot, length);
    if (saved === null || saved.state.length !== this.#context.width) return;
    follower.states.set(saved.state);
    if (saved.cells.length === 0 || !this.#context.kv.restore(slot, saved.cells)) return;
    if (saved.origin + this.#context.kv.lengthOf(slot) === length) follower.origin = saved.origin;
    else this.#context.kv.clear(slot);
  }

  close(): void {
    this.#context.close();
  }

  /** One layer from its own state, again and again. */
  #repeat(slot: number, last: number, max: number): number[] {
    const follower = this.#of(slot);
    const { end, origin } = follower;
    const guesses: number[] = [];
    let token = last;
    let state = this.#stateBefore(follower, end);
    let computed = 0;
    while (guesses.length < max) {
      const position = end + computed - origin;
      if (!this.#context.decode(slot, [{ token, position, state }], true)) {
        this.#begin(slot, end);
        return guesses;
      }
      computed++;
      const guess = likeliest(this.#context.logitsOf(0));
      const next = this.#context.stateOf(0);
      if (guess === null || next === null) break;
      guesses.push(guess);
      [token, state] = [guess, next];
    }
    // The first row is what it will be: a token that the model chose, after a state of its own.
    follower.held = end + computed;
    if (computed > 1) this.#cut(slot, end + 1);
    return guesses;
  }

  /** Layer i guesses the token i + 1 places ahead. */
  #chain(slot: number, last: number, max: number): number[] {
    const follower = this.#of(slot);
    const { end, origin } = follower;
    const guesses: number[] = [];
    const rows: MtpRow[] = [{ token: last, position: end - origin, state: this.#stateBefore(follower, end) }];
    for (let head = 0; head < max; head++) {
      if (!this.#context.decode(slot, rows, true, head)) {
        this.#begin(slot, end);
        return guesses;
      }
      follower.held = end + rows.length;
      const guess = likeliest(this.#context.logitsOf(rows.length - 1));
      const state = this.#context.stateOf(rows.length - 1);
      this.#cut(slot, end);
      if (guess === null || state === null) break;
      guesses.push(guess);
      rows.push({ token: guess, position: end + guesses.length - origin, state });
    }
    return guesses;
  }

  #of(slot: number): Follower {
    return this.#followers[slot] as Follower;
  }

  /** Nothing is known of what lies before `at`. */
  #begin(slot: number, at: number): void {
    const follower = this.#of(slot);
    this.#context.kv.clear(slot);
    Object.assign(follower, { origin: at, held: at, end: at, base: at });
    follower.states.fill(0, 0, this.#context.width);
  }

  #cut(slot: number, length: number): void {
    const follower = this.#of(slot);
    if (length > follower.origin) this.#context.kv.truncate(slot, length - follower.origin);
    else this.#context.kv.clear(slot);
    follower.held = length;
  }

  #append(follower: Follower, tokens: Int32Array, states: Float32Array): void {
    const at = follower.end - follower.base;
    follower.tokens.set(tokens, at);
    follower.states.set(states, (at + 1) * this.#context.width);
    follower.end += tokens.length;
  }

  /** A piece too long to wait; nothing else waits. */
  #computePiece(slot: number, tokens: Int32Array, states: Float32Array): void {
    const follower = this.#of(slot);
    const { width } = this.#context;
    const start = follower.end;
    const before = this.#stateBefore(follower, start);
    const stateAt = (index: number): Float32Array =>
      index === 0 ? before : states.subarray((index - 1) * width, index * width);
    const isComputed = this.#compute(slot, start, tokens, stateAt);
    const last = states.slice((tokens.length - 1) * width);
    const end = start + tokens.length;
    if (!isComputed) this.#begin(slot, end);
    Object.assign(follower, { held: end, end, base: end });
    follower.states.set(last);
  }

  /** Puts every position whose state was seen into the context; of the states the last one stays. */
  #computeWaiting(slot: number): void {
    const follower = this.#of(slot);
    const { held, end, base, tokens, states } = follower;
    const { width } = this.#context;
    const waiting = tokens.slice(held - base, end - base);
    const stateAt = (index: number): Float32Array => {
      const row = held - base + index;
      return states.subarray(row * width, (row + 1) * width);
    };
    const isComputed = this.#compute(slot, held, waiting, stateAt);
    states.copyWithin(0, (end - base) * width, (end - base + 1) * width);
    if (!isComputed) follower.origin = end;
    Object.assign(follower, { held: end, base: end });
  }

  /** Of every layer; false when it failed: then the layers hold nothing. */
  #compute(
    slot: number,
    start: number,
    tokens: Int32Array,
    stateAt: (index: number) => Float32Array,
  ): boolean {
    const { heads, capacity } = this.#context;
    const { origin } = this.#of(slot);
    for (let from = 0; from < tokens.length; from += capacity) {
      const piece = tokens.subarray(from, from + capacity);
      const rows = Array.from(piece, (token, at): MtpRow => {
        const index = from + at;
        return { token, position: start + index - origin, state: stateAt(index) };
      });
      for (let head = 0; head < heads; head++) {
        // Every layer has keys of its own, in the same cells.
        if (head > 0) this.#cutCells(slot, start + from);
        if (this.#context.decode(slot, rows, false, head)) continue;
        this.#context.kv.clear(slot);
        return false;
      }
    }
    return true;
  }

  #cutCells(slot: number, length: number): void {
    const { origin } = this.#of(slot);
    if (length > origin) this.#context.kv.truncate(slot, length - origin);
    else this.#context.kv.clear(slot);
  }

  #stateBefore(follower: Follower, position: number): Float32Array {
    const { width } = this.#context;
    const row = position - follower.base;
    return follower.states.slice(row * width, (row + 1) * width);
  }
}
