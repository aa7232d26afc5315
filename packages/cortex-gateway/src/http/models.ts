/**
 * GET /v1/models: everything that is loaded or can be, in one shape that OpenAI's and Anthropic's SDKs both
 * read.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import type { ModelLimit } from 'cortex-core/wire/neuron';
import { type FleetView, type ModelView, resolveAlias } from '../decide/fleet-view.ts';
import { considerNode } from '../decide/placement.ts';

export interface ModelsDeps {
  readonly view: () => FleetView;
  /** When this gateway started: `created` must not move. */
  readonly createdSecs: number;
}

const pageMax = 1000;

export function modelsHandler(deps: ModelsDeps): (exchange: Exchange) => void {
  return (exchange) => {
    const view = deps.view();
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
    const view = deps.view();
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

/** The tightest limit that nodes which hold the model tell, else the catalogue's. */
export function advertisedLimit(view: FleetView, requested: string): ModelLimit | null {
  const model = resolveAlias(view, requested);
  let tightest: ModelLimit | null = null;
  for (const node of view.nodes) {
    const limit = node.models.get(model)?.limit;
    if (limit && (tightest === null || limit.context < tightest.context)) tightest = limit;
  }
  return tightest ?? view.catalogue.get(model)?.limit ?? null;
}

/** Sorted; an alias only where its target is known. */
function modelIds(view: FleetView): string[] {
  const ids = new Set(view.catalogue.keys());
  for (const node of view.nodes) for (const id of node.models.keys()) ids.add(id);
  for (const [alias, target] of view.aliases) if (ids.has(target)) ids.add(alias);
  return [...ids].sort();
}

function describeModel(view: FleetView, id: string, createdSecs: number) {
  const model = resolveAlias(view, id);
  const entry = view.catalogue.get(model);
  const held = view.nodes.flatMap((node) => {
    const found = node.models.get(model);
    return found === undefined ? [] : [{ node, found }];
  });
  const limit = advertisedLimit(view, model);
  const cost = entry?.cost ?? held.find(({ found }) => found.cost !== null)?.found.cost ?? null;
  const inMemory = held.filter(({ found }) => found.status !== 'available' && found.status !== 'unknown');
  return {
    id,
    object: 'model' as const,
    created: createdSecs,
    owned_by: 'cortex',
    loaded: held.some(
      ({ node, found }) => node.healthy && found.status === 'loaded' && found.unservable === null,
    ),
    feasible_on: feasibleOn(view, model),
    locations: inMemory.map(({ node, found }) => locationOf(node.name, found)),
    capabilities: union(
      held.map(({ found }) => found.capabilities),
      entry?.capabilities ?? [],
    ),
    ...(limit === null ? {} : { limit }),
    ...(cost === null ? {} : { cost }),
    tool_call: held.some(({ found }) => found.toolCall),
    reasoning: held.some(({ found }) => found.reasoning),
    ...(limit === null
      ? {}
      : {
          max_model_len: limit.context,
          max_input_tokens: limit.input ?? limit.context,
          max_output_tokens: limit.output,
          max_tokens: limit.output,
        }),
    ...(model === id ? {} : { alias_of: model }),
    type: 'model' as const,
    display_name: id,
    created_at: new Date(createdSecs * 1000).toISOString(),
    lifecycle: 'active',
  };
}

function feasibleOn(view: FleetView, model: string): string[] {
  return view.nodes
    .filter(
      (node) => node.models.get(model)?.status === 'loaded' || !('reason' in considerNode(view, node, model)),
    )
    .map((node) => node.name);
}

function locationOf(node: string, model: ModelView) {
  return {
    node,
    status: model.status,
    devices: model.devices,
    vram_estimate_mb: model.vramMb,
    ...(model.unservable === null ? {} : { unservable: model.unservable }),
  };
}

function union(lists: readonly (readonly string[])[], more: readonly string[]): string[] {
  return [...new Set([...more, ...lists.flat()])];
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
