/**
 * One request to the fleet, sent until a node answers. Before the client has a byte a connection error, a
 * reset, 429, 502, 503 or silence is a case for another node; failover.ts says which, and when no more. An
 * answer that broke off is sent again whole while the client has nothing of it, and goes on from its tokens
 * when it has.
 */
import {
  type Continuation,
  continuationField,
  continuedHeader,
  tokensHeader,
} from 'cortex-core/wire/continuation';
import { AppError } from 'cortex-core/wire/errors';
import type { InferenceRequest, NativeForm } from '../dialects/dialect.ts';
import { readEnvelope } from '../dialects/upstream-error.ts';
import type { Lease, UpstreamAnswer } from '../fleet/lease.ts';
import type { NodeFacts } from '../fleet/node-facts.ts';
import type { Failover } from './failover.ts';
import { headerOf } from './headers.ts';

/** What of the fleet is needed here. */
export interface SendFleet {
  noteAlive(lease: Lease): void;
  suspect(node: string): void;
  disown(lease: Lease): void;
  doubt(lease: Lease, code: string): void;
  pollNow(node: string): Promise<void>;
  readonly facts: Pick<NodeFacts, 'isHealthy' | 'identityOf' | 'capabilitiesOf' | 'unlike'>;
}

export interface SendOptions {
  readonly fleet: SendFleet;
  readonly failover: Failover;
  readonly request: InferenceRequest;
  readonly headers: Readonly<Record<string, string>>;
  /** Of the client, for an upstream that gets its request as it came. */
  readonly nativeHeaders?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly idleMs: number;
  /** Ask for the tokens of the answer, so that it can go on elsewhere. */
  readonly tellTokens: boolean;
}

export interface Answered {
  readonly kind: 'answer';
  readonly lease: Lease;
  readonly answer: UpstreamAnswer;
  /** As it was when the answer began; null: not known then, as right after a load. */
  readonly identity: string | null;
}

interface Refused {
  readonly kind: 'refused';
  readonly lease: Lease;
  readonly answer: UpstreamAnswer;
  readonly body: Buffer;
}

interface Unreachable {
  readonly kind: 'unreachable';
  readonly cause: unknown;
}

/** The lease that is held then belongs to the caller in every case but a throw, which has released it. */
export type SendResult =
  | Answered
  | Refused
  /** The node turned out not to have the model; nothing is held. */
  | { readonly kind: 'gone' };

/** A neuron says so of a model that does not serve, whatever its list says. */
const notReadyCodes: ReadonlySet<string> = new Set([
  'model_loading',
  'model_recovering',
  'model_poisoned',
  'model_not_loaded',
]);

const errorBytesMax = 64 * 1024;
/** Refusals of a node that another may not share. */
const movable: ReadonlySet<number> = new Set([429, 502, 503]);
const busy: ReadonlySet<number> = new Set([429, 503]);

export class Sender {
  readonly #options: SendOptions;
  /** Tokens that the answer had when it broke last. */
  #brokeAt = 0;

  constructor(options: SendOptions) {
    this.#options = options;
  }

  get failedNodes(): ReadonlySet<string> {
    return this.#options.failover.failedNodes;
  }

  /** Sends it to a node, and to others when that fails. */
  async send(first: Lease): Promise<SendResult> {
    const { fleet, failover } = this.#options;
    for (let lease = first; ; ) {
      const outcome = await this.#once(lease, null);
      if (outcome.kind === 'answer') return outcome;
      if (outcome.kind === 'refused' && isModelGone(outcome)) {
        fleet.disown(lease);
        lease.release();
        return { kind: 'gone' };
      }
      if (outcome.kind === 'refused' && !movable.has(outcome.answer.status)) return outcome;
      const isDown = outcome.kind === 'unreachable' || outcome.answer.status === 502;
      const isComing = outcome.kind === 'refused' && isModelComing(outcome);
      if (isComing) failover.busy(lease.node, 0);
      else failover.failed(lease.node, isDown ? 'wire' : 'refused');
      if (isDown) fleet.suspect(lease.node);
      lease.release();
      // what else a node refuses with a time of its own is its answer, unless another serves now
      const next = await failover.next(isDown ? 'load' : isComing ? 'return' : 'none');
      // one that came up while we waited had told the truth
      if (outcome.kind === 'refused' && next?.node !== lease.node) this.#heed(outcome);
      if (next === null) {
        if (outcome.kind === 'refused') return outcome;
        throw outcome.cause;
      }
      lease = next;
    }
  }

  /** The answer broke off and the client has nothing of it. Throws `cause` when nobody else can give it. */
  async again(broken: Answered, cause: unknown): Promise<SendResult> {
    this.#leave(broken, cause);
    const { failover } = this.#options;
    const next = await failover.next('load');
    if (next === null) throw cause;
    return await this.send(next);
  }

  /** The answer broke off behind what `sofar` has. Null when no node can go on with it. */
  async goOn(broken: Answered, sofar: Continuation, cause: unknown): Promise<Answered | null> {
    const { fleet, failover } = this.#options;
    const { model, node } = broken.lease;
    const identity = broken.identity ?? fleet.facts.identityOf(node, model);
    if (sofar.tokens.length > this.#brokeAt) failover.progressed();
    this.#brokeAt = sofar.tokens.length;
    this.#leave(broken, cause);
    if (identity === null) return null;
    for (;;) {
      const next = await failover.next('load', () => fleet.facts.unlike(model, identity));
      if (next === null) return null;
      const isSame = (await this.#identityAt(next)) === identity;
      const outcome = isSame ? await this.#once(next, sofar) : null;
      if (outcome?.kind === 'answer') return outcome;
      next.release();
      // its client is in the middle of an answer: it waits for room
      if (outcome?.kind === 'refused' && busy.has(outcome.answer.status)) {
        failover.busy(next.node, retryAfterMs(outcome.answer));
        continue;
      }
      failover.failed(next.node, outcome?.kind === 'unreachable' ? 'wire' : 'refused');
      if (outcome?.kind === 'unreachable') fleet.suspect(next.node);
    }
  }

  /** Throws where the model is known not to read something: that is the client's fault and no node's. */
  #bodyFor(lease: Lease, sofar: Continuation | null): Uint8Array {
    const { fleet, request } = this.#options;
    try {
      return request.toUpstream({
        wireId: lease.wireId,
        capabilities: fleet.facts.capabilitiesOf(lease.node, lease.model),
        defaults: lease.options ?? {},
        ...(sofar === null ? {} : { overrides: { [continuationField]: sofar } }),
      });
    } catch (thrown) {
      lease.release();
      throw thrown;
    }
  }

  #heed({ lease, answer, body }: Refused): void {
    if (answer.status !== 503) return;
    const { code } = readEnvelope(body.toString('utf8'));
    if (code !== null && notReadyCodes.has(code)) this.#options.fleet.doubt(lease, code);
  }

  #leave({ lease }: Answered, cause: unknown): void {
    const { fleet, failover } = this.#options;
    // a node that says what went wrong is there, and mends itself
    const isWire = !(cause instanceof AppError) || cause.code.startsWith('upstream_');
    failover.failed(lease.node, isWire ? 'wire' : 'broke');
    if (isWire) fleet.suspect(lease.node);
    lease.release();
  }

  /** What was loaded only now is asked for what it is. */
  async #identityAt({ node, model }: Lease): Promise<string | null> {
    const { fleet } = this.#options;
    const known = fleet.facts.identityOf(node, model);
    if (known === null) await fleet.pollNow(node);
    return known ?? fleet.facts.identityOf(node, model);
  }

  async #once(lease: Lease, sofar: Continuation | null): Promise<Answered | Refused | Unreachable> {
    const { fleet, request, headers, signal, idleMs, tellTokens, failover } = this.#options;
    failover.sent();
    const tokens = sofar !== null ? 'continue' : tellTokens ? 'tell' : null;
    const native = nativeFormFor(request, lease);
    const body = native?.body ?? this.#bodyFor(lease, sofar);
    try {
      const answer = await lease.open({
        path: native?.path ?? request.upstreamPath,
        body,
        headers: {
          ...headers,
          ...(tokens === null ? {} : { [tokensHeader]: tokens }),
          ...(native === null ? {} : this.#options.nativeHeaders),
        },
        signal,
        idleMs,
        // a whole answer arrives at its end: while the node answers polls, its silence is work
        ...(request.stream ? { byLines: true } : { stillAlive: () => fleet.facts.isHealthy(lease.node) }),
      });
      if (answer.status >= 300) return { kind: 'refused', lease, answer, body: await readSome(answer) };
      if (sofar !== null && headerOf(answer.headers, continuedHeader) !== String(sofar.tokens.length)) {
        answer.abort();
        return { kind: 'unreachable', cause: new Error('the neuron does not go on with answers') };
      }
      const begun = await withFirstChunk(answer);
      fleet.noteAlive(lease);
      return {
        kind: 'answer',
        lease,
        answer: begun,
        identity: fleet.facts.identityOf(lease.node, lease.model),
      };
    } catch (cause) {
      if (!signal.aborted) return { kind: 'unreachable', cause };
      lease.release();
      throw signal.reason;
    }
  }
}

/** How a request goes to that lease as it came from its client; null = as chat. */
export function nativeFormFor({ native }: InferenceRequest, lease: Lease): NativeForm | null {
  return native !== undefined && lease.native === native.wire ? native : null;
}

/** Waits for the first byte: a reset before it is still a case for another replica. */
async function withFirstChunk(answer: UpstreamAnswer): Promise<UpstreamAnswer> {
  const rest = answer.chunks[Symbol.asyncIterator]();
  let first: IteratorResult<Buffer> | null = await rest.next();
  const next = (): Promise<IteratorResult<Buffer>> => {
    if (first === null) return rest.next();
    const result = first;
    first = null;
    return Promise.resolve(result);
  };
  const leave = async (): Promise<IteratorResult<Buffer>> =>
    (await rest.return?.()) ?? { done: true, value: undefined };
  return { ...answer, chunks: { [Symbol.asyncIterator]: () => ({ next, return: leave }) } };
}

async function readSome(answer: UpstreamAnswer): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer.chunks) {
    chunks.push(chunk);
    size += chunk.length;
    if (size >= errorBytesMax) break;
  }
  return Buffer.concat(chunks).subarray(0, errorBytesMax);
}

/** The node has it, but it is just being loaded there: what it says is a matter of seconds. */
function isModelComing({ answer, body }: Refused): boolean {
  if (answer.status !== 503) return false;
  const { code } = readEnvelope(body.toString('utf8'));
  return code === 'model_loading' || code === 'model_recovering';
}

function retryAfterMs({ headers }: UpstreamAnswer): number {
  const secs = Number(headerOf(headers, 'retry-after') ?? Number.NaN);
  return Number.isFinite(secs) ? secs * 1000 : 0;
}

function isModelGone(outcome: Refused): boolean {
  if (outcome.answer.status !== 404) return false;
  const { code } = readEnvelope(outcome.body.toString('utf8'));
  return code === 'model_not_found' || code === 'model_not_loaded';
}
