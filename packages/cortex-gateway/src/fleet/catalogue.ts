/** models.toml as decisions see it, and which of its entries a neuron's model id means. */
import type { ModelsConfig } from 'cortex-core/config/models-config';
import type { CatalogueEntry } from '../decide/fleet-view.ts';

export interface Catalogue {
  readonly entries: ReadonlyMap<string, CatalogueEntry>;
  readonly aliases: ReadonlyMap<string, string>;
  /** The catalogue's id for what a neuron calls `wireId`; the same text where the catalogue has none. */
  canonicalId(wireId: string): string;
}

export function toCatalogue(config: ModelsConfig): Catalogue {
  const entries = new Map<string, CatalogueEntry>();
  const byWireId = new Map<string, string>();
  for (const model of config.models) {
    const wireId = model.source === undefined ? model.id : `${model.source}:${model.id}`;
    byWireId.set(wireId, model.id);
    entries.set(model.id, {
      id: model.id,
      wireId,
      harness: model.harness,
      quant: model.quant ?? null,
      vramMb: model.vram_mb ?? null,
      minDevices: model.min_devices,
      minDeviceVramMb: model.min_device_vram_mb ?? null,
      pinnedOn: model.pinned_on,
      residencyPriority: model.residency_priority,
      limit: model.limit ?? null,
      cost: model.cost ?? null,
      capabilities: model.capabilities,
    });
  }
  const aliases = new Map(Object.entries(config.aliases));
  return { entries, aliases, canonicalId: (wireId) => byWireId.get(wireId) ?? wireId };
}
