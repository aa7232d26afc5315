/** Sets of Unicode code points as ascending ranges that neither touch nor overlap. */
export type CharSet = readonly (readonly [number, number])[];

/** What UTF-8 can spell: every code point but the surrogates. */
export const anyChar: CharSet = [
  [0, 0xd7ff],
  [0xe000, 0x10ffff],
];

export function unite(...sets: readonly CharSet[]): CharSet {
  const sorted = sets.flat().sort((a, b) => a[0] - b[0]);
  const merged: [number, number][] = [];
  for (const [from, to] of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged;
}

export function intersect(a: CharSet, b: CharSet): CharSet {
  return unite(
    a.flatMap(([from, to]) =>
      b.flatMap(([start, end]): CharSet => {
        const [low, high] = [Math.max(from, start), Math.min(to, end)];
        return low <= high ? [[low, high]] : [];
      }),
    ),
  );
}

/** Everything that UTF-8 can spell and `set` does not hold. */
export function invert(set: CharSet): CharSet {
  const gaps: [number, number][] = [];
  let next = 0;
  for (const [from, to] of set) {
    if (from > next) gaps.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= 0x10ffff) gaps.push([next, 0x10ffff]);
  return intersect(gaps, anyChar);
}

export function setOf(chars: string): CharSet {
  return unite([...chars].map((char) => [char.codePointAt(0) as number, char.codePointAt(0) as number]));
}
