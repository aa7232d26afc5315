import type { Ranges } from './gbnf-parser.ts';

/** Bytes that follow each other, each within an inclusive range. */
export type ByteSequence = readonly (readonly [number, number])[];

/** Code points that end each length of UTF-8; surrogates have no encoding. */
const blocks: readonly (readonly [number, number])[] = [
  [0, 0x7f],
  [0x80, 0x7ff],
  [0x800, 0xd7ff],
  [0xe000, 0xffff],
  [0x10000, 0x10ffff],
];

/** The UTF-8 encodings of code points as few byte sequences as it takes (as in RE2's compiler). */
export function toByteSequences(ranges: Ranges, isInverted: boolean): ByteSequence[] {
  const wanted = isInverted ? invert(ranges) : ranges;
  return wanted.flatMap(([from, to]) =>
    blocks.flatMap(([start, end]) => {
      const [low, high] = [Math.max(from, start), Math.min(to, end)];
      return low > high ? [] : split(encode(low), encode(high));
    }),
  );
}

function invert(ranges: Ranges): Ranges {
  const gaps: [number, number][] = [];
  let next = 0;
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (from > next) gaps.push([next, from - 1]);
    next = Math.max(next, to + 1);
  }
  if (next <= 0x10ffff) gaps.push([next, 0x10ffff]);
  return gaps;
}

function encode(code: number): readonly number[] {
  if (code <= 0x7f) return [code];
  if (code <= 0x7ff) return [0xc0 | (code >> 6), 0x80 | (code & 0x3f)];
  const low = [0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)];
  if (code <= 0xffff) return [0xe0 | (code >> 12), ...low];
  return [0xf0 | (code >> 18), 0x80 | ((code >> 12) & 0x3f), ...low];
}

/** Sequences of equal length from `low` to `high` in byte order. */
function split(low: readonly number[], high: readonly number[]): ByteSequence[] {
  const [first, last] = [low[0] as number, high[0] as number];
  if (low.length === 1) return [[[first, last]]];
  const [restLow, restHigh] = [low.slice(1), high.slice(1)];
  const lowest = restLow.map(() => 0x80);
  const highest = restLow.map(() => 0xbf);
  if (first === last) return split(restLow, restHigh).map((rest) => [[first, first], ...rest]);
  const isLowFree = restLow.every((byte) => byte === 0x80);
  const isHighFree = restHigh.every((byte) => byte === 0xbf);
  const [from, to] = [isLowFree ? first : first + 1, isHighFree ? last : last - 1];
  const free = restLow.map((): readonly [number, number] => [0x80, 0xbf]);
  return [
    ...(isLowFree ? [] : split(restLow, highest).map((rest): ByteSequence => [[first, first], ...rest])),
    ...(from <= to ? [[[from, to], ...free] as ByteSequence] : []),
    ...(isHighFree ? [] : split(lowest, restHigh).map((rest): ByteSequence => [[last, last], ...rest])),
  ];
}
