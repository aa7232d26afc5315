/**
 * How many tokens a request would have, for every dialect that can ask: parsed and translated as the request
 * itself would be, then counted by a neuron with the model's own template and tokenizer.
 *
 * Needs a key where keys are needed, and costs nothing: no quota, no lease, no load, no eviction, no mark of
 * use. A node that holds the model is asked first, then one that has its file; a node that cannot be reached
 * or has not got it after all is passed over. Where no node has it, a provider whose API counts does.
 * Limits: 3 nodes, `idleMs` of silence each.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import type { NativeForm, ParseOptions, UpstreamTarget } from '../dialects/dialect.ts';
import { toUpstreamError } from '../dialects/upstream-error.ts';
import type { CountingNode } from '../fleet/counting.ts';
import { countingNodes } from '../fleet/counting.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { UpstreamAnswer } from '../fleet/lease.ts';
import type { Principal, Principals } from '../quota/principals.ts';
import { headerOf, nativeHeadersOf, routeHeader, toUpstreamHeaders } from './headers.ts';

export interface CountDeps {
  readonly fleet: Fleet;
  readonly principals: Principals;
  readonly idleMs: number;
  /** As requests are read, so are counts. */
  readonly prefixHygiene?: boolean;
}

/** What a dialect gives: its request as for an answer, and the shape of its count. */
export interface CountDialect {
  /** Throws an AppError that names the field at fault. */
  readonly parse: (body: Uint8Array, options: ParseOptions) => CountRequest;
  readonly toAnswer: (inputTokens: number) => unknown;
}

export interface CountRequest {
  readonly model: string;
  /** The body of POST /v1/chat/completions on a neuron. */
  readonly toUpstream: (target: UpstreamTarget) => Uint8Array;
  /** The count as it came, for a provider that speaks the dialect itself. */
  readonly native?: Pick<NativeForm, 'path' | 'body'>;
}

const nodesMax = 3;
const answerBytesMax = 64 * 1024;

export function countHandler(
  deps: CountDeps,
  { parse, toAnswer }: CountDialect,
): (exchange: Exchange) => Promise<void> {
  return async (exchange) => {
    const principal = deps.principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
    const { prefixHygiene = false } = deps;
    const request = parse(await exchange.body(), { prefixHygiene });
    exchange.sendJson(200, toAnswer(await count(deps, exchange, request, principal)));
  };
}

async function count(
  deps: CountDeps,
  exchange: Exchange,
  request: CountRequest,
  principal: Principal,
): Promise<number> {
  let failure: unknown = null;
  for (const node of countingNodes(deps.fleet, request.model).slice(0, nodesMax)) {
    exchange.response.setHeader('x-cortex-route', routeHeader(node.name, node.why));
    const native = node.native === undefined ? undefined : request.native;
    const headers = {
      ...toUpstreamHeaders(null, principal, exchange.requestId),
      ...(native === undefined ? {} : nativeHeadersOf(exchange.request.headers)),
    };
    try {
      return await ask(
        node,
        { ...request, native },
        { headers, signal: exchange.signal, idleMs: deps.idleMs },
      );
    } catch (thrown) {
      exchange.signal.throwIfAborted();
      if (!isOfNode(thrown)) throw thrown;
      failure = thrown;
    }
  }
  throw failure;
}

/** `native`: undefined where it is translated. */
type Sent = Omit<CountRequest, 'native'> & { readonly native: CountRequest['native'] | undefined };

interface AskOptions {
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly idleMs: number;
}

async function ask(node: CountingNode, request: Sent, options: AskOptions): Promise<number> {
  const { wireId, capabilities } = node;
  const answer = await node.open({
    path: request.native?.path ?? '/v1/chat/completions/input_tokens',
    body: request.native?.body ?? request.toUpstream({ wireId, capabilities, defaults: node.options ?? {} }),
    ...options,
  });
  const text = await readText(answer);
  if (answer.status >= 300) {
    throw toUpstreamError(answer.status, text, headerOf(answer.headers, 'retry-after'));
  }
  const tokens = tokensOf(text);
  if (tokens !== null) return tokens;
  throw new AppError('upstream_malformed_response', `${node.name} did not answer with a number of tokens`);
}

/** Not a fault of the request: another node may do better. */
function isOfNode(thrown: unknown): boolean {
  if (!(thrown instanceof AppError)) return false;
  return thrown.status >= 500 || thrown.code === 'model_not_found' || thrown.code === 'not_found';
}

async function readText({ chunks }: UpstreamAnswer): Promise<string> {
  const all: Buffer[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    all.push(chunk);
    size += chunk.length;
    if (size > answerBytesMax) break;
  }
  return Buffer.concat(all).toString('utf8');
}

function tokensOf(text: string): number | null {
  try {
    const value: unknown = (JSON.parse(text) as { input_tokens?: unknown } | null)?.input_tokens;
    return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : null;
  } catch {
    return null;
  }
}
