/**
 * The one handler of all dialects: parse, budget, lease, send, relay. What a request meets, in that order.
 */

import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError, toAppError } from 'cortex-core/wire/errors';
import { AnswerProbe, type TokenUsage, usageOf } from '../dialects/answer-probe.ts';
import type { Dialect, InferenceRequest, NativeForm, StreamOut, StreamProbe } from '../dialects/dialect.ts';
import { isShapeFault, toUpstreamError } from '../dialects/upstream-error.ts';
import type { Ask } from '../fleet/ask.ts';
import type { Ticket } from '../fleet/fleet-options.ts';
import type { Lease, UpstreamAnswer } from '../fleet/lease.ts';
import { advertisedLimit } from '../fleet/listing.ts';
import { affinityOf } from './affinity.ts';
import { answerFacts, countedUsage, recordedTimes } from './answer-facts.ts';
import { AnswerSink } from './answer-sink.ts';
import { askerOf } from './asker.ts';
import { checkContext, inWordsOf } from './check-context.ts';
import { Failover } from './failover.ts';
import { headerOf, nativeHeadersOf, routeHeader, toClientHeaders, toUpstreamHeaders } from './headers.ts';
import type { CallParts, InferenceDeps } from './inference-deps.ts';
import { leaseWithin, notYet } from './lease-within.ts';
import { type Answered, nativeFormFor, Sender, type SendResult } from './send.ts';
import { asItIs } from './stream-checks.ts';
import { StreamRelay } from './stream-relay.ts';
import { readWhole } from './whole-answer.ts';

const outputTokensDefault = 4096;

export function inferenceHandler(
  deps: InferenceDeps,
  dialect: Dialect,
): (exchange: Exchange) => Promise<void> {
  const { principals, attachments, metrics, clock } = deps;
  return async (exchange) => {
    // stays where the request gets no further
    exchange.response.setHeader('x-cortex-route', routeHeader(null, 'not routed'));
    const principal = principals.of(exchange.header('authorization'), exchange.header('x-api-key'));
    const body = await exchange.body();
    const request = dialect.parse(body, { prefixHygiene: deps.prefixHygiene });
    const key = request.choices === 1 ? attachments.keyOf(exchange, body) : null;
    const running = key === null ? null : attachments.find(key);
    if (running !== null) {
      metrics.onAttached();
      return await running.read(exchange);
    }
    const sink = new AnswerSink(clock, exchange, key === null ? null : attachments.room());
    // it may refuse the request, which nobody must be able to join then
    const call = new InferenceCall(deps, { exchange, sink, dialect, request, principal });
    if (key !== null) attachments.add(key, sink);
    const read = sink.read(exchange);
    // it goes on without its first client as long as another reads
    void call
      .run()
      .catch((thrown: unknown) => sink.fail(thrown))
      .finally(() => (key === null ? undefined : attachments.remove(key, sink)));
    await read;
  };
}

export class InferenceCall {
  readonly #deps: InferenceDeps;
  readonly #parts: CallParts;
  readonly #request: InferenceRequest;
  readonly #sink: AnswerSink;
  readonly #checked: (out: StreamOut) => StreamOut;
  #out: StreamOut;
  /** The answer comes as the client reads it; null = as chat. */
  #native: NativeForm | null = null;
  readonly #startedMs: number;
  readonly #ask: Ask;
  /** The expected time to the first token, as first decided; null before. */
  #expectedMs: number | null = null;
  #sentMs: number | null = null;
  #lease: Lease | null = null;
  #usage: TokenUsage | null = null;
  #probe: StreamProbe | null = null;
  #failed = false;

  constructor(deps: InferenceDeps, parts: CallParts) {
    this.#deps = deps;
    this.#parts = parts;
    this.#request = parts.request;
    this.#sink = parts.sink;
    const { requestId } = parts.exchange;
    this.#checked = parts.request.stream ? deps.streamChecks.begin(parts.dialect, requestId) : asItIs;
    this.#out = this.#checked(parts.request.streamOut(requestId));
    this.#startedMs = deps.clock.monotonicMs();
    this.#ask = {
      model: parts.request.model,
      promptTokens: parts.request.inputTokensEstimate,
      affinity: affinityOf(parts.exchange.request.headers, parts.request, parts.principal),
      asker: askerOf((name) => parts.exchange.header(name), parts.principal),
    };
  }

  /** Never rejects: what fails reaches the clients. */
  async run(): Promise<void> {
    let settle: (used: number) => void = () => {};
    try {
      settle = this.#reserve();
      await this.#serve();
    } catch (thrown) {
      // a client that leaves is no failure of ours
      this.#failed = !this.#sink.signal.aborted;
      this.#fail(thrown);
    } finally {
      this.#sink.stopKeepAlive();
      this.#learn();
      this.#lease?.charge(this.#usage?.completionTokens ?? 0);
      this.#lease?.release();
      const usage = countedUsage(this.#usage, this.#request.inputTokensEstimate);
      settle(usage === null ? 0 : usage.promptTokens + usage.completionTokens);
      this.#record();
    }
  }

  #reserve(): (used: number) => void {
    const { fleet, ledger } = this.#deps;
    const limit = advertisedLimit(fleet.view(), this.#request.model);
    checkContext(this.#request, this.#parts.dialect, limit?.context ?? null);
    const { inputTokensEstimate, choices, maxTokens } = this.#request;
    const output = (maxTokens ?? limit?.output ?? outputTokensDefault) * choices;
    const reservation = ledger.reserve(this.#parts.principal, inputTokensEstimate + output);
    return (used) => reservation.settle(used);
  }

  async #serve(): Promise<void> {
    const sender = this.#sender();
    this.#deps.failover.budget.deposit();
    const sent = await this.#settled(sender, () => this.#obtainAndSend(sender));
    if (sent.kind === 'refused') return this.#refuse(sent.answer, sent.body);
    // not awaited here: a frame less for as long as it streams
    if (!this.#request.stream) return this.#relayWhole(sender, sent);
    const isStream = (headerOf(sent.answer.headers, 'content-type') ?? '').includes('text/event-stream');
    if (isStream) return this.#relayStream(sender, sent);
    if (!this.#sink.opened && this.#wholeOut === null) return this.#relayWhole(sender, sent);
    sent.answer.abort();
    throw new AppError('upstream_malformed_response', 'the neuron answered a stream with something else');
  }

  async #obtainAndSend(sender: Sender): Promise<SendResult> {
    const lease = await this.#obtain(sender.failedNodes);
    this.#sentMs = this.#deps.clock.monotonicMs();
    return await this.#keptAlive(sender.send(lease));
  }

  /** Some say nothing while they read the prompt. */
  #keptAlive<T>(sent: Promise<T>): Promise<T> {
    const silence = this.#deps.clock.setTimer(this.#deps.keepAliveMs, () => this.#keepWaiting());
    return sent.finally(() => silence.cancel());
  }

  /** A node that turns out not to have the model is a reason to ask the fleet again, once. */
  async #settled(
    sender: Sender,
    send: () => Promise<SendResult>,
  ): Promise<Exclude<SendResult, { kind: 'gone' }>> {
    this.#lease = null;
    let sent = await send();
    if (sent.kind === 'gone') sent = await this.#obtainAndSend(sender);
    if (sent.kind === 'gone') {
      const message = `model "${this.#request.model}" is not loaded where it should be; try again`;
      throw new AppError('model_loading', message, { retryAfterSecs: 2 });
    }
    this.#lease = sent.lease;
    this.#adopt(nativeFormFor(this.#request, sent.lease));
    this.#showRoute(sent.lease.node, sent.lease.why);
    return sent;
  }

  /** Who answers decides how it is read; the client has nothing of an answer yet. */
  #adopt(native: NativeForm | null): void {
    if (native !== this.#native) {
      this.#native = native;
      this.#out = this.#checked((native ?? this.#request).streamOut(this.#parts.exchange.requestId));
    }
    this.#probe = this.#out.probe ?? new AnswerProbe(this.#request.choices);
  }

  /** Null: the bytes of an answer are the client's as they come. */
  get #wholeOut(): InferenceRequest['wholeOut'] {
    return this.#native === null ? this.#request.wholeOut : null;
  }

  /** The right to send. Waits for a load when there has to be one; streams are kept alive meanwhile. */
  async #obtain(exclude: ReadonlySet<string>): Promise<Lease> {
    const ticket = this.#ticket(exclude);
    this.#showRoute(ticket.node, ticket.why);
    if (ticket.lease !== null) return ticket.lease;
    if (!this.#request.stream) return await this.#waitBounded(ticket);
    this.#keepWaiting();
    return await ticket.ready;
  }

  /** From here on the client gets headers and keep-alives instead of a status. */
  #keepWaiting(): void {
    if (!this.#request.stream) return;
    this.#sink.openStream(this.#out.headers);
    this.#sink.keepAlive(this.#deps.keepAliveMs, () => this.#out.keepAlive());
  }

  #ticket(exclude: ReadonlySet<string>): Ticket {
    try {
      const ticket = this.#deps.fleet.request(this.#ask, this.#sink.signal, exclude);
      this.#expectedMs ??= ticket.expectedMs;
      return ticket;
    } catch (thrown) {
      this.#showRoute(null, toAppError(thrown).message);
      throw thrown;
    }
  }

  async #waitBounded(ticket: Ticket): Promise<Lease> {
    const { clock, coldLoadWaitMs, fleet } = this.#deps;
    const lease = await leaseWithin(ticket, coldLoadWaitMs, clock);
    if (lease !== null) return lease;
    const { model } = this.#request;
    throw notYet(model, ticket, fleet.operations.loadStatus(model));
  }

  #sender(): Sender {
    const { fleet, clock, idleMs, failover: settings } = this.#deps;
    const { exchange, principal } = this.#parts;
    const { signal } = this.#sink;
    const { forwardsHeaders, stream, choices } = this.#request;
    const failover = new Failover({
      fleet: {
        another: (exclude) => fleet.another(this.#ask, exclude),
        request: (exclude, patience) => fleet.request(this.#ask, patience, exclude),
        upFor: (node) => fleet.facts.upFor(node),
        lastUpFor: (node) => fleet.facts.lastUpFor(node),
      },
      ...{ clock, signal, budget: settings.budget },
      ...{ attemptsMax: settings.attemptsMax, giveUpMs: settings.giveUpMs },
      onWait: () => this.#keepWaiting(),
    });
    const { headers } = exchange.request;
    return new Sender({
      ...{ fleet, failover, signal, idleMs },
      request: this.#request,
      headers: toUpstreamHeaders(forwardsHeaders ? headers : null, principal, exchange.requestId),
      nativeHeaders: nativeHeadersOf(headers),
      tellTokens: settings.continues && stream && choices === 1,
    });
  }

  async #relayStream(sender: Sender, first: Answered): Promise<void> {
    if (this.#wholeOut === null) this.#sink.open(first.answer.status, toClientHeaders(first.answer.headers));
    else this.#sink.openStream(this.#out.headers);
    this.#keepAnswering();
    const { clock, fleet } = this.#deps;
    const relay = new StreamRelay({
      signal: this.#sink.signal,
      write: (bytes) => {
        const nowMs = clock.monotonicMs();
        if (this.#out.probe === undefined) this.#probe?.push(bytes, nowMs);
        return this.#sink.write(this.#out.push(bytes, nowMs));
      },
      isComplete: () => this.#probe?.finished === true,
      again: (broken, cause) => this.#again(sender, broken, cause),
      goOn: (...broken) => this.#goOn(sender, ...broken),
      onBytes: ({ lease }) => fleet.noteAlive(lease),
      onBreak: (broken, outcome, tokens) => this.#onBreak(broken, outcome, tokens),
    });
    try {
      await relay.run(first);
    } finally {
      this.#usage = this.#probe?.usage ?? null;
    }
    this.#sink.end(this.#out.end());
  }

  /** Keep-alives while the answer comes, where its translation swallows the neuron's own. */
  #keepAnswering(): void {
    if (this.#out.pingsDuringAnswer) {
      this.#sink.keepAlive(this.#deps.keepAliveMs, () => this.#out.keepAlive());
    } else this.#sink.stopKeepAlive();
  }

  async #again(sender: Sender, broken: Answered, cause: unknown): Promise<Answered> {
    const sent = await this.#settled(sender, () => this.#keptAlive(sender.again(broken, cause)));
    if (sent.kind === 'answer') {
      this.#keepAnswering();
      return sent;
    }
    throw toUpstreamError(
      sent.answer.status,
      sent.body.toString('utf8'),
      headerOf(sent.answer.headers, 'retry-after'),
    );
  }

  async #goOn(sender: Sender, ...broken: Parameters<Sender['goOn']>): Promise<Answered | null> {
    const next = await this.#keptAlive(sender.goOn(...broken));
    if (next === null) return null;
    this.#lease = next.lease;
    this.#keepAnswering();
    return next;
  }

  #onBreak({ lease }: Answered, outcome: 'resent' | 'continued' | 'failed', tokens: number): void {
    const { metrics, log } = this.#deps;
    metrics.onBreak(outcome);
    log.warn('an answer broke off', {
      request_id: this.#parts.exchange.requestId,
      ...{ model: lease.model, from: lease.node, tokens, outcome },
      ...(outcome === 'failed' ? {} : { to: this.#lease?.node ?? null }),
    });
  }

  /** Whole or not at all: nothing is sent before the answer's end, so a break can be mended unseen. */
  async #relayWhole(sender: Sender, first: Answered): Promise<void> {
    let sent = first;
    for (;;) {
      const read = await readWhole(sent.answer, this.#sink.signal);
      if (read.kind === 'whole') {
        const wholeOut = this.#wholeOut;
        this.#usage = this.#usageOf(read.bytes);
        const body = wholeOut === null ? read.bytes : wholeOut(read.bytes);
        const headers = wholeOut === null ? toClientHeaders(sent.answer.headers) : jsonHeaders;
        const status = wholeOut === null ? sent.answer.status : 200;
        return this.#sink.respond(status, { ...headers, 'content-length': body.length }, body);
      }
      sent.answer.abort();
      if (read.kind === 'broken') sent = await this.#againWhole(sender, sent, read.cause);
      else throw new AppError('upstream_malformed_response', 'the answer is too large');
    }
  }

  #usageOf(answer: Uint8Array): TokenUsage | null {
    if (this.#native !== null) return this.#native.usageOf(answer);
    return usageOf(answer);
  }

  async #againWhole(sender: Sender, broken: Answered, cause: unknown): Promise<Answered> {
    try {
      const sent = await this.#again(sender, broken, cause);
      this.#onBreak(broken, 'resent', 0);
      return sent;
    } catch (thrown) {
      this.#onBreak(broken, 'failed', 0);
      throw thrown;
    }
  }

  /** A neuron's own refusal: its bytes where the dialect is the same, its meaning where it is not. */
  #refuse(answer: UpstreamAnswer, body: Buffer): void {
    this.#failed = true;
    const { status } = answer;
    const ours = status === 401 || status === 403 || status < 400 || isShapeFault(status, body.toString());
    if (this.#sink.opened || this.#request.wholeOut !== null || ours) {
      throw toUpstreamError(status, body.toString('utf8'), headerOf(answer.headers, 'retry-after'));
    }
    this.#sink.respond(status, { ...toClientHeaders(answer.headers), 'content-length': body.length }, body);
  }

  /**
   * Before headers the server answers; in a stream the dialect's error event does; else only a cut is
   * honest.
   */
  #fail(reason: unknown): void {
    const thrown = inWordsOf(this.#parts.dialect, reason);
    const { signal, opened, isStream } = this.#sink;
    if (signal.aborted || !opened || !this.#request.stream || !isStream) this.#sink.fail(thrown);
    else this.#sink.end(this.#out.error(toAppError(thrown)));
  }

  #showRoute(node: string | null, why: string): void {
    const said =
      this.#request.isPrefixNormalized === true && this.#native === null ? `prefix=normalized; ${why}` : why;
    this.#sink.showRoute(routeHeader(node, said));
  }

  /** What a whole answer shows of its node; a broken one shows nothing. */
  #learn(): void {
    if (this.#lease === null || this.#sentMs === null || this.#failed || this.#usage === null) return;
    if (this.#sink.signal.aborted) return;
    const nowMs = this.#deps.clock.monotonicMs();
    const times = { sentMs: this.#sentMs, firstTokenMs: this.#probe?.firstTokenMs ?? null, nowMs };
    const facts = answerFacts(this.#usage, this.#request.inputTokensEstimate, times);
    this.#deps.fleet.learn(this.#lease, facts);
  }

  #record(): void {
    this.#deps.metrics.record({
      model: this.#lease?.model ?? 'unknown',
      node: this.#lease?.node ?? 'none',
      failed: this.#failed,
      ...recordedTimes(this.#probe, this.#startedMs, this.#deps.clock.monotonicMs()),
      expectedSecs: this.#expectedMs === null ? null : this.#expectedMs / 1000,
      usage: countedUsage(this.#usage, this.#request.inputTokensEstimate),
      account: this.#parts.principal.accountId,
      key: this.#parts.principal.keyId,
    });
  }
}

const jsonHeaders = { 'content-type': 'application/json' };
