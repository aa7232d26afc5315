/**
 * Keeps V8's young generation at 4 MiB a half or less.
 *
 * Problem: it doubles up to 16 MiB a half while much of it survives, as when a thousand streams open at once,
 *          and keeps that: 24 MiB that hold nothing. `--max-semi-space-size` is read before any script is.
 * Design:  the factor by which it grows is read at each growth. One growth by four is provoked, from 1 MiB,
 *          and then the factor is 1. Measured: docs/bench.md.
 * Limits:  what V8 gives back in quiet hours, down to 1 MiB, does not come back: more short collections, and
 *          no loss against before that could be measured. The factor is no documented option; a V8 that does
 *          not know it grows as it always did. Whoever sets --max-semi-space-size is left alone.
 */
import v8 from 'node:v8';

const growth = 4;
const roundsMax = 200;

export function limitYoungGeneration() {
  const given = `${process.execArgv.join(' ')} ${process.env.NODE_OPTIONS ?? ''}`;
  if (/semi.space/.test(given)) return;
  v8.setFlagsFromString(`--semi-space-growth-factor=${growth}`);
  const before = youngBytes();
  // one half is counted at first, both later
  let survivors = [];
  for (let round = 0; round < roundsMax && youngBytes() <= 2 * before; round++) {
    for (let i = 0; i < 1000; i++) survivors.push(new Array(8).fill(i));
  }
  survivors = [];
  v8.setFlagsFromString('--semi-space-growth-factor=1');
}

function youngBytes() {
  return v8.getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space')?.space_size ?? 0;
}
