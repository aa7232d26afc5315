/**
 * A gateway as the command line sees it. node:http and not fetch: a load may take half an hour, and fetch
 * gives up on silent headers after 300 s.
 */
import { type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { SseParser } from 'cortex-core/wire/sse';
import { CliError } from './cli-error.ts';

export interface GatewayAddress {
  readonly endpoint: string;
  readonly apiKey?: string | undefined;
  /** What is at the address, for messages; a gateway when left out. */
  readonly program?: 'neuron' | undefined;
}

export const DEFAULT_ENDPOINT = 'http://127.0.0.1:31313';
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

export class GatewayClient {
  readonly #base: URL;
  readonly #apiKey: string | undefined;
  readonly #program: 'gateway' | 'neuron';

  constructor(address: GatewayAddress) {
    this.#program = address.program ?? 'gateway';
    this.#base = parseEndpoint(address.endpoint || DEFAULT_ENDPOINT);
    this.#apiKey = address.apiKey === '' ? undefined : address.apiKey;
  }

  get endpoint(): string {
    return this.#base.href.replace(/\/$/, '');
  }

  async get(path: string, signal?: AbortSignal): Promise<unknown> {
    return parseJson(await readText(await this.#send('GET', path, undefined, signal)), path);
  }

  async post(path: string, body: unknown, signal?: AbortSignal): Promise<unknown> {
    return parseJson(await readText(await this.#send('POST', path, body, signal)), path);
  }

  /** The data of each event, `[DONE]` not included. Throws when the stream breaks off. */
  async *stream(path: string, body: unknown, signal?: AbortSignal): AsyncGenerator<unknown> {
    const answer = await this.#send('POST', path, body, signal);
    const parser = new SseParser();
    try {
      for await (const chunk of answer) {
        for (const event of parser.push(chunk as Buffer)) {
          if (event.data === '[DONE]') return;
          yield parseJson(event.data, path);
        }
      }
    } catch (thrown) {
      if (thrown instanceof CliError || signal?.aborted) throw thrown;
      throw new CliError('the connection broke in the middle of the answer; ask again', 1, { cause: thrown });
    } finally {
      answer.destroy();
    }
  }

  async #send(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<IncomingMessage> {
    const answer = await this.#connect(method, path, body, signal);
    const status = answer.statusCode ?? 0;
    if (status >= 200 && status < 300) return answer;
    throw toCliError(status, await readText(answer), `${this.endpoint}${path}`);
  }

  #connect(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<IncomingMessage> {
    const url = new URL(this.#base.pathname.replace(/\/$/, '') + path, this.#base);
    const bytes = body === undefined ? null : Buffer.from(JSON.stringify(body));
    const headers: Record<string, string> = { accept: 'application/json, text/event-stream' };
    if (this.#apiKey !== undefined) headers.authorization = `Bearer ${this.#apiKey}`;
    if (bytes !== null) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = String(bytes.length);
    }
    const send = url.protocol === 'https:' ? requestHttps : requestHttp;
    return new Promise((resolve, reject) => {
      const options = { method, headers, agent: false as const, ...(signal === undefined ? {} : { signal }) };
      const request = send(url, options, resolve);
      request.once('error', (error: NodeJS.ErrnoException) => {
        reject(signal?.aborted ? error : explainConnectError(error, this.endpoint, this.#program));
      });
      request.end(bytes ?? undefined);
    });
  }
}

/** The envelope's own message; exported for the tests. */
function toCliError(status: number, text: string, url: string): CliError {
  const message = messageOf(text);
  if (message !== null) {
    const hint = status === 401 ? '; give a key with --api-key or CORTEX_API_KEY' : '';
    return new CliError(`${message}${hint}`);
  }
  if (status === 404) return new CliError(`${url} does not exist there; is that a cortex gateway?`);
  return new CliError(`${url} answered with status ${status}`);
}

function explainConnectError(
  error: NodeJS.ErrnoException,
  endpoint: string,
  program: 'gateway' | 'neuron',
): CliError {
  const isGateway = program === 'gateway';
  const option = isGateway ? '--endpoint or CORTEX_ENDPOINT' : '--url';
  if (error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN') {
    return new CliError(`the host of ${endpoint} is unknown; check ${option}`, 1, { cause: error });
  }
  const known = error.code === 'ECONNREFUSED' || error.code === 'ETIMEDOUT' || error.code === 'EHOSTUNREACH';
  const why = known
    ? `no ${program} is running at`
    : `the ${program} closed the connection (${error.message}) at`;
  const start = isGateway ? 'cortex up' : 'neuron';
  const what = `start one with "${start}", or say where one is with ${option}`;
  return new CliError(`${why} ${endpoint}; ${what}`, 1, { cause: error });
}

function parseEndpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url !== null && (url.protocol === 'http:' || url.protocol === 'https:')) {
    // Clients of the OpenAI API are configured with /v1, and so CORTEX_ENDPOINT often is too.
    url.pathname = url.pathname.replace(/\/v1\/?$/, '/');
    return url;
  }
  throw new CliError(`"${text}" is no endpoint; give one like http://127.0.0.1:31313`, 2);
}

async function readText(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer) {
    bytes += (chunk as Buffer).length;
    if (bytes > ANSWER_BYTES_MAX) throw new CliError('the answer is too large to be one of a gateway');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CliError(`${path} did not answer with JSON; is that a cortex gateway?`, 1, { cause });
  }
}

function messageOf(text: string): string | null {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === 'string') return error;
    const message = (error as { message?: unknown } | undefined)?.message;
    return typeof message === 'string' ? message : null;
  } catch {
    return null;
  }
}
