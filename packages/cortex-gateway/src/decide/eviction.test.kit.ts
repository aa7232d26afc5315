import type { CatalogueEntry, FleetView, ModelView, NodeView } from './fleet-view.ts';

export const entryOf = (id: string, more: Partial<CatalogueEntry> = {}): CatalogueEntry => ({
  id,
  wireId: id,
  harness: 'llamacpp',
  quant: null,
  vramMb: 1000,
  minDevices: 1,
  minDeviceVramMb: null,
  pinnedOn: [],
  residencyPriority: 100,
  limit: null,
  cost: null,
  capabilities: [],
  ...more,
});

export const residentOf = (id: string, more: Partial<ModelView> = {}): ModelView => ({
  id,
  wireId: id,
  harness: 'llamacpp',
  status: 'loaded',
  devices: [0],
  vramMb: 1000,
  foreignLoad: 0,
  leases: 0,
  lastUsedMs: 1,
  draining: false,
  unservable: null,
  capabilities: [],
  limit: null,
  cost: null,
  toolCall: false,
  reasoning: false,
  ...more,
});

/** `devices`: total and free MiB of each. */
export const nodeOf = (
  name: string,
  devices: readonly (readonly [number, number | null])[],
  models: readonly ModelView[] = [],
): NodeView => ({
  name,
  healthy: true,
  discovered: true,
  harnesses: ['llamacpp'],
  devices: devices.map(([totalMb, freeMb], index) => ({ index, totalMb, freeMb })),
  models: new Map(models.map((each) => [each.id, each])),
  pending: [],
});

export const viewOf = (
  nodes: readonly NodeView[],
  entries: readonly CatalogueEntry[] = [],
  more: Partial<FleetView> = {},
): FleetView => ({
  nodes,
  catalogue: new Map(entries.map((each) => [each.id, each])),
  aliases: new Map(),
  strategy: 'lru',
  ...more,
});
