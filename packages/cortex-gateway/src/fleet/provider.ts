/**
 * One provider: whether it takes requests, and the lease of one.
 *
 * It takes none while its key is missing or refused, while it rests after failures or for as long as it asked
 * for (`Retry-After`), and when as many run as may. All of that is soft, and of this gateway alone.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError, type ErrorCode } from 'cortex-core/wire/errors';
import type { ModelCost, ModelLimit } from 'cortex-core/wire/neuron';
import { noTerms } from '../decide/expected-time.ts';
import type { HostedModel } from '../decide/fleet-view.ts';
import {
  type ProviderAnswer,
  type ProviderCall,
  ProviderClient,
  type ProviderKind,
  toAnswer,
} from '../upstream/provider-client.ts';
import type { Ask } from './ask.ts';
import { type Attempt, Breaker, type CircuitState, type Outcome } from './breaker.ts';
import type { AliasOptions } from './catalogue.ts';
import type { Lease, OpenRequest, UpstreamAnswer } from './lease.ts';

export interface ProviderSpec {
  readonly name: string;
  readonly kind: ProviderKind;
  readonly url: string;
  /** null = it needs no key. */
  readonly keyEnv: string | null;
  readonly models: readonly ProviderModel[];
  readonly concurrentMax: number;
  readonly connectTimeoutMs: number;
  readonly idleMs: number;
  /** How long a request waits for a node before it goes here; null = for as long as it takes. */
  readonly afterWaitMs: number | null;
  readonly failuresMax: number;
  readonly dropFields: readonly string[];
  readonly maxTokensField: 'max_tokens' | 'max_completion_tokens';
}

export interface ProviderModel {
  readonly id: string;
  readonly upstream: string;
  readonly limit: ModelLimit | null;
  readonly cost: ModelCost | null;
  readonly capabilities: readonly string[];
}

/** What the fleet does not know itself: the environment, and the wire of each kind. */
export interface ProviderDeps {
  /** A variable of the environment; undefined or empty = not set. */
  readonly env: (name: string) => string | undefined;
  /** Throws an AppError for what the provider cannot do. */
  readonly toCall: (spec: ProviderSpec, model: ProviderModel, request: OpenRequest) => ProviderCall;
  readonly toError: (spec: ProviderSpec, model: ProviderModel, answer: ProviderAnswer) => AppError;
}

export interface ProviderOptions {
  readonly spec: ProviderSpec;
  readonly deps: ProviderDeps;
  readonly clock: Clock;
  readonly onCircuit: (circuit: CircuitState) => void;
}

/** Why it takes no request, with the error that a client gets when nobody else does. */
export interface ProviderRefusal {
  /** The end of a sentence about the provider. */
  readonly reason: string;
  readonly code: ErrorCode;
  readonly retryAfterSecs: number | null;
}

interface Rest {
  readonly untilMs: number;
  readonly reason: string;
  readonly code: ErrorCode;
}

/** How long what only a person can mend is not tried again. */
const faultRestMs = 30_000;
const failures: ReadonlySet<number> = new Set([500, 502, 504]);

export class Provider {
  readonly spec: ProviderSpec;
  readonly #options: ProviderOptions;
  readonly #client: ProviderClient;
  readonly #breaker: Breaker;
  readonly #models: ReadonlyMap<string, ProviderModel>;
  /** By model; '' = all. Of models of the spec alone. */
  readonly #rests = new Map<string, Rest>();
  #running = 0;
  #isClosed = false;

  constructor(options: ProviderOptions) {
    const { spec, clock, onCircuit } = options;
    this.spec = spec;
    this.#options = options;
    this.#models = new Map(spec.models.map((model) => [model.id, model]));
    this.#client = new ProviderClient({ ...spec, clock });
    this.#breaker = new Breaker({ clock, failuresMax: () => spec.failuresMax, onCircuit });
  }

  get running(): number {
    return this.#running;
  }

  modelOf(id: string): ProviderModel | null {
    return this.#models.get(id) ?? null;
  }

  hostedModel(id: string): HostedModel | null {
    const model = this.#models.get(id);
    if (model === undefined) return null;
    const { capabilities, limit, cost } = model;
    return {
      ...{ provider: this.spec.name, capabilities, limit, cost },
      refusal: this.refusal(id)?.reason ?? null,
    };
  }

  /** `model` null: of the provider as a whole. Null = it takes requests. */
  refusal(model: string | null): ProviderRefusal | null {
    const { keyEnv, concurrentMax } = this.spec;
    if (keyEnv !== null && this.#key() === null) {
      const reason = `has no key: the environment variable ${keyEnv} is not set`;
      return { reason, code: 'no_healthy_nodes', retryAfterSecs: null };
    }
    const rest = this.#rest('') ?? (model === null ? null : this.#rest(model));
    if (rest !== null) {
      const ms = rest.untilMs - this.#options.clock.monotonicMs();
      return { ...rest, retryAfterSecs: Math.max(1, Math.ceil(ms / 1000)) };
    }
    const { refusal } = this.#breaker;
    if (refusal !== null) return { reason: refusal, code: 'no_healthy_nodes', retryAfterSecs: 5 };
    if (this.#running < concurrentMax) return null;
    const reason = `runs ${concurrentMax} requests, which is all it may (max_concurrent)`;
    return { reason, code: 'overloaded', retryAfterSecs: 1 };
  }

  /** The right to send one request; the caller has asked for a refusal in the same tick. */
  lease(ask: Ask, model: ProviderModel, why: string, options: AliasOptions | null): Lease {
    this.#running++;
    const attempt = this.#breaker.begin();
    let outcome: Outcome = 'unknown';
    let isHeld = true;
    return {
      ...{ node: this.spec.name, model: model.id, wireId: model.id, why, options, ask, cold: false },
      terms: noTerms(),
      ...(this.spec.kind === 'anthropic' && options === null ? { native: 'messages' as const } : {}),
      // the fleet's fairness is about its own machines
      charge: () => {},
      open: (request) => this.#open(model, request, attempt, (now) => (outcome = now)),
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#running--;
        attempt.end(outcome);
        if (this.#isClosed && this.#running === 0) void this.#client.close().catch(() => {});
      },
    };
  }

  /** Takes no part any more; requests that run may end. Idempotent. */
  retire(): void {
    this.#isClosed = true;
    this.#breaker.close();
    if (this.#running === 0) void this.#client.close().catch(() => {});
  }

  /** Cuts what runs. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#breaker.close();
    await this.#client.close();
  }

  async #open(
    model: ProviderModel,
    request: OpenRequest,
    attempt: Attempt,
    note: (outcome: Outcome) => void,
  ): Promise<UpstreamAnswer> {
    const { deps } = this.#options;
    const fail = (thrown: unknown): never => {
      if (!request.signal.aborted && isFailure(thrown)) note('failed');
      throw thrown;
    };
    let call: ProviderCall;
    try {
      call = deps.toCall(this.spec, model, request);
    } catch (thrown) {
      // the request asks for what the provider cannot do: its answer is no
      if (thrown instanceof AppError) return toAnswer(thrown);
      throw thrown;
    }
    const { headers, signal } = request;
    let refused = false;
    const onRefused = (answer: ProviderAnswer): AppError => {
      refused = true;
      const error = deps.toError(this.spec, model, answer);
      this.#heed(model, answer, error);
      if (failures.has(answer.status)) note('failed');
      return error;
    };
    const answer = await this.#client
      .open({ call, key: this.#key(), headers, signal, onRefused })
      .catch(fail);
    if (refused) return answer;
    note('ok');
    return { ...answer, chunks: watched(answer.chunks, attempt.answered, fail) };
  }

  /** What a refusal says of the requests that come next. */
  #heed(model: ProviderModel, { status, retryAfterSecs }: ProviderAnswer, error: AppError): void {
    const { clock } = this.#options;
    const rest = (key: string, ms: number, reason: string): void => {
      this.#rests.set(key, { untilMs: clock.monotonicMs() + ms, reason, code: error.code });
    };
    const said = error.message.replace(`provider ${this.spec.name}`, '').replace(/^[:\s]+/, '');
    if (status === 401 || status === 402 || status === 403) rest('', faultRestMs, said);
    else if (status === 404 || status === 405) rest(model.id, faultRestMs, said);
    else if (retryAfterSecs === null || retryAfterSecs === 0) return;
    else if (status === 429) rest(model.id, retryAfterSecs * 1000, `asks to be left alone: ${said}`);
    else if (status === 503 || status === 529) {
      rest('', retryAfterSecs * 1000, `asks to be left alone: ${said}`);
    }
  }

  #rest(key: string): Rest | null {
    const rest = this.#rests.get(key);
    if (rest === undefined) return null;
    if (rest.untilMs > this.#options.clock.monotonicMs()) return rest;
    this.#rests.delete(key);
    return null;
  }

  /** Read with each request: a variable that comes later counts. */
  #key(): string | null {
    const { keyEnv } = this.spec;
    return keyEnv === null ? null : this.#options.deps.env(keyEnv) || null;
  }
}

async function* watched(
  chunks: AsyncIterable<Buffer>,
  answered: () => void,
  fail: (thrown: unknown) => never,
): AsyncGenerator<Buffer, void, void> {
  try {
    for await (const chunk of chunks) {
      answered();
      yield chunk;
    }
  } catch (thrown) {
    fail(thrown);
  }
}

function isFailure(thrown: unknown): boolean {
  return thrown instanceof AppError && thrown.code.startsWith('upstream_');
}
