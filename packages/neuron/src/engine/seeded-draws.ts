/**
 * Randomness that can be taken up anywhere.
 *
 * Problem: a generator that runs along with the answer stands where the last draw left it, and how often was
 *          drawn depends on every row of logits before. Another engine that goes on with the answer cannot
 *          know it.
 * Design:  with a seed, each token has draws of its own, made from the seed and the token's place in the
 *          answer. The samplers that draw stand at the end of the chain and are made anew for every token.
 * Limits:  32 bits of seed, as libllama has; 3 us a token (two Mersenne Twisters of 624 words).
 */
import type { LlamaApi } from '../libllama/bindings.gen.ts';

/** llama.h: this seed means "take a random one". */
const randomSeed = 0xffffffff;

/** A sampler for the chain's end; `seed` is for those that draw. */
export type MakeSampler = (seed: number) => bigint;

export interface SeededDraws {
  /** To be called once before each token is chosen, with its place in the answer. */
  placeAt(position: number): void;
}

/** Puts the samplers behind what the chain has. Without a seed they draw from one random state, once made. */
export function addDraws(
  api: LlamaApi,
  chain: bigint,
  makers: readonly MakeSampler[],
  seed: number | undefined,
): SeededDraws | null {
  const add = (place: (at: number) => number): void => {
    for (const [at, make] of makers.entries()) api.llama_sampler_chain_add(chain, make(place(at)));
  };
  if (seed === undefined) {
    add(() => randomSeed);
    return null;
  }
  const base = api.llama_sampler_chain_n(chain);
  const low = Number(BigInt.asUintN(32, BigInt(seed)));
  add((at) => seedAt(low, 0, at));
  return {
    placeAt(position) {
      for (let at = 0; at < makers.length; at++) {
        api.llama_sampler_free(api.llama_sampler_chain_remove(chain, base) as bigint);
      }
      add((at) => seedAt(low, position, at));
    },
  };
}

/** One 32-bit seed of many: a place's draws say nothing about another's, nor one sampler's about the next. */
export function seedAt(seed: number, position: number, sampler: number): number {
  const mixed = mix(mix(mix(seed) ^ position) ^ (sampler + 1));
  return mixed === randomSeed ? randomSeed - 1 : mixed;
}

/** MurmurHash3's finaliser: a bijection of 32 bits in which every input bit moves every output bit. */
function mix(value: number): number {
  let bits = (value + 0x9e3779b9) >>> 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
