/**
 * One provider over HTTPS. It gets the body, its own key and next to nothing else: no header of a client but
 * the version and betas of a Messages request that goes on as it is. Redirects are not followed. Of its
 * answer's headers only the type and the time to try again come back.
 *
 * Every refusal and everything that is no answer becomes an answer or an AppError in the form that neurons
 * give, so that what is above knows no difference.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError, toOpenAiEnvelope } from 'cortex-core/wire/errors';
import { HttpPool } from './http-pool.ts';
import type { OpenRequest, UpstreamAnswer } from './neuron-client.ts';
import { type CallHead, type CallPeer, WatchedCall } from './watched-call.ts';

export type ProviderKind = 'openai' | 'anthropic';

/** What `dialects/providers` gives for one request. */
export interface ProviderCall {
  readonly path: string;
  readonly body: Uint8Array;
  readonly stream: boolean;
  /** Of `push` with no bytes only a fault comes that is known by then. */
  readonly streamOut: () => { push(chunk: Uint8Array): Uint8Array; end(): Uint8Array };
  readonly wholeOut: (body: Uint8Array) => Uint8Array;
}

export interface ProviderClientOptions {
  readonly name: string;
  readonly kind: ProviderKind;
  readonly url: string;
  readonly idleMs: number;
  readonly connectTimeoutMs: number;
  readonly clock: Clock;
}

export interface ProviderAnswer {
  readonly status: number;
  /** Without the key, should the provider quote it. */
  readonly body: string;
  readonly retryAfterSecs: number | null;
}

export interface ProviderRequest {
  readonly call: ProviderCall;
  /** null = the provider needs none. */
  readonly key: string | null;
  /** What of the client's headers may go along, if the provider's kind knows it. */
  readonly headers: OpenRequest['headers'];
  readonly signal: AbortSignal;
  /** A refusal as one of our errors. */
  readonly onRefused: (answer: ProviderAnswer) => AppError;
}

const nothing = new Uint8Array(0);
const errorBytesMax = 64 * 1024;
const wholeBytesMax = 64 * 1024 * 1024;
const anthropicVersion = '2023-06-01';
/** Longer than this nobody is sent away for. */
const retryAfterSecsMax = 3600;

export class ProviderClient {
  readonly #options: ProviderClientOptions;
  readonly #pool: HttpPool;
  readonly #peer: CallPeer;

  constructor(options: ProviderClientOptions) {
    const { name, url, connectTimeoutMs, clock } = options;
    this.#options = options;
    this.#pool = new HttpPool({ url, connectTimeoutMs });
    this.#peer = { clock, name: `provider ${name}`, toError: (cause) => this.#unreachable(cause) };
  }

  /** Throws an AppError when it cannot be reached, falls silent, or answers with what is no answer. */
  async open(request: ProviderRequest): Promise<UpstreamAnswer> {
    const { call, key, signal } = request;
    const headers = this.#headers(call, key, request.headers);
    const { path, body } = call;
    const watched = new WatchedCall(this.#peer, { signal, idleMs: this.#options.idleMs });
    const head = await watched.open(() => this.#pool.send({ method: 'POST', path, headers, body }));
    try {
      return await this.#read(head, request, watched);
    } catch (thrown) {
      const reason = thrown instanceof AppError ? thrown : watched.explain(thrown);
      watched.stop(reason);
      throw reason;
    }
  }

  /** Cuts what runs. Idempotent. */
  async close(): Promise<void> {
    this.#pool.close();
  }

  #headers(call: ProviderCall, key: string | null, client: OpenRequest['headers']): Record<string, string> {
    const { kind } = this.#options;
    const ours = {
      'content-type': 'application/json',
      accept: call.stream ? 'text/event-stream' : 'application/json',
      'accept-encoding': 'identity',
      'user-agent': 'cortex',
    };
    if (kind === 'openai') return { ...ours, ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
    const betas = client['anthropic-beta'];
    return {
      ...ours,
      'anthropic-version': client['anthropic-version'] ?? anthropicVersion,
      ...(betas === undefined ? {} : { 'anthropic-beta': betas }),
      ...(key === null ? {} : { 'x-api-key': key }),
    };
  }

  async #read(
    { status, headers: said }: CallHead,
    { call, key, onRefused }: ProviderRequest,
    chunks: WatchedCall,
  ): Promise<UpstreamAnswer> {
    const abort = (): void => chunks.stop(new Error('no longer wanted'));
    if (status < 200 || status > 299) {
      const body = (await readUpTo(chunks, errorBytesMax)).bytes.toString('utf8');
      abort();
      const retryAfterSecs = retryAfterOf(said['retry-after'], this.#options.clock.now());
      return toAnswer(onRefused({ status, body: withoutKey(body, key), retryAfterSecs }));
    }
    const type = String(said['content-type'] ?? '');
    if (call.stream) {
      if (!type.includes('text/event-stream')) {
        abort();
        throw this.#malformed('answered a stream with something else');
      }
      const out = call.streamOut();
      const headers = { 'content-type': 'text/event-stream; charset=utf-8' };
      return { status: 200, headers, chunks: this.#translated(chunks, out, key), abort };
    }
    const whole = await readUpTo(chunks, wholeBytesMax);
    if (whole.isCut) {
      abort();
      throw this.#malformed(`sent more than ${wholeBytesMax} bytes`);
    }
    const body = this.#guarded(() => call.wholeOut(whole.bytes), key);
    return { status: 200, headers: { 'content-type': 'application/json' }, chunks: once(body), abort };
  }

  async *#translated(
    chunks: AsyncIterable<Buffer>,
    out: ReturnType<ProviderCall['streamOut']>,
    key: string | null,
  ): AsyncGenerator<Buffer, void, void> {
    for await (const chunk of chunks) {
      const bytes = this.#guarded(() => out.push(chunk), key);
      if (bytes.length > 0) yield asBuffer(bytes);
      // a fault behind those bytes: its sender may hold the connection open
      this.#guarded(() => out.push(nothing), key);
    }
    const last = this.#guarded(() => out.end(), key);
    if (last.length > 0) yield asBuffer(last);
  }

  /** What goes wrong in reading is the provider's doing; its words may quote its key, ours do not. */
  #guarded(read: () => Uint8Array, key: string | null): Uint8Array {
    try {
      return read();
    } catch (thrown) {
      if (!(thrown instanceof AppError)) throw this.#malformed('sent what cannot be read');
      const { code, message, retryAfterSecs } = thrown;
      const named = withoutKey(message, key).replace(/^the provider\b/, `provider ${this.#options.name}`);
      throw new AppError(code, named, retryAfterSecs === null ? {} : { retryAfterSecs });
    }
  }

  #malformed(what: string): AppError {
    return new AppError('upstream_malformed_response', `provider ${this.#options.name} ${what}`);
  }

  #unreachable(cause: unknown): AppError {
    const { name } = this.#options;
    const message = `provider ${name} cannot be reached; check its url and this machine's network`;
    return new AppError('upstream_connection_error', message, { cause, retryAfterSecs: 2 });
  }
}

/** An error as the answer of a neuron. */
export function toAnswer(error: AppError): UpstreamAnswer {
  const secs = error.retryAfterSecs;
  return {
    status: error.status,
    headers: {
      'content-type': 'application/json',
      ...(secs === null ? {} : { 'retry-after': String(secs) }),
    },
    chunks: once(Buffer.from(JSON.stringify(toOpenAiEnvelope(error)))),
    abort: () => {},
  };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Buffer, void, void> {
  yield asBuffer(bytes);
}

async function readUpTo(
  chunks: AsyncIterable<Buffer>,
  bytesMax: number,
): Promise<{ readonly bytes: Buffer; readonly isCut: boolean }> {
  const all: Buffer[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    all.push(chunk);
    size += chunk.length;
    if (size > bytesMax) return { bytes: Buffer.concat(all).subarray(0, bytesMax), isCut: true };
  }
  return { bytes: Buffer.concat(all), isCut: false };
}

/** Seconds, or a date (RFC 9110, 10.2.3). */
function retryAfterOf(value: string | string[] | undefined, nowMs: number): number | null {
  const text = Array.isArray(value) ? value[0] : value;
  if (text === undefined || text.trim() === '') return null;
  const secs = /^\s*\d+(\.\d+)?\s*$/.test(text) ? Number(text) : (Date.parse(text) - nowMs) / 1000;
  return Number.isFinite(secs) ? Math.min(retryAfterSecsMax, Math.max(0, Math.ceil(secs))) : null;
}

function withoutKey(text: string, key: string | null): string {
  return key === null || key === '' ? text : text.replaceAll(key, '***');
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
