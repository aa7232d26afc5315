/** Numbers of several rounds; a single number is never reported. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** One line of the result: the median of the rounds' values, their spread, and the target beside it. */
export function row(name, values, target, note = '') {
  if (values.length === 0) return { name, skipped: note };
  return {
    name,
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    target,
    note,
    values,
  };
}

export const atLeast = (value) => ({ kind: '>=', value });
export const atMost = (value) => ({ kind: '<=', value });

export function meets({ median: value, target }) {
  return target.kind === '>=' ? value >= target.value : value <= target.value;
}

/** "94 / 96": what the two sides of a ratio were, for the note of a row. */
export function sides(left, right, digits = 0) {
  return `${median(left).toFixed(digits)} / ${median(right).toFixed(digits)}`;
}
