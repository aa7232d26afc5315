/**
 * GET /v1/models: everything that is loaded or can be, sorted by id, aliases too. OpenAI's shape with our own
 * fields beside; Anthropic's where the client sends `anthropic-version`. Nothing is loaded or marked as used.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { toAnthropicModel } from '../dialects/anthropic-models.ts';
import { FeasibleNodes } from '../fleet/feasible-nodes.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { describeModel, isKnown, modelIds } from '../fleet/listing.ts';
import { sendList } from './long-list.ts';
import { pageOf } from './model-pages.ts';

export interface ModelsDeps {
  readonly clock: Clock;
  readonly fleet: Fleet;
  /** When this gateway started: `created` must not move. */
  readonly createdSecs: number;
}

/** As Anthropic; OpenAI's list has no pages. */
const anthropicLimit = 20;

export function modelsHandler(deps: ModelsDeps): (exchange: Exchange) => Promise<void> {
  return async (exchange) => {
    const isAnthropic = wantsAnthropic(exchange);
    const ids = modelIds(deps.fleet.view()).map((id) => ({ id }));
    const { data, ...page } = pageOf(ids, exchange.query, isAnthropic ? anthropicLimit : null);
    const feasible = new FeasibleNodes(deps.fleet.view());
    // a view holds until the next wait
    const describe = ({ id }: { readonly id: string }) =>
      describeModel(deps.fleet.view(), id, deps.createdSecs, feasible);
    if (isAnthropic) {
      return await sendList(exchange, deps.clock, {}, data, (each) => toAnthropicModel(describe(each)), page);
    }
    // Codex 0.98 to 0.153 wants the key. An entry would have to bring the prompt that takes the place of its
    // own (`base_instructions`); for a model without an entry it keeps that.
    const codexModels = exchange.query.has('client_version') ? { models: [] } : {};
    await sendList(exchange, deps.clock, { object: 'list' }, data, describe, { ...page, ...codexModels });
  };
}

export function modelHandler(deps: ModelsDeps): (exchange: Exchange) => void {
  return (exchange) => {
    const view = deps.fleet.view();
    const id = exchange.params.id ?? '';
    if (!isKnown(view, id)) {
      const name = id.slice(0, 200);
      const message = wantsAnthropic(exchange)
        ? `model: ${name}`
        : `model "${name}" not found; GET /v1/models lists what there is`;
      throw new AppError('model_not_found', message, { param: 'model' });
    }
    const model = describeModel(view, id, deps.createdSecs);
    exchange.sendJson(200, wantsAnthropic(exchange) ? toAnthropicModel(model) : model);
  };
}

function wantsAnthropic(exchange: Exchange): boolean {
  return exchange.header('anthropic-version') !== null;
}
