/**
 * GET /v1/models: everything that is loaded or can be, in one shape that OpenAI's and Anthropic's SDKs both
 * read.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import type { Fleet } from '../fleet/fleet.ts';
import { describeModel, modelIds } from '../fleet/listing.ts';

export interface ModelsDeps {
  readonly fleet: Fleet;
  /** When this gateway started: `created` must not move. */
  readonly createdSecs: number;
}

const pageMax = 1000;

export function modelsHandler(deps: ModelsDeps): (exchange: Exchange) => void {
  return (exchange) => {
    const view = deps.fleet.view();
    const all = modelIds(view).map((id) => describeModel(view, id, deps.createdSecs));
    const page = pageOf(all, exchange.query);
    exchange.sendJson(200, {
      object: 'list',
      data: page.rows,
      has_more: page.hasMore,
      first_id: page.rows[0]?.id ?? null,
      last_id: page.rows.at(-1)?.id ?? null,
      ...(exchange.query.has('client_version') ? { models: [] } : {}),
    });
  };
}

export function modelHandler(deps: ModelsDeps): (exchange: Exchange) => void {
  return (exchange) => {
    const view = deps.fleet.view();
    const id = exchange.params.id ?? '';
    if (!modelIds(view).includes(id)) {
      throw new AppError(
        'model_not_found',
        `model "${id.slice(0, 200)}" not found; GET /v1/models lists what there is`,
        {
          param: 'model',
        },
      );
    }
    exchange.sendJson(200, describeModel(view, id, deps.createdSecs));
  };
}

function pageOf<T extends { readonly id: string }>(
  rows: readonly T[],
  query: URLSearchParams,
): { rows: readonly T[]; hasMore: boolean } {
  const after = query.get('after_id');
  const before = query.get('before_id');
  let from = 0;
  let to = rows.length;
  if (after !== null) from = rows.findIndex((row) => row.id === after) + 1;
  if (before !== null && rows.some((row) => row.id === before))
    to = rows.findIndex((row) => row.id === before);
  const limit = query.has('limit')
    ? Math.min(Math.max(Number(query.get('limit')) || 20, 1), pageMax)
    : rows.length;
  const page = rows.slice(from, Math.min(to, from + limit));
  return { rows: page, hasMore: from + page.length < to };
}
