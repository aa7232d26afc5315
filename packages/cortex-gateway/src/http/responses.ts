/** The routes of the Responses API: making one, and what can be done with one that is stored. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { sseHeaders } from 'cortex-core/wire/sse';
import type { Dialect } from '../dialects/dialect.ts';
import { pageOfItems } from '../dialects/responses/item-page.ts';
import { inClientsWords } from '../dialects/responses/params.ts';
import { replayResponse } from '../dialects/responses/replay.ts';
import {
  compactionDialect,
  type ResponsesDeps,
  responsesCount,
  responsesDialect,
} from '../dialects/responses/responses.ts';
import type { StoredResponse } from '../dialects/responses/store-face.ts';
import { TurnFitter } from '../dialects/responses/truncation.ts';
import { advertisedLimit } from '../fleet/listing.ts';
import { digestOf, keysIn } from '../quota/principals.ts';
import { countHandler } from './count.ts';
import { inferenceHandler } from './inference.ts';
import type { InferenceDeps } from './inference-deps.ts';
import type { CallerShelf, ResponseStore } from './response-store.ts';

type Handler = (exchange: Exchange) => void | Promise<void>;

export interface ResponsesHandlers {
  readonly create: Handler;
  readonly compact: Handler;
  readonly count: Handler;
  readonly retrieve: Handler;
  readonly remove: Handler;
  readonly cancel: Handler;
  readonly inputItems: Handler;
}

export function responsesHandlers(inference: InferenceDeps, store: ResponseStore): ResponsesHandlers {
  const { clock, fleet, principals } = inference;
  const shelfOf = (exchange: Exchange): CallerShelf => {
    const headers = [exchange.header('authorization'), exchange.header('x-api-key')] as const;
    principals.of(...headers);
    // by the key itself: also where keys are not required, two of them are two people
    return store.of(digestOf(keysIn(...headers).join('\n')));
  };
  const storedOf = (exchange: Exchange): StoredResponse => {
    const shelf = shelfOf(exchange);
    const { id = '' } = exchange.params;
    const found = shelf.find(id);
    if (found !== null) return found;
    throw notFound(id, shelf);
  };
  const depsOf = (exchange: Exchange, fitter = new TurnFitter()): ResponsesDeps => ({
    fitter,
    store: shelfOf(exchange),
    newId: (prefix) => store.newId(prefix),
    nowSecs: () => Math.floor(clock.now() / 1000),
    contextOf: (model) => advertisedLimit(fleet.view(), model)?.context ?? null,
  });
  const infer = async (exchange: Exchange, dialect: Dialect): Promise<void> => {
    try {
      await inferenceHandler(inference, dialect)(exchange);
    } catch (thrown) {
      throw thrown instanceof AppError ? inClientsWords(thrown) : thrown;
    }
  };
  const createFitting = async (exchange: Exchange): Promise<void> => {
    const fitter = new TurnFitter();
    for (;;) {
      try {
        await infer(exchange, responsesDialect(depsOf(exchange, fitter)));
        return;
      } catch (thrown) {
        const isOver = exchange.response.headersSent || exchange.signal.aborted;
        if (isOver || !(thrown instanceof AppError) || !fitter.learn(thrown)) throw thrown;
      }
    }
  };
  return {
    create: createFitting,
    compact: (exchange) => infer(exchange, compactionDialect(depsOf(exchange))),
    count: (exchange) => countHandler(inference, responsesCount(depsOf(exchange)))(exchange),
    retrieve: (exchange) => sendStored(exchange, storedOf(exchange)),
    remove: (exchange) => {
      const shelf = shelfOf(exchange);
      const { id = '' } = exchange.params;
      if (!shelf.delete(id)) throw notFound(id, shelf);
      exchange.sendJson(200, { id, object: 'response', deleted: true });
    },
    cancel: (exchange) => {
      storedOf(exchange);
      const message =
        'Only responses made with background: true can be cancelled, and there are none here; ' +
        'to stop a response, close its connection.';
      throw new AppError('invalid_request', message);
    },
    inputItems: (exchange) => exchange.sendJson(200, pageOfItems(storedOf(exchange).input, exchange.query)),
  };
}

function sendStored(exchange: Exchange, { response }: StoredResponse): void {
  if (!/^(?:true|1)$/.test(exchange.query.get('stream') ?? '')) {
    exchange.sendJson(200, response);
    return;
  }
  if (exchange.query.get('starting_after') !== null) {
    const message =
      'An answer that is retrieved is streamed as a whole, and not in the pieces of the first time; ' +
      'leave starting_after out.';
    throw new AppError('unsupported_parameter', message, { param: 'starting_after' });
  }
  exchange.response.writeHead(200, sseHeaders);
  exchange.response.end(replayResponse(response));
}

function notFound(id: string, shelf: CallerShelf): AppError {
  const name = id.length > 64 ? `${id.slice(0, 64)}...` : id;
  return new AppError('not_found', `Response with id '${name}' not found. ${shelf.whyMissing(id)}`);
}
