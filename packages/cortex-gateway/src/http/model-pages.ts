/** Pages of a sorted list, as Anthropic's Models API cuts them. */
import { AppError } from 'cortex-core/wire/errors';

export interface Page<T> {
  readonly data: readonly T[];
  readonly has_more: boolean;
  readonly first_id: string | null;
  readonly last_id: string | null;
}

const limitMax = 1000;

/**
 * `rows` in ascending order of their id. A cursor is a place in that order, so that a model that went away
 * between two pages does not begin the list anew. `limitDefault` null = all.
 * Errors: `invalid_request` for a limit that is none.
 */
export function pageOf<T extends { readonly id: string }>(
  rows: readonly T[],
  query: URLSearchParams,
  limitDefault: number | null,
): Page<T> {
  const limit = readLimit(query) ?? limitDefault ?? rows.length;
  const after = query.get('after_id');
  const before = query.get('before_id');
  const window = rows.filter(({ id }) => (after === null || id > after) && (before === null || id < before));
  // Backwards the page is the one that ends at the cursor.
  const data =
    before !== null && after === null
      ? window.slice(Math.max(0, window.length - limit))
      : window.slice(0, limit);
  return {
    data,
    has_more: data.length < window.length,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
  };
}

function readLimit(query: URLSearchParams): number | null {
  const text = query.get('limit');
  if (text === null || text === '') return null;
  const limit = Number(text);
  if (Number.isInteger(limit) && limit >= 1 && limit <= limitMax) return limit;
  throw new AppError('invalid_request', `limit: must be a whole number from 1 to ${limitMax}`, {
    param: 'limit',
  });
}
