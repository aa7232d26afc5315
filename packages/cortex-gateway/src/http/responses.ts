/** The routes of the Responses API: making one, and what can be done with one that is there. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { sseHeaders } from 'cortex-core/wire/sse';
import type { Dialect } from '../dialects/dialect.ts';
import { pageOfItems } from '../dialects/responses/item-page.ts';
import { inClientsWords } from '../dialects/responses/params.ts';
import { replayResponse } from '../dialects/responses/replay.ts';
import {
  compactionDialect,
  type ReadResponse,
  type ResponsesDeps,
  readResponse,
  responsesCount,
  responsesWire,
} from '../dialects/responses/responses.ts';
import type { StoredResponse } from '../dialects/responses/store-face.ts';
import { TurnFitter } from '../dialects/responses/truncation.ts';
import { advertisedLimit } from '../fleet/listing.ts';
import { digestOf, keysIn, type Principal } from '../quota/principals.ts';
import type { BackgroundRun } from './background-run.ts';
import type { BackgroundRuns } from './background-runs.ts';
import { countHandler } from './count.ts';
import { sendEvents, splitEvents } from './event-log.ts';
import { routeHeader } from './headers.ts';
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

export interface ResponsesParts {
  readonly inference: InferenceDeps;
  readonly store: ResponseStore;
  readonly background: BackgroundRuns;
}

export function responsesHandlers(parts: ResponsesParts): ResponsesHandlers {
  const { inference, background } = parts;
  const { callerOf, foundOf, depsOf } = findersOf(parts);
  const depsHere = (exchange: Exchange): ResponsesDeps => depsOf(callerOf(exchange), new TurnFitter());
  return {
    create: (exchange) => create(exchange, parts),
    compact: (exchange) => infer(exchange, inference, compactionDialect(depsHere(exchange))),
    count: (exchange) => countHandler(inference, responsesCount(depsHere(exchange)))(exchange),
    retrieve: (exchange) => sendFound(exchange, foundOf(exchange), inference),
    remove: (exchange) => {
      const { owner, shelf } = callerOf(exchange);
      const { id = '' } = exchange.params;
      const run = background.find(owner, id);
      run?.forget();
      if (run === null && !shelf.delete(id)) throw notFound(id, shelf);
      exchange.sendJson(200, { id, object: 'response', deleted: true });
    },
    cancel: async (exchange) => {
      const { stored, run } = foundOf(exchange);
      if (!stored.response.background) {
        const message =
          'Only responses made with background: true can be cancelled; ' +
          'to stop another one, close its connection.';
        throw new AppError('invalid_request', message);
      }
      await run?.cancel();
      exchange.sendJson(200, run?.stored.response ?? stored.response);
    },
    inputItems: (exchange) => {
      exchange.sendJson(200, pageOfItems(foundOf(exchange).stored.input, exchange.query));
    },
  };
}

interface Finders {
  /** Throws where a key is required and there is none. */
  readonly callerOf: (exchange: Exchange) => Caller;
  /** Throws `not_found`. */
  readonly foundOf: (exchange: Exchange) => Found;
  readonly depsOf: (caller: Caller, fitter: TurnFitter) => ResponsesDeps;
}

function findersOf({ inference, store, background }: ResponsesParts): Finders {
  const { clock, fleet, principals } = inference;
  const callerOf = (exchange: Exchange): Caller => {
    const headers = [exchange.header('authorization'), exchange.header('x-api-key')] as const;
    const principal = principals.of(...headers);
    // by the key itself: also where keys are not required, two of them are two people
    const owner = digestOf(keysIn(...headers).join('\n'));
    const shelf = store.of(owner);
    const whyMissing = (id: string): string => {
      const isRunning = background.find(owner, id) !== null;
      return isRunning ? 'It is still being made; wait for its end.' : shelf.whyMissing(id);
    };
    return { principal, owner, shelf: { ...shelf, whyMissing } };
  };
  return {
    callerOf,
    foundOf: (exchange) => {
      const { owner, shelf } = callerOf(exchange);
      const { id = '' } = exchange.params;
      const run = background.find(owner, id);
      const stored = run?.stored ?? shelf.find(id);
      if (stored === null) throw notFound(id, shelf);
      return { stored, run, shelf };
    },
    depsOf: ({ shelf }, fitter) => ({
      fitter,
      store: shelf,
      newId: (prefix) => store.newId(prefix),
      nowSecs: () => Math.floor(clock.now() / 1000),
      contextOf: (model) => advertisedLimit(fleet.view(), model)?.context ?? null,
    }),
  };
}

/** With `truncation: "auto"` again and again, with less each time, until the model can take it. */
async function create(exchange: Exchange, parts: ResponsesParts): Promise<void> {
  const { inference, background } = parts;
  const { callerOf, depsOf } = findersOf(parts);
  exchange.response.setHeader('x-cortex-route', routeHeader(null, 'not routed'));
  const caller = callerOf(exchange);
  const body = await exchange.body();
  const key = inference.attachments.keyOf(exchange, body);
  const fitter = new TurnFitter();
  const read = (): ReadResponse => readResponse(body, depsOf(caller, fitter), inference);
  for (;;) {
    try {
      const { request, background: apart } = read();
      if (apart === null) return await infer(exchange, inference, { ...responsesWire, parse: () => request });
      const again = (error: AppError) => (fitter.learn(error) ? read().request : null);
      const asked = { ...caller, exchange, request, background: apart, again, sentAs: key?.hash ?? null };
      const sent = background.findSent(key);
      if (sent !== null) inference.metrics.onAttached();
      const run = sent ?? (await background.start(asked));
      if (run.route !== null) exchange.response.setHeader('x-cortex-route', run.route);
      if (!run.isStreamed) return exchange.sendJson(200, run.stored.response);
      return await sendEvents(exchange, run.log, 0, inference);
    } catch (thrown) {
      const isOver = exchange.response.headersSent || exchange.signal.aborted;
      if (isOver || !(thrown instanceof AppError)) throw thrown;
      if (!fitter.learn(thrown)) throw inClientsWords(thrown);
    }
  }
}

async function infer(exchange: Exchange, inference: InferenceDeps, dialect: Dialect): Promise<void> {
  try {
    await inferenceHandler(inference, dialect)(exchange);
  } catch (thrown) {
    throw thrown instanceof AppError ? inClientsWords(thrown) : thrown;
  }
}

interface Caller {
  readonly principal: Principal;
  readonly owner: string;
  readonly shelf: CallerShelf;
}

interface Found {
  readonly stored: StoredResponse;
  /** Null = it has ended. */
  readonly run: BackgroundRun | null;
  readonly shelf: CallerShelf;
}

async function sendFound(
  exchange: Exchange,
  { stored, run, shelf }: Found,
  inference: InferenceDeps,
): Promise<void> {
  const { response } = stored;
  if (!/^(?:true|1)$/.test(exchange.query.get('stream') ?? '')) return exchange.sendJson(200, response);
  const from = firstEvent(exchange.query.get('starting_after'));
  if (run !== null) {
    if (!run.isStreamed) {
      const message = 'It is being made without stream: true; ask without stream until it has ended.';
      throw new AppError('invalid_request', message, { param: 'stream' });
    }
    if (run.log.from(from) === null) throw notKept();
    return await sendEvents(exchange, run.log, from, inference);
  }
  const events = shelf.eventsOf(response.id);
  if (events === null && from > 0) throw notKept();
  exchange.response.writeHead(200, sseHeaders);
  exchange.response.end(
    events === null ? replayResponse(response) : splitEvents(events).slice(from).join(''),
  );
}

/** `starting_after`: the number of the last event that the client has. */
function firstEvent(startingAfter: string | null): number {
  if (startingAfter === null) return 0;
  const after = Number(startingAfter);
  if (startingAfter !== '' && Number.isSafeInteger(after) && after >= 0) return after + 1;
  const message = "Invalid 'starting_after': expected the sequence_number of an event, 0 or more.";
  throw new AppError('invalid_request', message, { param: 'starting_after' });
}

function notKept(): AppError {
  const message =
    'These events are not kept: those of responses made with background: true and stream: true are, ' +
    'as many as there is room for. Leave starting_after out to get the response from its beginning.';
  return new AppError('invalid_request', message, { param: 'starting_after' });
}

function notFound(id: string, shelf: CallerShelf): AppError {
  const name = id.length > 64 ? `${id.slice(0, 64)}...` : id;
  return new AppError('not_found', `Response with id '${name}' not found. ${shelf.whyMissing(id)}`);
}
