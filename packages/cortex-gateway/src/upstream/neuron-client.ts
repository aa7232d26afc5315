/**
 * One neuron over HTTP: small JSON calls with a size limit and a deadline, and streamed inference with an
 * idle timeout. No limit is on an answer as a whole: a long prefill is silent.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import { HttpPool } from './http-pool.ts';
import { type CallPeer, WatchedCall } from './watched-call.ts';

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
  readonly #pool: HttpPool;
  readonly #key: () => string | null;
  readonly #peer: CallPeer;

  constructor(options: NeuronClientOptions) {
    const { name, endpoint, clock, connectTimeoutMs = 5000 } = options;
    this.name = name;
    this.#key = options.key;
    this.#peer = { clock, name, toError: (cause) => connectionError(name, cause) };
    this.#pool = new HttpPool({ url: endpoint, connectTimeoutMs });
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
    const call = new WatchedCall(this.#peer, request);
    const { path, body } = request;
    const headers = { ...request.headers, ...this.#auth() };
    const head = await call.open(() => this.#pool.send({ method: 'POST', path, headers, body }));
    return { ...head, chunks: call, abort: () => call.stop(new Error('no longer wanted')) };
  }

  /** Cuts what runs. Idempotent. */
  async close(): Promise<void> {
    this.#pool.close();
  }

  async #json(
    method: 'GET' | 'POST',
    path: string,
    body: string | undefined,
    timeoutMs: number | null,
    signal?: AbortSignal,
  ): Promise<JsonAnswer> {
    const call = new WatchedCall(this.#peer, { signal, idleMs: null });
    const late = new AppError('upstream_timeout', `${this.name} did not answer ${path} in time`);
    const timer = timeoutMs === null ? null : this.#peer.clock.setTimer(timeoutMs, () => call.stop(late));
    const headers = this.#auth();
    if (body !== undefined) headers['content-type'] = 'application/json';
    try {
      const send = () => this.#pool.send({ method, path, headers, ...(body === undefined ? {} : { body }) });
      const { status } = await call.open(send, method === 'GET');
      return { status, body: parseJson(await readAll(call, this.name)) };
    } catch (thrown) {
      throw call.explain(thrown);
    } finally {
      timer?.cancel();
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
