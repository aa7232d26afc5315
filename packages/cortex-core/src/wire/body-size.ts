/**
 * How much a parsed body may hold.
 *
 * Problem: the schemas are written with zod, which looks at every item of a list and keeps an issue for
 * each wrong one: a million took 6 s and a gigabyte (Node 20, 2-core EPYC), and a body has room for thirty.
 * Design: the values are counted before the schemas see them. Token ids are the one long list that is right,
 * and the schemas of their fields stop at the first fault.
 */
import { AppError } from './errors.ts';

const valuesMax = 500_000;
const tokenIdsMax = 4_194_304;
/** Fields that may be a list of token ids. */
const tokenFields: ReadonlySet<string> = new Set(['prompt', 'tokens', 'input']);

/** Errors: `invalid_request` naming the field. Nesting must have been checked: this recurses. */
export function checkBodySize(body: Readonly<Record<string, unknown>>): void {
  let left = valuesMax;
  for (const [name, value] of Object.entries(body)) {
    const room = tokenFields.has(name) ? tokenIdsMax : 0;
    left -= countValues(value, left, room);
    if (left >= 0) continue;
    const limit = room === 0 ? `${valuesMax} values` : `${valuesMax} values, or ${tokenIdsMax} token ids`;
    throw new AppError('invalid_request', `"${name.slice(0, 64)}" holds more than a body may: ${limit}`, {
      param: name.slice(0, 64),
    });
  }
}

/** Stops soon after `limit`. A list of numbers alone counts as one value while it is within `room`. */
function countValues(value: unknown, limit: number, room: number): number {
  if (typeof value !== 'object' || value === null) return 1;
  if (Array.isArray(value)) {
    if (value.length <= room && value.every((item) => typeof item === 'number')) return 1;
    if (value.length > limit) return value.length;
  }
  let count = 1;
  for (const item of Array.isArray(value) ? value : Object.values(value)) {
    count += countValues(item, limit - count, room);
    if (count > limit) break;
  }
  return count;
}
