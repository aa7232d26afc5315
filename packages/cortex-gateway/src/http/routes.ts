/** All routes of the gateway at a glance. Each API path also answers without /v1 and with it doubled. */
import type { IncomingMessage } from 'node:http';
import type { EnvelopeStyle, Exchange } from 'cortex-core/daemon/http-server';
import type { Method, Route } from 'cortex-core/daemon/router';
import { anthropicMessages } from '../dialects/anthropic.ts';
import { chatCount, messagesCount } from '../dialects/counts.ts';
import { openAiChat, openAiCompletions, openAiEmbeddings, rerank } from '../dialects/openai.ts';
import { type AdminDeps, adminHandlers } from './admin.ts';
import type { BackgroundRuns } from './background-runs.ts';
import { answerPreflight } from './cors.ts';
import { countHandler } from './count.ts';
import { healthHandler } from './health.ts';
import { inferenceHandler } from './inference.ts';
import type { InferenceDeps } from './inference-deps.ts';
import { modelHandler, modelsHandler } from './models.ts';
import { ollamaRoutes } from './ollama.ts';
import type { ResponseStore } from './response-store.ts';
import { responsesHandlers } from './responses.ts';

type Handler = (exchange: Exchange) => void | Promise<void>;

export interface RouteDeps {
  readonly inference: InferenceDeps;
  readonly background: BackgroundRuns;
  readonly admin: AdminDeps;
  readonly responses: ResponseStore;
  readonly createdSecs: number;
}

export function gatewayRoutes(deps: RouteDeps): Route<Exchange>[] {
  const { inference, admin, createdSecs } = deps;
  const withKey = (handler: Handler): Handler => {
    return (exchange) => {
      inference.principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
      return handler(exchange);
    };
  };
  const models = { clock: inference.clock, fleet: inference.fleet, createdSecs };
  const { load, unload, cancel, drain, undrain, reload, defrag, fleet, explain } = adminHandlers(admin);
  const stored = responsesHandlers({ ...deps, store: deps.responses });
  const health = healthHandler(inference.fleet);
  const api: readonly (readonly [Method, string, Handler])[] = [
    ['POST', '/chat/completions', inferenceHandler(inference, openAiChat)],
    ['POST', '/chat/completions/input_tokens', countHandler(inference, chatCount)],
    ['POST', '/completions', inferenceHandler(inference, openAiCompletions)],
    ['POST', '/embeddings', inferenceHandler(inference, openAiEmbeddings)],
    ['POST', '/rerank', inferenceHandler(inference, rerank)],
    ['POST', '/messages', inferenceHandler(inference, anthropicMessages)],
    ['POST', '/messages/count_tokens', countHandler(inference, messagesCount)],
    ['POST', '/responses', stored.create],
    ['POST', '/responses/compact', stored.compact],
    ['POST', '/responses/input_tokens', stored.count],
    ['GET', '/responses/:id', stored.retrieve],
    ['DELETE', '/responses/:id', stored.remove],
    ['POST', '/responses/:id/cancel', stored.cancel],
    ['GET', '/responses/:id/input_items', stored.inputItems],
    ['GET', '/models', withKey(modelsHandler(models))],
    ['GET', '/models/:id*', withKey(modelHandler(models))],
  ];
  const rest: readonly (readonly [Method, string, Handler])[] = [
    ['GET', '/health', health],
    ['GET', '/', health],
    ['GET', '/api/hello', (exchange) => exchange.sendJson(200, {})],
    ...ollamaRoutes({ inference, admin, createdSecs }),
    ['POST', '/admin/load', load],
    ['POST', '/admin/unload', unload],
    ['POST', '/admin/cancel', cancel],
    ['POST', '/admin/drain', drain],
    ['POST', '/admin/undrain', undrain],
    ['POST', '/admin/reload', reload],
    ['POST', '/admin/defrag', defrag],
    ['GET', '/admin/fleet', fleet],
    ['GET', '/admin/explain', explain],
  ];
  const all = [
    ...['/v1', '', '/v1/v1'].flatMap((prefix) => api.map(([m, p, h]) => [m, prefix + p, h] as const)),
    ...rest,
  ];
  return all.flatMap(([method, path, handler]) => [
    { method, path, handler },
    { method: 'OPTIONS' as const, path, handler: answerPreflight },
  ]);
}

/**
 * By path family: an Anthropic client must get errors in its own envelope, also on a route that is not
 * there.
 */
export function envelopeOf(path: string, request: IncomingMessage): EnvelopeStyle {
  if (/\/messages(?:\/|$)/.test(path)) return 'anthropic';
  if (/\/models(?:\/|$)/.test(path) && request.headers['anthropic-version'] !== undefined) return 'anthropic';
  // Ollama's is the flat one
  return /^\/+api(?:\/|$)/.test(path) ? 'flat' : 'openai';
}
