/** What is known of one model on one node, and how decisions see it. */
import type { ModelLoad, NeuronModel, UseMark } from 'cortex-core/wire/neuron';
import type { CatalogueEntry, ModelView } from '../decide/fleet-view.ts';

export interface ModelState {
  readonly wireId: string;
  row: NeuronModel;
  /** in_flight + queue_depth as polled, less our own leases at that moment. */
  foreignLoad: number;
  slots: number | null;
  /** Of all gateways, as the neuron told it last; null = it does not. */
  use: ModelLoad['use'] | null;
}

export interface UseReading {
  /** For an unload that shall not take it from somebody. */
  readonly mark: UseMark;
  readonly residentSinceMs: number;
  /** null = not used since its load. */
  readonly usedMs: number | null;
}

/** As read at `readMs` of this clock: neurons tell ages. Null = not told. */
export function toUseReading(use: ModelLoad['use'] | null, readMs: number): UseReading | null {
  if (use === undefined || use === null) return null;
  const { load_id, requests, loaded_secs, idle_secs } = use;
  return {
    mark: { load_id, requests },
    residentSinceMs: readMs - loaded_secs * 1000,
    usedMs: idle_secs === null ? null : readMs - idle_secs * 1000,
  };
}

export interface ModelUse {
  readonly leases: number;
  readonly lastUsedMs: number | null;
  readonly isDraining: boolean;
  /** Why it is not believed to be loaded; null = it is. */
  readonly doubt: string | null;
}

export function toModelView(
  id: string,
  { wireId, row, foreignLoad, slots }: ModelState,
  entry: CatalogueEntry | undefined,
  { leases, lastUsedMs, isDraining, doubt }: ModelUse,
): ModelView {
  const servable = row.servable;
  return {
    // written out: a spread would make each of these a dictionary, ten times as slow to read
    id,
    wireId,
    foreignLoad,
    leases,
    slots,
    lastUsedMs,
    harness: row.harness,
    status: row.status,
    devices: row.devices,
    vramMb: row.vram_used_mb ?? entry?.vramMb ?? row.vram_estimate_mb,
    draining: isDraining,
    unservable:
      servable === undefined || servable.ok ? doubt : (servable.detail ?? servable.reason ?? 'cannot serve'),
    capabilities:
      entry !== undefined && entry.capabilities.length > 0 ? entry.capabilities : row.capabilities,
    limit: row.limit ?? entry?.limit ?? null,
    cost: entry?.cost ?? row.cost ?? null,
    toolCall: row.tool_call,
    reasoning: row.reasoning,
  };
}

/**
 * A neuron tells no size of a model while it comes up or moves. What was known of it counts on: a model of
 * unknown size would make no room by leaving, and whoever needs its memory would be refused for good.
 */
export function keepSize(row: NeuronModel, before: NeuronModel | undefined): NeuronModel {
  if (before === undefined || row.vram_used_mb !== null || row.vram_estimate_mb !== null) return row;
  const isPlaced = row.status !== 'loaded' || row.devices.length > 0;
  return {
    ...row,
    vram_estimate_mb: before.vram_used_mb ?? before.vram_estimate_mb,
    devices: isPlaced ? row.devices : before.devices,
  };
}

/** Of a model that the fleet itself put there. */
export function newRow(id: string, status: NeuronModel['status'], devices: readonly number[]): NeuronModel {
  return {
    id,
    harness: 'llamacpp',
    status,
    devices: [...devices],
    vram_used_mb: null,
    vram_estimate_mb: null,
    capabilities: [],
    tool_call: false,
    reasoning: false,
    digest: null,
  };
}
