/** The lifecycle routes, with the shapes that the gateway and its operators know. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError, type ErrorCode, toAppError } from 'cortex-core/wire/errors';
import {
  type DeviceRecycled,
  deviceRecycleSchema,
  modelCancelSchema,
  modelMoveSchema,
  modelSpecSchema,
  modelUnloadSchema,
} from 'cortex-core/wire/neuron';
import { parseBody } from 'cortex-core/wire/openai';
import { assertDraftId, assertModelId } from '../models/model-id.ts';
import type { ApiDeps } from './api-deps.ts';

/** These have a structured body, `{"error":{"kind",...}}`, so that a caller can act on them. */
const structured: ReadonlySet<ErrorCode> = new Set(['repo_fetch_failed', 'empty_repo', 'quant_not_found']);

/** Replies when the model is resident. A client that leaves does not stop the load. */
export async function serveLoad(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const spec = parseBody(modelSpecSchema, await exchange.json());
  assertModelId(spec.model_id);
  if (spec.draft_model) assertDraftId(spec.draft_model);
  if (spec.lora && spec.lora.length > 0) {
    throw new AppError(
      'invalid_request',
      'a request may not name files; put lora into [[default_models]] of neuron.toml',
      { param: 'lora' },
    );
  }
  try {
    await deps.registry.load(spec);
  } catch (thrown) {
    const error = toAppError(thrown);
    if (!structured.has(error.code)) throw thrown;
    const { message, code, extras } = error;
    exchange.sendJson(error.status, {
      error: { kind: code, model_id: spec.model_id, message, ...extras },
      code,
    });
    return;
  }
  exchange.sendJson(200, { status: 'loaded' });
}

export async function serveUnload(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const body = await exchange.json();
  if (typeof body === 'object' && body !== null && !('model_id' in body)) {
    throw new AppError('invalid_request', 'missing model_id', { param: 'model_id' });
  }
  const { model_id, unused_since: since } = parseBody(modelUnloadSchema, body);
  if (since === undefined) await deps.registry.unload(model_id);
  else await deps.registry.unloadUnused(model_id, since);
  exchange.sendJson(200, { status: 'unloaded' });
}

/** Replies when the load has ended; a model that is not loading stays as it is. */
export async function serveCancel(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const { model_id } = parseBody(modelCancelSchema, await exchange.json());
  const cancelled = await deps.registry.cancelLoad(model_id);
  exchange.sendJson(200, { status: cancelled ? 'cancelled' : 'not_loading' });
}

/** Replies when the model serves on the other devices, or stays with the reason why. */
export async function serveMove(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const { model_id, devices } = parseBody(modelMoveSchema, await exchange.json());
  await deps.registry.move(model_id, devices);
  exchange.sendJson(200, { status: 'moved' });
}

/** Replies when the fresh owner has its models. */
export async function serveRecycle(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const { device } = parseBody(deviceRecycleSchema, await exchange.json());
  const report = await deps.registry.recycle(device);
  exchange.sendJson(200, { status: 'recycled', ...report } satisfies DeviceRecycled);
}

export async function serveModels(deps: ApiDeps, exchange: Exchange): Promise<void> {
  exchange.sendJson(200, await deps.registry.list());
}

export function serveEndpoint(deps: ApiDeps, exchange: Exchange): void {
  const id = exchange.params.id ?? '';
  if (!deps.registry.isLoaded(id)) throw new AppError('model_not_loaded', `model '${id}' not loaded`);
  exchange.sendJson(200, { url: deps.baseUrl(exchange.header('host')) });
}

/** 404 means that this neuron knows nothing of the model, which is not the same as an empty list. */
export async function serveCapabilities(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const id = exchange.params.id ?? '';
  const model = await deps.registry.find(id);
  if (model === null) throw new AppError('model_not_found', `nothing is known here of model '${id}'`);
  exchange.sendJson(200, { capabilities: model.capabilities });
}

/** OpenAI's list: what serves now. */
export async function serveOpenAiModels(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const loaded = (await deps.registry.list()).filter((model) => model.status === 'loaded');
  const created = Math.floor(deps.clock.now() / 1000 - deps.uptimeSecs());
  const data = loaded.map(({ id, capabilities, limit }) => ({
    id,
    object: 'model',
    created,
    owned_by: 'neuron',
    capabilities,
    ...(limit === undefined ? {} : { limit }),
  }));
  exchange.sendJson(200, { object: 'list', data });
}

export async function serveHealth(deps: ApiDeps, exchange: Exchange): Promise<void> {
  exchange.sendJson(200, {
    uptime_secs: Math.floor(deps.uptimeSecs()),
    instance: deps.instance,
    devices: await deps.deviceHealth(),
    activation: deps.activation(),
    models: deps.registry.loads(),
    loading: deps.registry.progress(),
  });
}
