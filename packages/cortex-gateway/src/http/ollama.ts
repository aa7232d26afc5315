/**
 * Ollama's doors: what editors and UIs that know an Ollama ask, answered for the whole fleet.
 *
 * Inference goes the way of every dialect. A request without a prompt is Ollama's "load this": it
 * waits for a replica and generates nothing; with `keep_alive: 0` it is "unload this", which is an admin's
 * right here. Elsewhere `keep_alive` is read and has no effect: the fleet decides what stays. What manages
 * files (pull, create, push, copy, delete, blobs) is refused: files belong to the neurons' machines.
 */
import { createHash } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { Method } from 'cortex-core/daemon/router';
import { AppError } from 'cortex-core/wire/errors';
import {
  type OllamaChat,
  ollamaChatSchema,
  ollamaEmbeddingsSchema,
  ollamaEmbedSchema,
  ollamaGenerateSchema,
  ollamaShowSchema,
} from 'cortex-core/wire/ollama';
import type { Dialect } from '../dialects/dialect.ts';
import {
  ollamaChat,
  ollamaEmbed,
  ollamaEmbeddings,
  ollamaGenerate,
  type ResolveName,
} from '../dialects/ollama/ollama.ts';
import { ndjsonHeaders, type OllamaShape, toLine } from '../dialects/ollama/ollama-answer.ts';
import { parseOllama } from '../dialects/ollama/ollama-body.ts';
import {
  type OllamaModel,
  resolveOllamaName,
  toRunning,
  toShow,
  toTag,
} from '../dialects/ollama/ollama-models.ts';
import { describeModel, modelIds } from '../fleet/listing.ts';
import { type AdminDeps, requireAdmin } from './admin.ts';
import { inferenceHandler } from './inference.ts';
import type { InferenceDeps } from './inference-deps.ts';

export interface OllamaDeps {
  readonly inference: InferenceDeps;
  readonly admin: AdminDeps;
  readonly createdSecs: number;
}

type Handler = (exchange: Exchange) => void | Promise<void>;

/** The Ollama whose API this is: clients refuse servers that are older than what they need. */
const apiVersion = '0.13.5';

/** Every route below /api, each with its handler. */
export function ollamaRoutes(deps: OllamaDeps): readonly (readonly [Method, string, Handler])[] {
  const { fleet, principals } = deps.inference;
  const withKey = (handler: Handler): Handler => {
    return (exchange) => {
      principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
      return handler(exchange);
    };
  };
  const resolve: ResolveName = (name) => resolveOllamaName(name, new Set(modelIds(fleet.view())));
  const infer = (dialect: (resolve: ResolveName) => Dialect): Handler =>
    inferenceHandler(deps.inference, dialect(resolve));
  return [
    ['GET', '/api/version', (exchange) => exchange.sendJson(200, { version: apiVersion })],
    ['GET', '/api/tags', withKey((exchange) => sendTags(deps, exchange))],
    ['GET', '/api/ps', withKey((exchange) => sendRunning(deps, exchange))],
    ['POST', '/api/show', withKey((exchange) => sendShown(deps, exchange, resolve))],
    ['POST', '/api/chat', orLoad(deps, resolve, 'chat', infer(ollamaChat))],
    ['POST', '/api/generate', orLoad(deps, resolve, 'generate', infer(ollamaGenerate))],
    ['POST', '/api/embed', orLoad(deps, resolve, 'embed', infer(ollamaEmbed))],
    ['POST', '/api/embeddings', orLoad(deps, resolve, 'embeddings', infer(ollamaEmbeddings))],
    ...['/api/pull', '/api/push', '/api/create', '/api/copy'].map((path) => ['POST', path, refuse] as const),
    ['DELETE', '/api/delete', refuse],
    ['POST', '/api/blobs/:digest', refuse],
  ];
}

function sendTags(deps: OllamaDeps, exchange: Exchange): void {
  exchange.sendJson(200, { models: listAll(deps).map(toTag) });
}

function sendRunning(deps: OllamaDeps, exchange: Exchange): void {
  const loaded = listAll(deps).filter(({ isLoaded }) => isLoaded);
  exchange.sendJson(200, { models: loaded.map(toRunning) });
}

async function sendShown(deps: OllamaDeps, exchange: Exchange, resolve: ResolveName): Promise<void> {
  const { model: name } = parseOllama(ollamaShowSchema, await exchange.body());
  const id = resolve(name);
  const found = listAll(deps).find((each) => each.id === id);
  if (found === undefined) throw notFound(name);
  exchange.sendJson(200, toShow(found));
}

interface Listed extends OllamaModel {
  readonly isLoaded: boolean;
}

function listAll({ inference, createdSecs }: OllamaDeps): Listed[] {
  const view = inference.fleet.view();
  return modelIds(view).map((id) => {
    const model = describeModel(view, id, createdSecs);
    const sizes = model.locations.flatMap(({ vram_estimate_mb: mb }) => mb ?? []);
    const held = view.nodes.flatMap((node) => node.models.get(model.alias_of ?? id)?.vramMb ?? []);
    return {
      id,
      modifiedAt: model.created_at,
      // of the name: two names are two models to a client, and what the files hold is not known here
      digest: createHash('sha256').update(id).digest('hex'),
      capabilities: model.capabilities,
      context: model.limit?.context ?? null,
      memoryMb: sizes[0] ?? held[0] ?? null,
      isLoaded: model.loaded,
    };
  });
}

/** Takes the requests without a prompt; `infer` the others. */
function orLoad(deps: OllamaDeps, resolve: ResolveName, shape: EmptyShape, infer: Handler): Handler {
  return async (exchange) => {
    const { inference, admin } = deps;
    inference.principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
    const request = readEmpty(shape, await exchange.body());
    if (request === null) return infer(exchange);
    const model = resolve(request.model);
    if (isZero(request.keep_alive)) {
      requireAdmin(exchange, admin.adminKeys());
      await inference.fleet.operations.unload(model, null);
      return sendEmpty(deps, exchange, request, shape, 'unload');
    }
    const ticket = inference.fleet.request({ model }, exchange.signal);
    (ticket.lease ?? (await ticket.ready)).release();
    sendEmpty(deps, exchange, request, shape, 'load');
  };
}

type EmptyShape = OllamaShape | 'embed' | 'embeddings';
type Empty = Pick<OllamaChat, 'model' | 'stream' | 'keep_alive'>;

function readEmpty(shape: EmptyShape, body: Uint8Array): Empty | null {
  switch (shape) {
    case 'chat': {
      const request = parseOllama(ollamaChatSchema, body);
      return (request.messages?.length ?? 0) === 0 ? request : null;
    }
    case 'generate': {
      const request = parseOllama(ollamaGenerateSchema, body);
      return request.prompt || request.suffix || (request.images?.length ?? 0) > 0 ? null : request;
    }
    case 'embed': {
      const { input, ...request } = parseOllama(ollamaEmbedSchema, body);
      return (input?.length ?? 0) === 0 ? { ...request, stream: false } : null;
    }
    case 'embeddings': {
      const { prompt, ...request } = parseOllama(ollamaEmbeddingsSchema, body);
      return prompt ? null : { ...request, stream: false };
    }
    default:
      return shape satisfies never;
  }
}

function isZero(keepAlive: Empty['keep_alive']): boolean {
  return (
    keepAlive === 0 || (typeof keepAlive === 'string' && /^0+(\.0+)?(ns|us|µs|ms|s|m|h)?$/.test(keepAlive))
  );
}

function sendEmpty(
  { inference }: OllamaDeps,
  exchange: Exchange,
  { model, stream }: Empty,
  shape: EmptyShape,
  reason: 'load' | 'unload',
): void {
  if (shape === 'embed' || shape === 'embeddings') {
    exchange.sendJson(200, shape === 'embed' ? { model, embeddings: [] } : { embedding: [] });
    return;
  }
  const answer = {
    model,
    created_at: new Date(inference.clock.now()).toISOString(),
    ...(shape === 'chat' ? { message: { role: 'assistant', content: '' } } : { response: '' }),
    done: true,
    done_reason: reason,
  };
  if (stream === false) {
    exchange.sendJson(200, answer);
    return;
  }
  exchange.response.writeHead(200, ndjsonHeaders);
  exchange.response.end(toLine(answer));
}

function refuse(exchange: Exchange): never {
  throw new AppError(
    'not_found',
    `${exchange.path} is not done here: model files belong to the machines of the fleet; put the GGUF into ` +
      "a neuron's models folder, or list it in models.toml",
  );
}

function notFound(name: string): AppError {
  return new AppError(
    'model_not_found',
    `model "${name.slice(0, 200)}" not found; GET /api/tags lists what there is`,
    {
      param: 'model',
    },
  );
}
