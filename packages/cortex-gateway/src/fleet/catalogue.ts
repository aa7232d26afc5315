/** models.toml as decisions see it, and which of its entries a neuron's model id means. */
import type { ModelsConfig } from 'cortex-core/config/models-config';
import { type CatalogueEntry, findPattern } from '../decide/fleet-view.ts';

/** Fields of a request that an alias sets where the request does not. */
export type AliasOptions = Readonly<Record<string, unknown>>;

export interface Catalogue {
  readonly entries: ReadonlyMap<string, CatalogueEntry>;
  readonly aliases: ReadonlyMap<string, string>;
  /** By alias; only those that carry options. */
  readonly aliasOptions: ReadonlyMap<string, AliasOptions>;
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
  const aliases = new Map<string, string>();
  const aliasOptions = new Map<string, AliasOptions>();
  for (const [name, alias] of Object.entries(config.aliases)) {
    aliases.set(name, typeof alias === 'string' ? alias : alias.model);
    if (typeof alias !== 'string' && Object.keys(alias.options).length > 0) {
      aliasOptions.set(name, alias.options);
    }
  }
  return { entries, aliases, aliasOptions, canonicalId: (wireId) => byWireId.get(wireId) ?? wireId };
}

/** What the alias says that made `model` of `requested`; null = nothing, or none did. */
export function aliasOptionsOf(
  { aliases, aliasOptions }: Catalogue,
  requested: string,
  model: string,
): AliasOptions | null {
  if (requested === model || aliases.has(requested)) return aliasOptions.get(requested) ?? null;
  const pattern = findPattern(aliases, requested);
  return pattern === null ? null : (aliasOptions.get(pattern) ?? null);
}

/** Aliases that may not do what was meant, each with a sentence. */
export function doubtfulAliases({ entries, aliases }: Catalogue): ReadonlyMap<string, string> {
  const doubtful = new Map<string, string>();
  for (const [alias, target] of aliases) {
    if (entries.has(alias)) doubtful.set(alias, 'hides the model of the same name');
    else if (aliases.has(target)) doubtful.set(alias, `names the alias "${target}", which is not followed`);
    else if (!entries.has(target)) {
      doubtful.set(
        alias,
        `names "${target}", which is not in the catalogue: only a neuron that has it serves it`,
      );
    }
  }
  return doubtful;
}
