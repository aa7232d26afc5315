/** Random fleets for property tests. `TEST_SEED` brings a failure back. */

export interface Seeded {
  readonly seed: number;
  /** 0 <= x < 1. */
  readonly random: () => number;
  readonly pick: <T>(from: readonly T[]) => T;
  /** A failure's message with the seed in it. */
  readonly note: (text: string) => string;
}

export function seeded(seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))): Seeded {
  let state = seed >>> 0;
  // xorshift32 cannot leave zero
  if (state === 0) state = 1;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  return {
    seed,
    random,
    pick: (from) => {
      const found = from[Math.floor(random() * from.length)];
      if (found === undefined) throw new Error('nothing to pick from');
      return found;
    },
    note: (text) => `${text}; TEST_SEED=${seed}`,
  };
}
