/**
 * One neuron over HTTP: small JSON calls with a size limit and a deadline, and streamed inference with an
 * idle timeout. undici's own timeouts are off: they would be total limits on a silent prefill. The pool is
 * per neuron, so that one hung machine cannot hold another's connections.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import { Pool } from 'undici';
import { chunksOf, IdleWatch } from './idle-watch.ts';

export interface NeuronClientOptions {
  readonly name: string;
  readonly endpoint: string;
  /** Asked at each request. */
  readonly key: () => string | null;
  readonly clock: Clock;
  readonly connectTimeoutMs?: number;
}

export interface OpenRequest {
  readonly path: string;
  readonly body: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Silence after which the request fails. */
  readonly idleMs: number;
  /** Asked when the silence is over: true waits on. For answers that come whole, where silence is normal. */
  readonly stillAlive?: () => boolean;
  /** Only a line that ends breaks the silence: for streams of events. */
  readonly byLines?: boolean;
}

export interface UpstreamAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** The body's bytes as they come. Throws an AppError when the neuron breaks off or falls silent. */
  readonly chunks: AsyncIterable<Buffer>;
  /** Stops the request; idempotent. */
  abort(): void;
}

export interface JsonAnswer {
  readonly status: number;
  readonly body: unknown;
}

const jsonBytesMax = 8 * 1024 * 1024;

export class NeuronClient {
  readonly name: string;
  readonly #pool: Pool;
  readonly #prefix: string;
  readonly #key: () => string | null;
  readonly #clock: Clock;

  constructor(options: NeuronClientOptions) {
    const url = new URL(options.endpoint);
    this.name = options.name;
    this.#key = options.key;
    this.#clock = options.clock;
    this.#prefix = url.pathname.replace(/\/+$/, '');
    this.#pool = new Pool(url.origin, {
      headersTimeout: 0,
      bodyTimeout: 0,
      connectTimeout: options.connectTimeoutMs ?? 5000,
      keepAliveTimeout: 30_000,
    });
  }

  /** The JSON of a 2xx answer. Throws on anything else, also past `timeoutMs` or 8 MiB. */
  async getJson(path: string, timeoutMs: number, signal?: AbortSignal): Promise<unknown> {
    const answer = await this.#json('GET', path, undefined, timeoutMs, signal);
    if (answer.status < 200 || answer.status > 299) {
      throw new AppError('upstream_malformed_response', `${this.name} answered ${answer.status} to ${path}`);
    }
    return answer.body;
  }

  /** The answer whatever its status; body null when it is not JSON. `timeoutMs` null = until the signal. */
  postJson(path: string, body: unknown, timeoutMs: number | null, signal?: AbortSignal): Promise<JsonAnswer> {
    return this.#json('POST', path, JSON.stringify(body), timeoutMs, signal);
  }

  async open(request: OpenRequest): Promise<UpstreamAnswer> {
    const watch = new IdleWatch(this.#clock, this.name, request, (cause) =>
      connectionError(this.name, cause),
    );
    try {
      const answer = await this.#pool.request({
        method: 'POST',
        path: this.#prefix + request.path,
        headers: { ...request.headers, ...this.#auth() },
        body: request.body,
        signal: watch.signal,
      });
      watch.touch();
      return {
        status: answer.statusCode,
        headers: answer.headers,
        chunks: chunksOf(answer, watch, this.name),
        abort: () => watch.stop(new Error('no longer wanted'), answer),
      };
    } catch (thrown) {
      watch.end();
      throw watch.explain(thrown);
    }
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  async #json(
    method: 'GET' | 'POST',
    path: string,
    body: string | undefined,
    timeoutMs: number | null,
    signal?: AbortSignal,
  ): Promise<JsonAnswer> {
    const stop = new AbortController();
    const onAbort = (): void => stop.abort(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    const late = new AppError('upstream_timeout', `${this.name} did not answer ${path} in time`);
    const timer = timeoutMs === null ? null : this.#clock.setTimer(timeoutMs, () => stop.abort(late));
    try {
      const headers = {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...this.#auth(),
      };
      const answer = await this.#pool.request({
        method,
        path: this.#prefix + path,
        headers,
        signal: stop.signal,
        ...(body === undefined ? {} : { body }),
      });
      return { status: answer.statusCode, body: parseJson(await readAll(answer.body, this.name)) };
    } catch (thrown) {
      if (stop.signal.aborted) throw stop.signal.reason;
      throw connectionError(this.name, thrown);
    } finally {
      timer?.cancel();
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #auth(): Record<string, string> {
    const key = this.#key();
    return key === null ? {} : { authorization: `Bearer ${key}` };
  }
}

async function readAll(body: AsyncIterable<Buffer>, name: string): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > jsonBytesMax) throw new Error(`${name} sent more than ${jsonBytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function connectionError(name: string, cause: unknown): AppError {
  return new AppError('upstream_connection_error', `${name} cannot be reached; check that its neuron runs`, {
    cause,
    retryAfterSecs: 2,
  });
}
