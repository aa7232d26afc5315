import type { GrammarMachine, GrammarState } from './grammar-machine.ts';
import type { TokenTrie } from './token-trie.ts';

/** A set of token ids: bit `id % 32` of word `id >> 5`. */
export interface TokenMask {
  readonly bits: Uint32Array;
  readonly count: number;
}

export function createBits(vocabSize: number): Uint32Array {
  return new Uint32Array((vocabSize + 31) >> 5);
}

export function setBit(bits: Uint32Array, token: number): void {
  bits[token >> 5] = (bits[token >> 5] as number) | (1 << (token & 31));
}

export function toMask(bits: Uint32Array): TokenMask {
  let count = 0;
  for (let word of bits) for (; word !== 0; word &= word - 1) count++;
  return { bits, count };
}

/** Calls `onToken` for each member, ascending. */
export function forEachToken({ bits }: TokenMask, onToken: (token: number) => void): void {
  for (let index = 0; index < bits.length; index++) {
    for (let word = bits[index] as number; word !== 0; word &= word - 1) {
      onToken(index * 32 + 31 - Math.clz32(word & -word));
    }
  }
}

/** Tokens whose bytes the grammar can read from `state`, and those that it takes by number. */
export function allowedTokens(machine: GrammarMachine, state: GrammarState, trie: TokenTrie): Uint32Array {
  const { bytes, depths, skips, starts, tokens } = trie;
  const bits = createBits(trie.vocabSize);
  const way: GrammarState[] = [state];
  for (let node = 0; node < bytes.length; ) {
    const depth = depths[node] as number;
    const next = machine.step(way[depth - 1] as GrammarState, bytes[node] as number);
    if (next === null) {
      node = skips[node] as number;
      continue;
    }
    way[depth] = next;
    for (let at = starts[node] as number; at < (starts[node + 1] as number); at++) {
      setBit(bits, tokens[at] as number);
    }
    node++;
  }
  if (state.takers.length > 0) {
    for (let token = 0; token < trie.vocabSize; token++) if (machine.takes(state, token)) setBit(bits, token);
  }
  return bits;
}
