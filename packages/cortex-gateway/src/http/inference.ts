/**
 * The one handler of all dialects: parse, budget, lease, send, relay. What a request meets, in that order.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError, toAppError } from 'cortex-core/wire/errors';
import { AnswerProbe, AnswerTail, type TokenUsage } from '../dialects/answer-probe.ts';
import type { Dialect, InferenceRequest, StreamOut } from '../dialects/dialect.ts';
import { toUpstreamError } from '../dialects/upstream-error.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Ticket } from '../fleet/fleet-options.ts';
import type { Lease, UpstreamAnswer } from '../fleet/lease.ts';
import { advertisedLimit } from '../fleet/listing.ts';
import type { Ledger } from '../quota/ledger.ts';
import type { Principal, Principals } from '../quota/principals.ts';
import { ClientStream } from './client-stream.ts';
import { headerOf, routeHeader, toClientHeaders, toUpstreamHeaders } from './headers.ts';
import type { GatewayMetrics } from './metrics.ts';
import { requestTerms } from './request-terms.ts';
import { type SendResult, sendWithFailover } from './send.ts';

export interface InferenceDeps {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly principals: Principals;
  readonly ledger: Ledger;
  readonly metrics: GatewayMetrics;
  readonly idleMs: number;
  readonly coldLoadWaitMs: number;
  readonly keepAliveMs: number;
}

const outputTokensDefault = 4096;
const wholeBytesMax = 64 * 1024 * 1024;

export function inferenceHandler(
  deps: InferenceDeps,
  dialect: Dialect,
): (exchange: Exchange) => Promise<void> {
  return async (exchange) => {
    const principal = deps.principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
    const request = dialect.parse(await exchange.body());
    await new InferenceCall(deps, exchange, dialect, request, principal).run();
  };
}

class InferenceCall {
  readonly #deps: InferenceDeps;
  readonly #exchange: Exchange;
  readonly #dialect: Dialect;
  readonly #request: InferenceRequest;
  readonly #principal: Principal;
  readonly #client: ClientStream;
  readonly #out: StreamOut;
  readonly #startedMs: number;
  #lease: Lease | null = null;
  #usage: TokenUsage | null = null;
  #probe: AnswerProbe | null = null;
  #failed = false;

  constructor(
    deps: InferenceDeps,
    exchange: Exchange,
    dialect: Dialect,
    request: InferenceRequest,
    principal: Principal,
  ) {
    this.#dialect = dialect;
    this.#deps = deps;
    this.#exchange = exchange;
    this.#request = request;
    this.#principal = principal;
    this.#client = new ClientStream(exchange, deps.clock);
    this.#out = request.streamOut(exchange.requestId);
    this.#startedMs = deps.clock.monotonicMs();
  }

  async run(): Promise<void> {
    const limit = advertisedLimit(this.#deps.fleet.view(), this.#request.model);
    this.#checkContext(limit?.context ?? null);
    const { inputTokensEstimate, choices, maxTokens } = this.#request;
    const output = (maxTokens ?? limit?.output ?? outputTokensDefault) * choices;
    const reservation = this.#deps.ledger.reserve(this.#principal, inputTokensEstimate + output);
    try {
      await this.#serve();
    } catch (thrown) {
      // a client that leaves is no failure of ours
      this.#failed = !this.#exchange.signal.aborted;
      this.#fail(thrown);
    } finally {
      this.#client.stopKeepAlive();
      this.#lease?.charge(this.#usage?.completionTokens ?? 0);
      this.#lease?.release();
      const used = this.#usage === null ? 0 : this.#usage.promptTokens + this.#usage.completionTokens;
      reservation.settle(used);
      this.#record();
    }
  }

  #checkContext(contextMax: number | null): void {
    const estimate = this.#request.promptTokensEstimate;
    if (contextMax === null || estimate <= contextMax) return;
    const param = this.#dialect.name === 'completions' ? 'prompt' : 'messages';
    const message =
      this.#dialect.name === 'messages'
        ? `prompt is too long: ${estimate} tokens > ${contextMax} maximum`
        : `This model's maximum context length is ${contextMax} tokens. However, your messages resulted in ` +
          `${estimate} tokens. Please reduce the length of the ${param}.`;
    throw new AppError('context_length_exceeded', message, {
      param,
      extras: { max: contextMax, estimated_prompt_tokens: estimate },
    });
  }

  async #serve(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const sent = await this.#send(await this.#obtain());
      if (sent.kind === 'gone') {
        this.#lease = null;
        if (attempt === 0) continue;
        const message = `model "${this.#request.model}" is not loaded where it should be; try again`;
        throw new AppError('model_loading', message, { retryAfterSecs: 2 });
      }
      this.#lease = sent.lease;
      this.#showRoute(sent.lease.node, sent.lease.why);
      if (sent.kind === 'refused') return this.#refuse(sent.answer, sent.body);
      try {
        if (this.#request.stream) await this.#relayStream(sent.answer);
        else await this.#relayWhole(sent.answer);
      } finally {
        sent.answer.abort();
      }
      return;
    }
  }

  /** The right to send. Waits for a load when there has to be one; streams are kept alive meanwhile. */
  async #obtain(): Promise<Lease> {
    const ticket = this.#ticket();
    this.#showRoute(ticket.node, ticket.why);
    if (ticket.lease !== null) return ticket.lease;
    if (!this.#request.stream) return await this.#waitBounded(ticket);
    this.#client.openSse();
    this.#client.keepAlive(this.#deps.keepAliveMs, () => this.#out.keepAlive());
    return await ticket.ready;
  }

  #ticket(): Ticket {
    try {
      const { model, inputTokensEstimate } = this.#request;
      const { signal } = this.#exchange;
      const header = (name: string): string | null => this.#exchange.header(name);
      const terms = requestTerms(header, this.#principal, inputTokensEstimate);
      return this.#deps.fleet.request(model, signal, new Set(), terms);
    } catch (thrown) {
      this.#showRoute(null, toAppError(thrown).message);
      throw thrown;
    }
  }

  async #waitBounded(ticket: Ticket): Promise<Lease> {
    const { clock, coldLoadWaitMs, fleet } = this.#deps;
    let timer: { cancel(): void } | null = null;
    const late = new Promise<null>((resolve) => {
      timer = clock.setTimer(coldLoadWaitMs, () => resolve(null));
    });
    try {
      const lease = await Promise.race([ticket.ready, late]);
      if (lease !== null) return lease;
    } finally {
      (timer as { cancel(): void } | null)?.cancel();
    }
    // whoever comes too late gives the lease back at once
    ticket.ready.then(
      (lease) => lease.release(),
      () => {},
    );
    const status = fleet.loadStatus(this.#request.model);
    const doing = status === null ? 'is busy' : 'is being loaded';
    const message = `model "${this.#request.model}" ${doing} on ${ticket.node}; try again`;
    throw new AppError('model_loading', message, {
      retryAfterSecs: Math.min(Math.max(status?.eta ?? 10, 1), 120),
      extras: { loading: status ?? { node: ticket.node, state: 'queued', percent: null, eta: null } },
    });
  }

  #send(lease: Lease): Promise<SendResult> {
    this.#lease = lease;
    const { request, requestId, signal } = this.#exchange;
    const client = this.#request.forwardsHeaders ? request.headers : null;
    return sendWithFailover(lease, {
      fleet: this.#deps.fleet,
      request: this.#request,
      headers: toUpstreamHeaders(client, this.#principal, requestId),
      signal,
      idleMs: this.#deps.idleMs,
    });
  }

  async #relayStream(answer: UpstreamAnswer): Promise<void> {
    if (!(headerOf(answer.headers, 'content-type') ?? '').includes('text/event-stream')) {
      if (!this.#client.opened && this.#request.wholeOut === null) return await this.#relayWhole(answer);
      throw new AppError('upstream_malformed_response', 'the neuron answered a stream with something else');
    }
    if (this.#request.wholeOut === null && !this.#client.opened) {
      this.#exchange.response.writeHead(answer.status, toClientHeaders(answer.headers));
      this.#exchange.response.flushHeaders();
    } else this.#client.openSse();
    if (this.#out.pingsDuringAnswer) {
      this.#client.keepAlive(this.#deps.keepAliveMs, () => this.#out.keepAlive());
    } else this.#client.stopKeepAlive();
    const probe = new AnswerProbe();
    this.#probe = probe;
    try {
      for await (const chunk of answer.chunks) {
        probe.push(chunk, this.#deps.clock.monotonicMs());
        if (this.#lease !== null) this.#deps.fleet.noteAlive(this.#lease.node);
        await this.#client.write(this.#out.push(chunk));
      }
    } finally {
      this.#usage = probe.usage;
    }
    this.#client.end(this.#out.end());
  }

  async #relayWhole(answer: UpstreamAnswer): Promise<void> {
    const { response } = this.#exchange;
    const { wholeOut } = this.#request;
    const tail = new AnswerTail();
    if (wholeOut === null) {
      response.writeHead(answer.status, toClientHeaders(answer.headers));
      for await (const chunk of answer.chunks) {
        tail.push(chunk);
        await this.#client.write(chunk);
      }
      this.#usage = tail.usage;
      return this.#client.end();
    }
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of answer.chunks) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > wholeBytesMax) throw new AppError('upstream_malformed_response', 'the answer is too large');
    }
    const whole = Buffer.concat(chunks);
    tail.push(whole);
    this.#usage = tail.usage;
    const body = wholeOut(whole);
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
    this.#client.end(body);
  }

  /** A neuron's own refusal: its bytes where the dialect is the same, its meaning where it is not. */
  #refuse(answer: UpstreamAnswer, body: Buffer): void {
    this.#failed = true;
    const { response } = this.#exchange;
    const status = answer.status;
    const ours = status === 401 || status === 403 || status < 400;
    if (this.#client.opened || this.#request.wholeOut !== null || ours) {
      throw toUpstreamError(status, body.toString('utf8'), headerOf(answer.headers, 'retry-after'));
    }
    const headers = toClientHeaders(answer.headers);
    response.writeHead(status, { ...headers, 'content-length': body.length });
    response.end(body);
  }

  /**
   * Before headers the server answers; in a stream the dialect's error event does; else only a cut is
   * honest.
   */
  #fail(thrown: unknown): void {
    const { signal, response } = this.#exchange;
    if (signal.aborted || !this.#client.opened) throw thrown;
    const isStream = String(response.getHeader('content-type') ?? '').includes('text/event-stream');
    if (!this.#request.stream || !isStream) throw thrown;
    this.#client.end(this.#out.error(toAppError(thrown)));
  }

  #showRoute(node: string | null, why: string): void {
    if (!this.#client.opened) this.#exchange.response.setHeader('x-cortex-route', routeHeader(node, why));
  }

  #record(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const first = this.#probe?.firstTokenMs ?? null;
    const last = this.#probe?.lastTokenMs ?? null;
    this.#deps.metrics.record({
      model: this.#lease?.model ?? 'unknown',
      node: this.#lease?.node ?? 'none',
      failed: this.#failed,
      durationSecs: (nowMs - this.#startedMs) / 1000,
      firstTokenSecs: first === null ? null : (first - this.#startedMs) / 1000,
      decodeSecs: first === null || last === null || last === first ? null : (last - first) / 1000,
      usage: this.#usage,
      account: this.#principal.accountId,
      key: this.#principal.keyId,
    });
  }
}
