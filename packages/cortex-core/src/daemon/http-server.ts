/**
 * The HTTP server that both daemons share.
 *
 * Problem: two daemons, five dialects, and everywhere the same duties: a request id, a body limit, an error
 * in the right envelope, an abort that reaches the work when the client goes.
 * Design: a table of routes over node:http. A handler gets an `Exchange` and throws AppErrors; `respondError`
 * is the one place where an error becomes a response. Once a handler has sent headers, it owns the socket,
 * and a late error only closes it (a dialect sends its own error event first).
 * Limits: bodies, headers, header and body arrival times. No limit on how long an answer takes: a silent
 * upstream is the business of the upstream's idle timeout.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import {
  AppError,
  describeCause,
  toAnthropicEnvelope,
  toAppError,
  toOpenAiEnvelope,
} from '../wire/errors.ts';
import { checkJsonNesting } from '../wire/json-scan.ts';
import { type BodyLimits, readBody } from './http-body.ts';
import { cutUnread, refuseUnread } from './http-refusals.ts';
import type { Log } from './log.ts';
import { MethodNotAllowed, matchRoute, type Route } from './router.ts';

/** Which envelope an error takes. `flat` is the lifecycle API's `{"error": "..."}`. */
export type EnvelopeStyle = 'openai' | 'anthropic' | 'flat';

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Path without query, as it arrived. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Values of `:name` parts of the route, URL-decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly requestId: string;
  /**
   * Aborts when the client is gone before the response ended, also when it closed its half of the connection,
   * or the server closes by force.
   */
  readonly signal: AbortSignal;
  header(name: string): string | null;
  /** The body's bytes, decompressed, at most `bodyBytesMax`. */
  body(): Promise<Buffer>;
  /** The body as JSON whatever its content-type; `malformed_json` when it is none. */
  json(): Promise<unknown>;
  sendJson(status: number, value: unknown, headers?: Readonly<Record<string, string>>): void;
  sendText(status: number, text: string, contentType: string): void;
}

export interface HttpServerOptions {
  readonly routes: readonly Route<Exchange>[];
  readonly log: Log;
  readonly bodyBytesMax: number;
  /** Throws an AppError to refuse; runs before the handler. */
  readonly authorize?: (exchange: Exchange) => void | Promise<void>;
  readonly envelopeOf: (path: string, request: IncomingMessage) => EnvelopeStyle;
  /** Seen once per request when its response ended or its client left. */
  readonly onEnd?: (exchange: Exchange, status: number, durationMs: number) => void;
  /** Runs before everything else, refusals included: for headers that every answer carries. */
  readonly prepare?: (exchange: Exchange) => void;
  /** How long a client may take to send its headers; 60 s by default. */
  readonly headersTimeoutMs?: number;
  /** Window in which a body has to bring 1 KiB; 30 s by default. */
  readonly slowBodyMs?: number;
}

/** The params are known only after the match, and the match may fail into the exchange's own response. */
type UnmatchedExchange = Omit<Exchange, 'params'> & { params: Exchange['params'] };

export class HttpServer {
  readonly #server: Server;
  readonly #options: HttpServerOptions;
  readonly #sockets = new Set<Socket>();
  #closed: Promise<void> | null = null;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    const headersTimeout = options.headersTimeoutMs ?? 60_000;
    this.#server = createServer({
      keepAliveTimeout: 75_000,
      headersTimeout,
      connectionsCheckingInterval: Math.min(30_000, headersTimeout),
      // a large upload over a slow line may take long: http-body.ts looks at whether it moves
      requestTimeout: 0,
      maxHeaderSize: 64 * 1024,
    });
    this.#server.on('request', (request, response) => void this.#serve(request, response));
    // who asks whether to send a body is told when somebody wants to read it, or gets the refusal
    this.#server.on('checkContinue', (request, response) => void this.#serve(request, response));
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      // each request of a pipeline listens for its end
      socket.setMaxListeners(0);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('upgrade', (_request, socket) => {
      const head = [
        'HTTP/1.1 426 Upgrade Required',
        'upgrade: HTTP/1.1',
        'connection: close',
        'content-length: 0',
      ];
      socket.end(`${head.join('\r\n')}\r\n\r\n`);
    });
    this.#server.on('clientError', refuseUnread);
  }

  /** Resolves with the bound port; port 0 picks a free one. */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) =>
        reject(explainListenError(error, host, port)),
      );
      this.#server.listen({ host, port }, () => resolve((this.#server.address() as AddressInfo).port));
    });
  }

  /** Stops accepting, lets running exchanges end for `graceMs`, then cuts them. Idempotent. */
  close(graceMs = 0): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      const cut = setTimeout(() => this.#server.closeAllConnections(), graceMs);
      this.#server.close(() => {
        clearTimeout(cut);
        resolve();
      });
      this.#server.closeIdleConnections();
      if (graceMs === 0) for (const socket of this.#sockets) socket.destroy();
    });
    return this.#closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const startedMs = performance.now();
    const { bodyBytesMax: bytesMax, slowBodyMs: slowMs = 30_000 } = this.#options;
    const exchange = createExchange(request, response, { bytesMax, slowMs });
    response.setHeader('x-request-id', exchange.requestId);
    response.setHeader('request-id', exchange.requestId);
    response.once('close', () => {
      this.#options.onEnd?.(exchange, response.statusCode, performance.now() - startedMs);
    });
    response.once('finish', () => cutUnread(request));
    try {
      this.#options.prepare?.(exchange);
      const found = matchRoute(this.#options.routes, request.method ?? 'GET', exchange.path);
      exchange.params = found.params;
      await this.#options.authorize?.(exchange);
      await found.handler(exchange);
    } catch (thrown) {
      this.#fail(exchange, thrown);
    }
  }

  #fail(exchange: Exchange, thrown: unknown): void {
    if (exchange.signal.aborted) return void exchange.response.destroy();
    const error = toAppError(thrown);
    const cause = describeCause(error);
    const fields = { request_id: exchange.requestId, path: exchange.path, code: error.code, cause };
    if (error.status >= 500) this.#options.log.error(error.message, fields);
    else this.#options.log.debug(error.message, fields);
    // A connection that stays open would hold the shutdown up, and its next request would be refused too.
    if (this.#closed !== null && !exchange.response.headersSent) {
      exchange.response.setHeader('connection', 'close');
    }
    respondError(exchange, error, this.#options.envelopeOf(exchange.path, exchange.request));
  }
}

/** The one place where an error becomes a response. After headers are out it can only cut the connection. */
function respondError(exchange: Exchange, error: AppError, style: EnvelopeStyle): void {
  const { response } = exchange;
  if (response.headersSent) return void response.destroy();
  if (error.retryAfterSecs !== null) {
    response.setHeader('retry-after', String(Math.max(1, Math.ceil(error.retryAfterSecs))));
  }
  // the statuses that the vendors' SDKs would send again unasked
  const isRepeated = error.status >= 500 || error.status === 429;
  if (isRepeated && !error.retryable) response.setHeader('x-should-retry', 'false');
  if (error instanceof MethodNotAllowed) response.setHeader('allow', error.allow);
  // without its 100 the client may leave the body out, or not: what comes next cannot be told from it
  const { complete, headers } = exchange.request;
  if (!complete && headers.expect !== undefined) response.setHeader('connection', 'close');
  exchange.sendJson(error.status, errorBody(error, style, exchange.requestId));
}

function errorBody(error: AppError, style: EnvelopeStyle, requestId: string): unknown {
  switch (style) {
    case 'openai':
      return toOpenAiEnvelope(error);
    case 'anthropic':
      return toAnthropicEnvelope(error, requestId);
    case 'flat':
      return { error: error.message, code: error.code, ...error.extras };
    default:
      return style satisfies never;
  }
}

function createExchange(
  request: IncomingMessage,
  response: ServerResponse,
  limits: BodyLimits,
): UnmatchedExchange {
  const url = originForm(request.url ?? '/');
  const mark = url.indexOf('?');
  const gone = new AbortController();
  const onLeave = (): void => gone.abort(new Error('the client closed the connection'));
  // A client that closed its half reads no answer that is worth a slot; what is ready it still gets.
  request.socket.once('end', onLeave);
  response.once('close', () => {
    request.socket.off('end', onLeave);
    if (!response.writableFinished) onLeave();
  });
  let body: Promise<Buffer> | null = null;
  const exchange: UnmatchedExchange = {
    request,
    response,
    path: mark === -1 ? url : url.slice(0, mark),
    query: new URLSearchParams(mark === -1 ? '' : url.slice(mark + 1)),
    params: {},
    requestId: requestIdOf(request),
    signal: gone.signal,
    header: (name) => {
      const value = request.headers[name];
      return value === undefined ? null : Array.isArray(value) ? value.join(', ') : value;
    },
    body: () => {
      body ??= readBody(request, response, limits);
      return body;
    },
    json: async () => parseJson(await exchange.body()),
    sendJson: (status, value, headers = {}) => {
      const bytes = Buffer.from(JSON.stringify(value));
      response.writeHead(status, {
        'content-type': 'application/json',
        'content-length': bytes.length,
        ...headers,
      });
      response.end(request.method === 'HEAD' ? undefined : bytes);
    },
    sendText: (status, text, contentType) => {
      response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) });
      response.end(request.method === 'HEAD' ? undefined : text);
    },
  };
  return exchange;
}

function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) throw new AppError('malformed_json', 'the request has no body; send a JSON object');
  checkJsonNesting(bytes);
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const at = /position (\d+)/.exec(reason)?.[1];
    throw new AppError(
      'malformed_json',
      `the body is not valid JSON${at === undefined ? '' : ` (at character ${at})`}; send one JSON object`,
    );
  }
}

/** A proxy's client sends the whole address (RFC 9112, section 3.2.2). */
function originForm(target: string): string {
  const authority = /^https?:\/\/[^/?#]*/i.exec(target)?.[0];
  if (authority === undefined) return target;
  const rest = target.slice(authority.length);
  return rest.startsWith('/') ? rest : `/${rest}`;
}

/** The client's id when it is a plausible one, so that logs of both sides meet; else a new one. */
function requestIdOf(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  if (typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given)) return given;
  return `req_${randomUUID().replaceAll('-', '')}`;
}

function explainListenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  if (error.code === 'EADDRINUSE') {
    return new Error(`${host}:${port} is in use; stop the program that has it, or choose another port`);
  }
  if (error.code === 'EACCES') {
    return new Error(`no permission to listen on ${host}:${port}; choose a port of 1024 or more`);
  }
  if (error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND') {
    return new Error(
      `${host} is not an address of this machine; listen on 127.0.0.1, 0.0.0.0 or one of its own`,
    );
  }
  return error;
}
