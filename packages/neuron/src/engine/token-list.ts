/** A growing list of token ids: prompt first, answer behind it. */
export class TokenList {
  #ids: Int32Array;
  #length: number;

  /** Copies `ids`. `spare`: tokens that may be added before the list has to grow. */
  constructor(ids: Int32Array, spare = 0) {
    this.#ids = new Int32Array(ids.length + spare);
    this.#ids.set(ids);
    this.#length = ids.length;
  }

  get length(): number {
    return this.#length;
  }

  /** The ids as they are now; a later `push` may not show in it. */
  get view(): Int32Array {
    return this.#ids.subarray(0, this.#length);
  }

  /** The id at `index`, which must be in range. */
  at(index: number): number {
    return this.#ids[index] as number;
  }

  push(id: number): void {
    if (this.#length === this.#ids.length) {
      const grown = new Int32Array(Math.max(64, this.#ids.length * 2));
      grown.set(this.#ids);
      this.#ids = grown;
    }
    this.#ids[this.#length++] = id;
  }
}

/** How many ids two lists have in common from their start. */
export function commonPrefix(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}
