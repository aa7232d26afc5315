/** All routes of the gateway at a glance. Each API path also answers without /v1 and with it doubled. */
import type { IncomingMessage } from 'node:http';
import type { EnvelopeStyle, Exchange } from 'cortex-core/daemon/http-server';
import type { Method, Route } from 'cortex-core/daemon/router';
import { anthropicMessages } from '../dialects/anthropic.ts';
import { openAiChat, openAiCompletions, openAiEmbeddings, rerank } from '../dialects/openai.ts';
import { type AdminDeps, adminHandlers } from './admin.ts';
import { answerPreflight } from './cors.ts';
import { healthHandler } from './health.ts';
import { type InferenceDeps, inferenceHandler } from './inference.ts';
import { modelHandler, modelsHandler } from './models.ts';

type Handler = (exchange: Exchange) => void | Promise<void>;

export interface RouteDeps {
  readonly inference: InferenceDeps;
  readonly admin: AdminDeps;
  readonly createdSecs: number;
}

export function gatewayRoutes({ inference, admin, createdSecs }: RouteDeps): Route<Exchange>[] {
  const withKey = (handler: Handler): Handler => {
    return (exchange) => {
      inference.principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
      return handler(exchange);
    };
  };
  const models = { fleet: inference.fleet, createdSecs };
  const { load, unload, defrag, fleet } = adminHandlers(admin);
  const health = healthHandler(inference.fleet);
  const api: readonly (readonly [Method, string, Handler])[] = [
    ['POST', '/chat/completions', inferenceHandler(inference, openAiChat)],
    ['POST', '/completions', inferenceHandler(inference, openAiCompletions)],
    ['POST', '/embeddings', inferenceHandler(inference, openAiEmbeddings)],
    ['POST', '/rerank', inferenceHandler(inference, rerank)],
    ['POST', '/messages', inferenceHandler(inference, anthropicMessages)],
    ['GET', '/models', withKey(modelsHandler(models))],
    ['GET', '/models/:id*', withKey(modelHandler(models))],
  ];
  const rest: readonly (readonly [Method, string, Handler])[] = [
    ['GET', '/health', health],
    ['GET', '/', health],
    ['GET', '/api/hello', (exchange) => exchange.sendJson(200, {})],
    ['POST', '/admin/load', load],
    ['POST', '/admin/unload', unload],
    ['POST', '/admin/defrag', defrag],
    ['GET', '/admin/fleet', fleet],
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
  return 'openai';
}
