/** Everything a neuron answers, at a glance. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { EnvelopeStyle, Exchange } from 'cortex-core/daemon/http-server';
import type { Method, Route } from 'cortex-core/daemon/router';
import { AppError } from 'cortex-core/wire/errors';
import { instanceHeader } from 'cortex-core/wire/neuron';
import type { ApiDeps } from './api-deps.ts';
import { serveChat } from './chat.ts';
import { serveCompletion } from './completions.ts';
import { serveEmbeddings } from './embeddings.ts';
import { serveInputTokens } from './input-tokens.ts';
import {
  serveCancel,
  serveCapabilities,
  serveEndpoint,
  serveHealth,
  serveLoad,
  serveModels,
  serveMove,
  serveOpenAiModels,
  serveRecycle,
  serveUnload,
} from './lifecycle.ts';
import { serveRerank } from './rerank.ts';
import { serveDetokenize, serveTokenize } from './tokens.ts';

type Handler = (deps: ApiDeps, exchange: Exchange) => void | Promise<void>;

export function createRoutes(deps: ApiDeps): readonly Route<Exchange>[] {
  const route = (method: Method, path: string, handler: Handler): Route<Exchange> => ({
    method,
    path,
    handler: (exchange) => {
      exchange.response.setHeader(instanceHeader, deps.instance);
      return handler(deps, exchange);
    },
  });
  return [
    route('POST', '/v1/chat/completions', serveChat),
    route('POST', '/v1/chat/completions/input_tokens', serveInputTokens),
    route('POST', '/v1/completions', serveCompletion),
    route('POST', '/v1/embeddings', serveEmbeddings),
    route('POST', '/v1/rerank', serveRerank),
    route('POST', '/rerank', serveRerank),
    route('GET', '/v1/models', serveOpenAiModels),
    route('POST', '/tokenize', serveTokenize),
    route('POST', '/detokenize', serveDetokenize),
    route('GET', '/models', serveModels),
    route('POST', '/models/load', serveLoad),
    route('POST', '/models/unload', serveUnload),
    route('POST', '/models/cancel', serveCancel),
    route('POST', '/models/move', serveMove),
    route('POST', '/devices/recycle', serveRecycle),
    route('GET', '/models/:id/endpoint', serveEndpoint),
    route('GET', '/models/:id/capabilities', serveCapabilities),
    route('GET', '/health', serveHealth),
    route('GET', '/version', (each, exchange) => exchange.sendJson(200, each.version())),
    route('GET', '/discovery', async (each, exchange) => exchange.sendJson(200, await each.discovery())),
    route('GET', '/metrics', async ({ metrics, registry }, exchange) =>
      exchange.sendText(200, await metrics.render(registry), metrics.contentType),
    ),
  ];
}

/** Lifecycle routes have the flat envelope, the OpenAI ones OpenAI's. */
export function envelopeOf(path: string): EnvelopeStyle {
  return /^\/(models|devices|health|version|discovery|metrics)(\/|$)/.test(path) ? 'flat' : 'openai';
}

const open = new Set(['/health', '/version']);

/** The key is asked for at each request: a reload may change it. Without one everyone may in. */
export function createAuthorize(keyOf: () => string | undefined): (exchange: Exchange) => void {
  return (exchange) => {
    const key = keyOf();
    if (key === undefined || open.has(exchange.path)) return;
    const bearer = /^Bearer\s+(.+)$/i.exec(exchange.header('authorization') ?? '')?.[1];
    const given = bearer ?? exchange.header('x-api-key');
    if (given !== null && timingSafeEqual(digest(given.trim()), digest(key))) return;
    exchange.response.setHeader('www-authenticate', 'Bearer'); // RFC 9110, section 11.6.1
    throw new AppError('invalid_api_key', 'this neuron needs its key; send Authorization: Bearer KEY');
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
