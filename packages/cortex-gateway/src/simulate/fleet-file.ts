/** fleet.toml as the simulation takes it, and a generated scenario as fleet.toml. */
import { type CatalogueEntry, defaultPriority, pinnedPriority } from '../decide/fleet-view.ts';
import type { TurnRules } from '../decide/turns.ts';
import { entryOf, nodesOf, type Scenario } from './scenario.ts';
import type { SimFleetSpec } from './sim-fleet.ts';

/** What the file holds, defaults filled in. */
export interface FleetFile {
  readonly unload_secs: number;
  readonly max_wait_secs: number;
  readonly min_residency_factor: number;
  readonly min_residency_max_secs: number;
  readonly nodes: readonly {
    readonly name: string;
    readonly count: number;
    readonly device_mb: readonly number[];
    readonly load_mb_per_sec: number;
    readonly prefill_tokens_per_sec: number;
    readonly decode_tokens_per_sec: number;
    readonly slots: number;
  }[];
  readonly models: readonly {
    readonly id: string;
    readonly vram_mb: number;
    readonly min_devices: number;
    readonly pinned_on: readonly string[];
    readonly residency_priority?: number | undefined;
  }[];
}

export function fromFleetFile(file: FleetFile): { readonly fleet: SimFleetSpec; readonly rules: TurnRules } {
  return {
    fleet: {
      nodes: file.nodes.flatMap((node) =>
        nodesOf(node.name, node.count, {
          devicesMb: node.device_mb,
          loadMbPerSec: node.load_mb_per_sec,
          prefillTokensPerSec: node.prefill_tokens_per_sec,
          decodeTokensPerSec: node.decode_tokens_per_sec,
          slots: node.slots,
        }),
      ),
      models: file.models.map((model) => {
        const { residency_priority: rank, pinned_on: pinnedOn } = model;
        const residencyPriority = rank ?? (pinnedOn.length > 0 ? pinnedPriority : defaultPriority);
        const more: Partial<CatalogueEntry> = { minDevices: model.min_devices, pinnedOn, residencyPriority };
        return entryOf(model.id, model.vram_mb, more);
      }),
      unloadMs: file.unload_secs * 1000,
    },
    rules: {
      maxWaitMs: file.max_wait_secs * 1000,
      residencyFactor: file.min_residency_factor,
      residencyMaxMs: file.min_residency_max_secs * 1000,
    },
  };
}

/** The scenario's machines and models; the rules stay at their defaults. */
export function formatFleetFile({ nodes, models }: Scenario): string {
  const tables = [
    ...nodes.map((node) =>
      [
        '[[nodes]]',
        `name = ${JSON.stringify(node.name)}`,
        `device_mb = ${JSON.stringify(node.devicesMb)}`,
        `load_mb_per_sec = ${node.loadMbPerSec}`,
        `prefill_tokens_per_sec = ${node.prefillTokensPerSec}`,
        `decode_tokens_per_sec = ${node.decodeTokensPerSec}`,
        `slots = ${node.slots}`,
      ].join('\n'),
    ),
    ...models.map((model) => `[[models]]\nid = ${JSON.stringify(model.id)}\nvram_mb = ${model.vramMb ?? 0}`),
  ];
  return `${tables.join('\n\n')}\n`;
}
