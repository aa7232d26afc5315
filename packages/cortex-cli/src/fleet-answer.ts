/** What GET /v1/models, /health and /admin/fleet hold for a person. What an answer lacks is left out. */
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

export interface GatewayHealth {
  readonly status: string;
  readonly healthyNodes: number;
  readonly totalNodes: number;
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
