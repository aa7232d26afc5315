import type { JsonObject } from '../request-body.ts';
import { faultAt, oneOfAt, quoted } from './fields.ts';

export interface ItemPage {
  readonly object: 'list';
  readonly data: readonly JsonObject[];
  readonly first_id: string | null;
  readonly last_id: string | null;
  readonly has_more: boolean;
}

/** Reads `limit` (1 to 100, 20 unless said), `order` (desc unless said) and `after`, the id of an item. */
export function pageOfItems(items: readonly JsonObject[], query: URLSearchParams): ItemPage {
  const limit = Number(query.get('limit') ?? 20);
  if (!Number.isInteger(limit) || limit < 1 || limit > 100) {
    throw faultAt('limit', "Invalid 'limit': expected an integer from 1 to 100.");
  }
  const order = oneOfAt(['asc', 'desc'])(query.get('order') ?? 'desc', 'order');
  const ordered = order === 'asc' ? items : [...items].reverse();
  const after = query.get('after');
  const at = after === null ? -1 : ordered.findIndex((item) => item.id === after);
  if (after !== null && at === -1) {
    throw faultAt('after', `Invalid 'after': there is no input item '${quoted(after)}' here.`);
  }
  const data = ordered.slice(at + 1, at + 1 + limit);
  return {
    object: 'list',
    data,
    first_id: idOf(data[0]),
    last_id: idOf(data.at(-1)),
    has_more: at + 1 + limit < ordered.length,
  };
}

function idOf(item: JsonObject | undefined): string | null {
  return typeof item?.id === 'string' ? item.id : null;
}
