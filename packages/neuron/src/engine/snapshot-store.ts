import type { SnapshotView } from './choose-slot.ts';
import type { KvState } from './kv-memory.ts';
import { commonPrefix } from './token-list.ts';

interface Snapshot extends SnapshotView {
  readonly state: KvState;
  usedAt: number;
}

/** KV states of ended sequences in host memory: the least recently used go when the budget is spent. */
export class SnapshotStore {
  readonly #bytesMax: number;
  readonly #snapshots = new Map<number, Snapshot>();
  #nextId = 1;
  #bytes = 0;
  #clock = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Most recently used first. */
  get views(): readonly SnapshotView[] {
    return [...this.#snapshots.values()].sort((a, b) => b.usedAt - a.usedAt);
  }

  /** Bytes of one state; 0 when it is gone. */
  sizeOf(id: number): number {
    return this.#snapshots.get(id)?.state.bytes ?? 0;
  }

  /** Whether a state of that size may be kept at all. */
  hasRoomFor(bytes: number): boolean {
    return bytes <= this.#bytesMax;
  }

  /** Whether a snapshot holds all of `tokens`. `isCuttable`: one that holds more will do as well. */
  covers(tokens: Int32Array, isCuttable: boolean): boolean {
    for (const each of this.#snapshots.values()) {
      const isEnough = isCuttable
        ? each.tokens.length >= tokens.length
        : each.tokens.length === tokens.length;
      if (isEnough && commonPrefix(each.tokens, tokens) === tokens.length) return true;
    }
    return false;
  }

  /** Takes the state over. `isCuttable`: states that are a beginning of this one are of no more use. */
  add(tokens: Int32Array, state: KvState, isCuttable: boolean): void {
    for (const each of [...this.#snapshots.values()]) {
      const isSame = each.tokens.length === tokens.length;
      const isBeginning = commonPrefix(each.tokens, tokens) === each.tokens.length;
      // A short beginning stays: restoring it costs less than cutting a long one.
      const isUseless = isBeginning && (isSame || (isCuttable && each.tokens.length * 2 > tokens.length));
      if (isUseless) this.#remove(each);
    }
    this.#bytes += state.bytes;
    const id = this.#nextId++;
    this.#snapshots.set(id, { id, tokens, state, usedAt: ++this.#clock });
    for (const oldest of this.#oldestFirst()) {
      if (this.#bytes <= this.#bytesMax) break;
      this.#remove(oldest);
    }
  }

  /** The state, now the most recently used; null when it is gone. */
  use(id: number): KvState | null {
    const snapshot = this.#snapshots.get(id);
    if (snapshot === undefined) return null;
    snapshot.usedAt = ++this.#clock;
    return snapshot.state;
  }

  clear(): void {
    for (const each of [...this.#snapshots.values()]) this.#remove(each);
  }

  #oldestFirst(): Snapshot[] {
    return [...this.#snapshots.values()].sort((a, b) => a.usedAt - b.usedAt);
  }

  #remove(snapshot: Snapshot): void {
    this.#snapshots.delete(snapshot.id);
    this.#bytes -= snapshot.state.bytes;
    snapshot.state.close();
  }
}
