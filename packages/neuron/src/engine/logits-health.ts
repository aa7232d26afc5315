import type { LogitsHealth } from 'cortex-core/wire/inference';

/** Counts over one row of logits: what a log needs to tell a poisoned device from an odd model. */
export function logitsHealth(row: Float32Array): LogitsHealth {
  let nan = 0;
  let posInf = 0;
  let negInf = 0;
  let neg = 0;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  let sum = 0;
  for (const value of row) {
    if (Number.isNaN(value)) nan++;
    else if (value === Number.POSITIVE_INFINITY) posInf++;
    else if (value === Number.NEGATIVE_INFINITY) negInf++;
    else {
      if (value < 0) neg++;
      if (value < min) min = value;
      if (value > max) max = value;
      sum += value;
    }
  }
  const finite = row.length - nan - posInf - negInf;
  return {
    len: row.length,
    nan,
    pos_inf: posInf,
    neg_inf: negInf,
    neg,
    finite_min: finite === 0 ? null : min,
    finite_max: finite === 0 ? null : max,
    finite_mean: finite === 0 ? null : sum / finite,
  };
}

/** Whether a sampler may sort this row: NaN and +Infinity break its order; -Infinity is a masked token. */
export function isSamplable(row: Float32Array): boolean {
  for (let index = 0; index < row.length; index++) {
    if (!((row[index] as number) < Number.POSITIVE_INFINITY)) return false;
  }
  return true;
}
