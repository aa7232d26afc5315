/**
 * The providers, as the neurons of last resort: asked in the order of the configuration, where no node serves
 * a model or can load it, or where a wait for one lasts longer than a provider says it should.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { ExplainedCandidate, Explanation } from '../decide/explain.ts';
import type { HostedModel, HostedModels } from '../decide/fleet-view.ts';
import type { Ask } from './ask.ts';
import type { AliasOptions, Catalogue } from './catalogue.ts';
import type { Ticket } from './fleet-options.ts';
import type { Lease } from './lease.ts';
import { Provider, type ProviderDeps, type ProviderRefusal, type ProviderSpec } from './provider.ts';

export interface ProvidersOptions {
  readonly deps: ProviderDeps | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly catalogue: () => Catalogue;
  /** The model that a requested name means. */
  readonly resolve: (requested: string) => string;
  /** What an alias says in the request's place. */
  readonly optionsOf: (requested: string) => AliasOptions | null;
}

export class Providers implements HostedModels {
  readonly #options: ProvidersOptions;
  #all: readonly Provider[] = [];
  #leaving: readonly Provider[] = [];

  constructor(options: ProvidersOptions) {
    this.#options = options;
  }

  get all(): readonly Provider[] {
    return this.#all;
  }

  get names(): readonly string[] {
    return this.#all.map(({ spec }) => spec.name);
  }

  /** One that is the same keeps its state and its requests; one that goes lets its requests end. */
  replace(specs: readonly ProviderSpec[]): void {
    const kept = new Map(this.#all.map((each) => [JSON.stringify(each.spec), each]));
    const next = specs.map((spec) => kept.get(JSON.stringify(spec)) ?? this.#create(spec));
    const gone = this.#all.filter((each) => !next.includes(each));
    for (const each of gone) each.retire();
    this.#leaving = [...this.#leaving, ...gone].filter(({ running }) => running > 0);
    this.#all = next;
  }

  readonly ids = (): readonly string[] => this.#all.flatMap(({ spec }) => spec.models.map(({ id }) => id));

  readonly of = (model: string): readonly HostedModel[] =>
    this.#all.flatMap((each) => each.hostedModel(model) ?? []);

  capabilitiesOf(name: string, model: string): readonly string[] | null {
    const known = this.#named(name)?.modelOf(model)?.capabilities ?? [];
    return known.length === 0 ? null : known;
  }

  /**
   * A provider that takes the request now; null = none does. `why`: why no node does. `waitedMs`: how long
   * the request has waited for one that may still come; null = none will.
   */
  lease(ask: Ask, why: string, exclude: ReadonlySet<string>, waitedMs: number | null = null): Lease | null {
    const id = this.#idOf(ask);
    for (const each of this.#all) {
      const model = each.modelOf(id);
      if (model === null || exclude.has(each.spec.name) || each.refusal(id) !== null) continue;
      const { afterWaitMs } = each.spec;
      if (waitedMs !== null && (afterWaitMs === null || afterWaitMs > waitedMs)) continue;
      return each.lease(ask, model, `last resort: ${why}`, this.#options.optionsOf(ask.model));
    }
    return null;
  }

  /** In the place of a refusal by the fleet. Throws `cause`, or what the providers say. */
  ticket(ask: Ask, cause: AppError, exclude: ReadonlySet<string>): Ticket {
    const lease = this.lease(ask, cause.message, exclude);
    if (lease === null) throw this.#refused(ask, cause);
    return toTicket(lease);
  }

  /**
   * The place in the fleet's line that `enter` takes; but a request that waits longer than a provider of its
   * model says, or whose wait fails, goes to the provider. The load that it waited for goes on.
   * Throws what `enter` throws, where no provider takes it.
   */
  orAfterWait(
    ask: Ask,
    enter: (signal: AbortSignal) => Promise<Lease>,
    signal: AbortSignal,
    exclude: ReadonlySet<string>,
  ): Promise<Lease> {
    if (this.of(this.#idOf(ask)).length === 0) return enter(signal);
    const left = new AbortController();
    const instead = (thrown: unknown): Lease => {
      const mayGo = !signal.aborted && thrown instanceof AppError && thrown.code !== 'shutting_down';
      const lease = mayGo ? this.lease(ask, thrown.message, exclude) : null;
      if (lease === null) throw thrown;
      return lease;
    };
    try {
      const ready = enter(AbortSignal.any([signal, left.signal]));
      return this.#within(ask, ready, exclude, () => left.abort()).catch(instead);
    } catch (thrown) {
      return Promise.resolve(instead(thrown));
    }
  }

  async #within(
    ask: Ask,
    ready: Promise<Lease>,
    exclude: ReadonlySet<string>,
    leave: () => void,
  ): Promise<Lease> {
    const boundMs = this.#boundOf(ask);
    if (boundMs === null) return await ready;
    let timer: { cancel(): void } | null = null;
    const late = new Promise<null>((resolve) => {
      timer = this.#options.clock.setTimer(boundMs, () => resolve(null));
    });
    const inTime = await Promise.race([ready, late]).finally(() =>
      (timer as { cancel(): void } | null)?.cancel(),
    );
    if (inTime !== null) return inTime;
    const lease = this.lease(ask, `waited ${boundMs / 1000} s for a node`, exclude, boundMs);
    if (lease === null) return await ready;
    leave();
    ready.then(
      (unused) => unused.release(),
      () => {},
    );
    return lease;
  }

  /** What the fleet's explanation is with the providers of the model behind its nodes. */
  explained(explanation: Explanation, ask: Ask): Explanation {
    const id = this.#idOf(ask);
    const isOpen = explanation.node === null;
    const hosts = this.of(id);
    const chosen = isOpen ? (hosts.find(({ refusal }) => refusal === null) ?? null) : null;
    const candidates = hosts.map((host): ExplainedCandidate => {
      const base = { node: host.provider, state: 'hosted' as const, terms: null, evict: [] };
      if (host.refusal !== null) return { ...base, verdict: 'cannot', why: host.refusal };
      if (host === chosen) return { ...base, verdict: 'chosen', why: `last resort: ${explanation.why}` };
      const why = isOpen ? `${chosen?.provider} comes first` : 'a provider, for when no node serves it';
      return { ...base, verdict: 'lost', why };
    });
    const all = [...explanation.candidates, ...candidates];
    if (chosen === null) return { ...explanation, candidates: all };
    const why = `last resort: ${explanation.why}`;
    return { ...explanation, decision: 'forward', node: chosen.provider, why, candidates: all };
  }

  /** Cuts what runs. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#all, ...this.#leaving].map((each) => each.close()));
  }

  #create(spec: ProviderSpec): Provider {
    const { deps, clock, log } = this.#options;
    if (deps === null) throw new Error('providers are configured, and nothing to reach them with');
    const provider = new Provider({
      ...{ spec, deps, clock },
      onCircuit: (circuit) => log.warn('provider circuit', { provider: spec.name, circuit }),
    });
    const refusal = provider.refusal(null);
    if (refusal !== null) log.warn(`provider ${spec.name} ${refusal.reason}`, { provider: spec.name });
    return provider;
  }

  #idOf({ model }: Ask): string {
    return this.#options.resolve(model);
  }

  #named(name: string): Provider | null {
    return this.#all.find(({ spec }) => spec.name === name) ?? null;
  }

  /** The least wait of those that may be had. */
  #boundOf(ask: Ask): number | null {
    const id = this.#idOf(ask);
    const bounds = this.#all.flatMap((each) =>
      each.modelOf(id) === null ? [] : (each.spec.afterWaitMs ?? []),
    );
    return bounds.length === 0 ? null : Math.min(...bounds);
  }

  #refused(ask: Ask, cause: AppError): AppError {
    const id = this.#idOf(ask);
    const refusals = this.#all.flatMap((each): readonly (ProviderRefusal & { name: string })[] => {
      if (each.modelOf(id) === null) return [];
      const refusal = each.refusal(id);
      return refusal === null ? [] : [{ ...refusal, name: each.spec.name }];
    });
    const [first] = refusals;
    if (first === undefined) return cause;
    const said = refusals.map(({ name, reason }) => `provider ${name} ${reason}`);
    const nodes = refusals.map(({ name, reason }) => ({ node: name, reason }));
    const known = Array.isArray(cause.extras.nodes) ? cause.extras.nodes : [];
    const isUnknown = cause.code === 'model_not_found' || cause.code === 'no_healthy_nodes';
    const isOnlyHosted = isUnknown && !this.#options.catalogue().entries.has(id);
    const secs = isOnlyHosted ? first.retryAfterSecs : cause.retryAfterSecs;
    const message = isOnlyHosted
      ? `model "${id.slice(0, 200)}": ${said.join('; ')}`
      : `${cause.message}; ${said.join('; ')}`;
    return new AppError(isOnlyHosted ? first.code : cause.code, message, {
      ...(secs === null ? {} : { retryAfterSecs: secs }),
      extras: { ...cause.extras, nodes: [...known, ...nodes] },
    });
  }
}

function toTicket(lease: Lease): Ticket {
  const { node, why } = lease;
  return { node, why, expectedMs: null, lease, ready: Promise.resolve(lease) };
}
