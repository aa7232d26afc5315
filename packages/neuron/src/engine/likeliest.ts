import { placeOfGreatest } from './greatest.ts';

/** Below this probability a guess is not worth a row: a refused one costs as much as an accepted one. */
const confidenceMin = 0.5;

/** The most probable token of a row of logits, null when even that is not probable enough. */
export function likeliest(row: Float32Array): number | null {
  const best = placeOfGreatest(row);
  const max = row[best] as number;
  let sum = 0;
  for (let token = 0; token < row.length; token++) sum += Math.exp((row[token] as number) - max);
  return 1 / sum >= confidenceMin ? best : null;
}
