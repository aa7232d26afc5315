/**
 * A FleetView from plain data, for tests and for the simulator: what is left out takes the value that an
 * ordinary healthy fleet has.
 */
import { FleetIndex } from './fleet-index.ts';
import type {
  CatalogueEntry,
  ComingView,
  DeviceView,
  EvictionStrategy,
  FleetView,
  ModelView,
  NodeView,
} from './fleet-view.ts';
import { defaultPriority } from './fleet-view.ts';
import { RateBook, type RateRow } from './rate-book.ts';

type EntrySketch = Partial<CatalogueEntry> & { readonly id: string };
type ModelSketch = Partial<ModelView> & { readonly id: string };

export interface NodeSketch {
  readonly name: string;
  readonly healthy?: boolean;
  readonly refusal?: string | null;
  readonly cordoned?: boolean;
  readonly discovered?: boolean;
  readonly isAwaited?: boolean;
  readonly failedLoads?: ReadonlyMap<string, string>;
  readonly harnesses?: readonly string[];
  /** A number is a device of that many MiB without a reading: what is resident counts. */
  readonly devices?: readonly (number | Partial<DeviceView>)[];
  readonly models?: readonly ModelSketch[];
  readonly pending?: readonly string[];
  readonly turnMs?: number | null;
  readonly coming?: ReadonlyMap<string, ComingView>;
}

export interface FleetSketch {
  readonly nodes: readonly NodeSketch[];
  readonly catalogue?: readonly EntrySketch[];
  /** Alias to model id. */
  readonly aliases?: Readonly<Record<string, string>>;
  readonly strategy?: EvictionStrategy;
  readonly rates?: readonly RateRow[];
}

export function toFleetView(sketch: FleetSketch): FleetView {
  const catalogue = new Map(sketch.catalogue?.map((entry) => [entry.id, toCatalogueEntry(entry)]));
  const aliases = new Map(Object.entries(sketch.aliases ?? {}));
  const strategy = sketch.strategy ?? 'lru';
  const rates = new RateBook();
  rates.restore({ rates: sketch.rates ?? [], loadMbS: {} });
  const sorted = sketch.nodes.map(toNodeView).sort((a, b) => (a.name < b.name ? -1 : 1));
  const index = new FleetIndex(sorted, { catalogue, aliases, strategy, rates });
  return { nodes: index.nodes, catalogue, aliases, strategy, rates, index };
}

function toCatalogueEntry(entry: EntrySketch): CatalogueEntry {
  return {
    wireId: entry.id,
    harness: 'llamacpp',
    quant: null,
    vramMb: null,
    minDevices: 1,
    minDeviceVramMb: null,
    pinnedOn: [],
    residencyPriority: defaultPriority,
    limit: null,
    cost: null,
    capabilities: [],
    ...entry,
  };
}

function toNodeView(sketch: NodeSketch): NodeView {
  return {
    healthy: true,
    discovered: true,
    harnesses: ['llamacpp'],
    pending: [],
    ...sketch,
    devices: (sketch.devices ?? []).map(toDeviceView),
    models: new Map(sketch.models?.map((model) => [model.id, toModelView(model)])),
  };
}

function toDeviceView(device: number | Partial<DeviceView>, at: number): DeviceView {
  const given = typeof device === 'number' ? { totalMb: device } : device;
  return { index: at, totalMb: 0, freeMb: null, ...given };
}

function toModelView(model: ModelSketch): ModelView {
  return {
    wireId: model.id,
    harness: 'llamacpp',
    status: 'loaded',
    devices: [0],
    vramMb: null,
    foreignLoad: 0,
    leases: 0,
    slots: null,
    lastUsedMs: null,
    draining: false,
    unservable: null,
    capabilities: [],
    limit: null,
    cost: null,
    toolCall: false,
    reasoning: false,
    ...model,
  };
}
