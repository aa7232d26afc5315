/**
 * Connections to one address, kept for the next request. One pool per neuron or provider, so that one hung
 * machine cannot hold another's connections. How long a request may take is the business of who sends it.
 */
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type RequestOptions,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { urlToHttpOptions } from 'node:url';

export interface HttpPoolOptions {
  /** `http:` or `https:`; its path stands before that of each request. */
  readonly url: string;
  readonly connectTimeoutMs: number;
}

export interface PoolRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
}

const keepAliveMs = 30_000;
/** A connection is good for so much less than the other side said; Node itself takes off a second. */
const marginMs = 2000;

export class HttpPool {
  readonly #agent: HttpAgent;
  readonly #request: typeof httpRequest;
  /** `timeout`: the agent's is one for connections that wait, not for answers. */
  readonly #base: RequestOptions;
  readonly #prefix: string;
  readonly #connectTimeoutMs: number;
  /** Until when kept connections are good, ms of `performance.now`. */
  readonly #goodUntilMs = new WeakMap<Socket, number>();
  #isClosed = false;

  constructor({ url, connectTimeoutMs }: HttpPoolOptions) {
    const { origin, pathname, protocol } = new URL(url);
    // of what is known of the address only what is needed: each open request keeps a copy of it
    const { hostname, port } = urlToHttpOptions(new URL(origin));
    this.#base = { protocol, hostname, ...(port === undefined ? {} : { port }), timeout: 0 };
    this.#prefix = pathname.replace(/\/+$/, '');
    const isTls = protocol === 'https:';
    const settings = { keepAlive: true, timeout: keepAliveMs };
    this.#agent = isTls ? new HttpsAgent(settings) : new HttpAgent(settings);
    this.#watchKept();
    this.#request = isTls ? httpsRequest : httpRequest;
    this.#connectTimeoutMs = connectTimeoutMs;
  }

  /** The caller listens for `response` and `error`. */
  send({ method, path, headers, body }: PoolRequest): ClientRequest {
    if (this.#isClosed) throw new Error('the pool is closed');
    const agent = this.#agent;
    this.#dropExpired();
    const sent = this.#request({ ...this.#base, agent, method, path: this.#prefix + path, headers });
    sent.once('socket', (socket) => this.#limitConnect(sent, socket));
    sent.end(body);
    return sent;
  }

  /** Cuts what runs. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#agent.destroy();
  }

  #limitConnect(sent: ClientRequest, socket: Socket): void {
    if (!socket.connecting) return;
    const connected = 'encrypted' in socket ? 'secureConnect' : 'connect';
    const limitMs = this.#connectTimeoutMs;
    const sinceMs = performance.now();
    let isDone = false;
    const onDone = (): void => {
      isDone = true;
      clearTimeout(timer);
      socket.off(connected, onDone);
      socket.off('close', onDone);
    };
    const onTimer = (): void => {
      // a timer counts from when the loop last looked at the clock
      const leftMs = limitMs - (performance.now() - sinceMs);
      if (leftMs > 0) timer = setTimeout(onTimer, leftMs);
      // a loop that was held up sees its sockets first
      else setImmediate(() => isDone || sent.destroy(new Error(`no connection within ${limitMs} ms`)));
    };
    let timer = setTimeout(onTimer, limitMs);
    socket.once(connected, onDone);
    socket.once('close', onDone);
  }

  /** A server's `keep-alive: timeout` is when it closes: what is sent then is lost. */
  #watchKept(): void {
    const agent = this.#agent;
    const keep = agent.keepSocketAlive.bind(agent) as (socket: unknown) => unknown;
    agent.keepSocketAlive = ((socket: Socket) => {
      if (keep(socket) === false) return false;
      const { timeout = keepAliveMs } = socket;
      if (timeout <= marginMs) return false;
      const goodMs = timeout >= keepAliveMs ? keepAliveMs : timeout - marginMs;
      socket.setTimeout(goodMs);
      this.#goodUntilMs.set(socket, performance.now() + goodMs);
      return true;
    }) as typeof agent.keepSocketAlive;
  }

  /** In a loop that was held up no timer has closed them. The agent passes over what is destroyed. */
  #dropExpired(): void {
    const nowMs = performance.now();
    for (const sockets of Object.values(this.#agent.freeSockets)) {
      for (const socket of sockets ?? []) {
        if ((this.#goodUntilMs.get(socket) ?? nowMs) <= nowMs) socket.destroy();
      }
    }
  }
}
