/** Natural-log probability of one token, and the likeliest alternatives in descending order. */
export interface RowLogprobs {
  readonly logprob: number;
  readonly top: readonly { readonly token: number; readonly logprob: number }[];
}

/** True log-softmax over the model's own logits (before penalties, temperature or truncation). */
export function rowLogprobs(row: Float32Array, token: number, topCount: number): RowLogprobs {
  const logSum = logSumExp(row);
  const best: number[] = [];
  for (let candidate = 0; topCount > 0 && candidate < row.length; candidate++) {
    const logit = row[candidate] as number;
    if (best.length === topCount && logit <= (row[best[topCount - 1] as number] as number)) continue;
    let place = best.length;
    while (place > 0 && logit > (row[best[place - 1] as number] as number)) place--;
    best.splice(place, 0, candidate);
    if (best.length > topCount) best.pop();
  }
  return {
    logprob: (row[token] as number) - logSum,
    top: best.map((candidate) => ({ token: candidate, logprob: (row[candidate] as number) - logSum })),
  };
}

function logSumExp(row: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < row.length; index++) max = Math.max(max, row[index] as number);
  let sum = 0;
  for (let index = 0; index < row.length; index++) sum += Math.exp((row[index] as number) - max);
  return max + Math.log(sum);
}
