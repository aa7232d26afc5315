/** What GET /v1/models, /health and /admin hold for a person. What an answer lacks is left out. */
import { type LoadProgress, loadProgressSchema } from 'cortex-core/wire/neuron';

export interface ListedModel {
  readonly id: string;
  readonly loaded: boolean;
  readonly locations: readonly { readonly node: string; readonly status: string }[];
  readonly feasibleOn: readonly string[];
  readonly context: number | null;
}

export interface FleetNode {
  readonly name: string;
  readonly healthy: boolean;
  /** `in_service`, `cordoned`, `draining`, `drained` or `resting`; empty where the gateway does not tell. */
  readonly service: string;
  /** Why it takes no new requests. */
  readonly reason: string | null;
  /** Requests and loads that run there now. */
  readonly running: number;
  /** Of its neuron; empty where it never answered. */
  readonly version: string;
  readonly warnings: readonly string[];
  readonly devices: readonly { readonly totalMb: number | null; readonly freeMb: number | null }[];
  readonly models: readonly {
    readonly id: string;
    readonly status: string;
    readonly inFlight: number | null;
    /** Why it cannot serve although loaded. */
    readonly unservable: string | null;
  }[];
  readonly loading: readonly LoadProgress[];
}

export interface FleetProvider {
  readonly name: string;
  readonly kind: string;
  /** Why it takes no request; null = it does. */
  readonly reason: string | null;
  /** Requests that run there now. */
  readonly running: number;
  readonly models: readonly string[];
}

export interface GatewayHealth {
  readonly status: string;
  readonly healthyNodes: number;
  readonly totalNodes: number;
}

/** Times in seconds. */
export interface Explanation {
  readonly requested: string;
  readonly model: string;
  readonly promptTokens: number;
  /** `forward`, `load`, `wait` or `reject`. */
  readonly decision: string;
  readonly node: string | null;
  readonly why: string;
  /** When its load begins, and what is in the way; null = at once, or there is none. */
  readonly turn: string | null;
  readonly candidates: readonly {
    readonly node: string;
    readonly state: string;
    /** `chosen`, `lost` or `cannot`. */
    readonly verdict: string;
    readonly why: string;
    readonly evict: readonly string[];
    readonly terms: ExplainedTerms | null;
  }[];
}

interface ExplainedTerms {
  readonly expected: number;
  readonly queue: number;
  readonly turn: number;
  readonly evict: number;
  readonly load: number;
  readonly prefill: number;
  readonly cachedTokens: number;
}

export function readExplanation(answer: unknown): Explanation {
  const node = field(answer, 'node');
  const turn = field(answer, 'turn');
  return {
    requested: asText(field(answer, 'requested')),
    model: asText(field(answer, 'model')),
    promptTokens: asNumber(field(answer, 'prompt_tokens')) ?? 0,
    decision: asText(field(answer, 'decision')),
    node: typeof node === 'string' ? node : null,
    why: asText(field(answer, 'why')),
    turn: typeof turn === 'string' ? turn : null,
    candidates: asList(field(answer, 'candidates')).map((each) => ({
      node: asText(field(each, 'node')),
      state: asText(field(each, 'state')),
      verdict: asText(field(each, 'verdict')),
      why: asText(field(each, 'why')),
      evict: asList(field(each, 'evict')).map(asText),
      terms: readTerms(field(each, 'terms')),
    })),
  };
}

function readTerms(terms: unknown): ExplainedTerms | null {
  const expected = asNumber(field(terms, 'expected_secs'));
  if (expected === null) return null;
  const secs = (name: string): number => asNumber(field(terms, name)) ?? 0;
  return {
    expected,
    queue: secs('queue_secs'),
    turn: secs('turn_secs'),
    evict: secs('evict_secs'),
    load: secs('load_secs'),
    prefill: secs('prefill_secs'),
    cachedTokens: secs('cached_tokens'),
  };
}

export function readModels(answer: unknown): readonly ListedModel[] {
  return asList(field(answer, 'data')).map((model) => ({
    id: asText(field(model, 'id')),
    loaded: field(model, 'loaded') === true,
    locations: asList(field(model, 'locations')).map((place) => ({
      node: asText(field(place, 'node')),
      status: asText(field(place, 'status')),
    })),
    feasibleOn: asList(field(model, 'feasible_on')).map(asText),
    context: asNumber(field(field(model, 'limit'), 'context')),
  }));
}

export function readHealth(answer: unknown): GatewayHealth {
  const nodes = field(answer, 'nodes');
  return {
    status: asText(field(answer, 'status')),
    healthyNodes: asNumber(field(nodes, 'healthy')) ?? 0,
    totalNodes: asNumber(field(nodes, 'total')) ?? 0,
  };
}

export function readFleet(answer: unknown): readonly FleetNode[] {
  return asList(field(answer, 'nodes')).map((node) => ({
    name: asText(field(node, 'name')),
    healthy: field(node, 'healthy') === true,
    ...readService(node),
    version: asText(field(node, 'version')),
    warnings: asList(field(node, 'warnings')).map(asText),
    devices: asList(field(node, 'devices')).map((device) => ({
      totalMb: asNumber(field(device, 'total_mb') ?? field(device, 'vram_total_mb')),
      freeMb: asNumber(field(device, 'free_mb') ?? field(device, 'vram_free_mb')),
    })),
    models: asList(field(node, 'models')).map((model) => ({
      id: asText(field(model, 'id')),
      status: asText(field(model, 'status')),
      inFlight: asNumber(field(model, 'in_flight')),
      unservable: asText(field(model, 'unservable')) || null,
    })),
    loading: asList(field(node, 'loading')).flatMap((each) => {
      const parsed = loadProgressSchema.safeParse(each);
      return parsed.success ? [parsed.data] : [];
    }),
  }));
}

export function readProviders(answer: unknown): readonly FleetProvider[] {
  return asList(field(answer, 'providers')).map((provider) => ({
    name: asText(field(provider, 'name')),
    kind: asText(field(provider, 'kind')),
    reason: asText(field(provider, 'reason')) || null,
    running: asNumber(field(provider, 'in_flight')) ?? 0,
    models: asList(field(provider, 'models')).map((model) => asText(field(model, 'id'))),
  }));
}

/** What /admin/drain answers, and each node of /admin/fleet holds. */
export function readService(node: unknown) {
  return {
    service: asText(field(node, 'state')),
    reason: asText(field(node, 'reason')) || null,
    running: (asNumber(field(node, 'in_flight')) ?? 0) + (asNumber(field(node, 'loads')) ?? 0),
  };
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function asNumber(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}
