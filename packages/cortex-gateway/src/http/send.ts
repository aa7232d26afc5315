/**
 * One request to the fleet: the leased node first, then, while the client has got no byte, another replica
 * after a connection error, 502, 503 or reset. Never the same node twice, and never a load.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { InferenceRequest } from '../dialects/dialect.ts';
import { readEnvelope } from '../dialects/upstream-error.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Lease, UpstreamAnswer } from '../fleet/lease.ts';

export interface SendOptions {
  readonly fleet: Fleet;
  readonly request: InferenceRequest;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly idleMs: number;
}

/** The lease that is held now belongs to the caller in every case but a throw, which has released it. */
export type SendResult =
  | Answered
  | Refused
  /** The node turned out not to have the model; nothing is held. */
  | { readonly kind: 'gone' };

interface Answered {
  readonly kind: 'answer';
  readonly lease: Lease;
  readonly answer: UpstreamAnswer;
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

const attemptsMax = 3;
/** A neuron says so of a model that does not serve, whatever its list says. */
const notReadyCodes: ReadonlySet<string> = new Set([
  'model_loading',
  'model_recovering',
  'model_poisoned',
  'model_not_loaded',
]);
const errorBytesMax = 64 * 1024;

export async function sendWithFailover(first: Lease, options: SendOptions): Promise<SendResult> {
  const { fleet, request, signal } = options;
  const tried = new Set<string>();
  let lease = first;
  for (let attempt = 1; ; attempt++) {
    tried.add(lease.node);
    const outcome = await sendOnce(lease, options);
    if (outcome.kind === 'answer') {
      fleet.noteAlive(lease.node);
      return outcome;
    }
    if (outcome.kind === 'refused' && isModelGone(outcome)) {
      fleet.disown(lease);
      lease.release();
      return { kind: 'gone' };
    }
    if (outcome.kind === 'refused' && outcome.answer.status === 503) {
      const { code } = readEnvelope(outcome.body.toString('utf8'));
      if (code !== null && notReadyCodes.has(code)) fleet.doubt(lease, code);
    }
    const mayFailOver =
      outcome.kind === 'unreachable' || outcome.answer.status === 502 || outcome.answer.status === 503;
    const next = mayFailOver && attempt < attemptsMax ? fleet.another(request.model, tried) : null;
    if (outcome.kind === 'unreachable') fleet.suspect(lease.node);
    if (next === null) {
      if (outcome.kind === 'refused') return outcome;
      lease.release();
      throw outcome.cause;
    }
    lease.release();
    lease = next;
    if (signal.aborted) {
      lease.release();
      throw signal.reason;
    }
  }
}

async function sendOnce(
  lease: Lease,
  { fleet, request, headers, signal, idleMs }: SendOptions,
): Promise<Answered | Refused | Unreachable> {
  try {
    const answer = await lease.open({
      path: request.upstreamPath,
      body: request.toUpstream({ wireId: lease.wireId }),
      headers,
      signal,
      idleMs,
      // a whole answer arrives at its end: while the node answers polls, its silence is work
      ...(request.stream ? {} : { stillAlive: () => fleet.isHealthy(lease.node) }),
    });
    if (answer.status < 300) return { kind: 'answer', lease, answer: await withFirstChunk(answer) };
    return { kind: 'refused', lease, answer, body: await readSome(answer) };
  } catch (cause) {
    if (signal.aborted || (cause instanceof AppError && cause.code === 'upstream_timeout')) {
      lease.release();
      throw cause;
    }
    return { kind: 'unreachable', cause };
  }
}

/** Waits for the first byte: a reset before it is still a case for another replica. */
async function withFirstChunk(answer: UpstreamAnswer): Promise<UpstreamAnswer> {
  const iterator = answer.chunks[Symbol.asyncIterator]();
  const first = await iterator.next();
  async function* chunks(): AsyncGenerator<Buffer, void, void> {
    if (first.done === true) return;
    yield first.value;
    yield* { [Symbol.asyncIterator]: () => iterator };
  }
  return { ...answer, chunks: chunks() };
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

function isModelGone(outcome: { readonly answer: UpstreamAnswer; readonly body: Buffer }): boolean {
  if (outcome.answer.status !== 404) return false;
  const { code } = readEnvelope(outcome.body.toString('utf8'));
  return code === 'model_not_found' || code === 'model_not_loaded';
}
