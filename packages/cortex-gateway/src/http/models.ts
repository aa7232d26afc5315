/**
 * GET /v1/models: everything that is loaded or can be, sorted by id, aliases too. OpenAI's shape with our own
 * fields beside; Anthropic's where the client sends `anthropic-version`. Nothing is loaded or marked as used.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { toAnthropicModel } from '../dialects/anthropic-models.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { describeModel, isKnown, modelIds } from '../fleet/listing.ts';
import { pageOf } from './model-pages.ts';

export interface ModelsDeps {
  readonly fleet: Fleet;
  /** When this gateway started: `created` must not move. */
  readonly createdSecs: number;
}

/** As Anthropic; OpenAI's list has no pages. */
const anthropicLimit = 20;

export function modelsHandler(deps: ModelsDeps): (exchange: Exchange) => void {
  return (exchange) => {
    const view = deps.fleet.view();
    const all = modelIds(view).map((id) => describeModel(view, id, deps.createdSecs));
    if (wantsAnthropic(exchange)) {
      const { data, ...page } = pageOf(all, exchange.query, anthropicLimit);
      exchange.sendJson(200, { data: data.map(toAnthropicModel), ...page });
      return;
    }
    // Codex 0.98 to 0.153 wants the key. An entry would have to bring the prompt that takes the place of its
    // own (`base_instructions`); for a model without an entry it keeps that.
    const codexModels = exchange.query.has('client_version') ? { models: [] } : {};
    exchange.sendJson(200, { object: 'list', ...pageOf(all, exchange.query, null), ...codexModels });
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
