/** The fleet as the admin API shows it. */
import { loadScore } from '../decide/expected-time.ts';
import type { Fleet } from './fleet.ts';
import type { NodeState } from './node-state.ts';
import type { Provider } from './provider.ts';
import { wireWarning } from './wire-warning.ts';

export function describeFleet(fleet: Fleet) {
  const { aliases, strategy } = fleet.view();
  return {
    strategy,
    waiting: fleet.waitingCount,
    aliases: Object.fromEntries(aliases),
    nodes: fleet.nodes().map(describeNode),
    ...(fleet.providers.all.length === 0 ? {} : { providers: fleet.providers.all.map(describeProvider) }),
  };
}

/** Its key is not part of it, only where that comes from. */
function describeProvider(provider: Provider) {
  const { name, kind, url, keyEnv, models } = provider.spec;
  const refusal = provider.refusal(null);
  return {
    ...{ name, kind, url, key_env: keyEnv },
    state: refusal === null ? 'in_service' : 'out_of_service',
    reason: refusal?.reason ?? null,
    in_flight: provider.running,
    models: models.map(({ id, upstream }) => {
      return { id, upstream, unservable: provider.refusal(id)?.reason ?? null };
    }),
  };
}

/**
 * Whether the node takes work. `state`: `in_service`, `cordoned`, `draining` while requests or loads still
 * run, `drained`, or `resting` with an open circuit; `reason` says why there are no new requests.
 */
export function describeService(node: NodeState) {
  const { circuit, refusal } = node.service;
  const loads = node.toView().pending.length;
  return { state: stateOf(node, loads), reason: refusal, circuit, in_flight: node.leaseCount, loads };
}

function stateOf({ service, leaseCount }: NodeState, loads: number): string {
  switch (service.mode) {
    case 'drained':
      return leaseCount + loads > 0 ? 'draining' : 'drained';
    case 'cordoned':
      return 'cordoned';
    case 'open':
      return service.circuit === 'closed' ? 'in_service' : 'resting';
    default:
      return service.mode satisfies never;
  }
}

function describeNode(node: NodeState) {
  const view = node.toView();
  const readings = new Map(node.health?.devices.map((device) => [device.index, device]) ?? []);
  return {
    name: node.name,
    healthy: node.healthy,
    misses: node.misses,
    hostname: node.discovery?.hostname ?? null,
    version: node.discovery?.package_version ?? null,
    wire_version: node.discovery?.wire_version ?? null,
    warnings: [wireWarning(node.discovery)].filter((warning) => warning !== null),
    ...describeService(node),
    harnesses: view.harnesses,
    uptime_secs: node.health?.uptime_secs ?? null,
    load_cycles: node.loadCycles,
    devices: (node.discovery?.devices ?? []).map((device) => {
      const reading = readings.get(device.index);
      return {
        index: device.index,
        name: device.name,
        kind: device.kind,
        vram_total_mb: device.vram_total_mb,
        vram_used_mb: reading?.vram_used_mb ?? null,
        vram_free_mb: reading?.vram_free_mb ?? null,
        utilization_pct: reading?.utilization_pct ?? null,
        temp_c: reading?.temp_c ?? null,
      };
    }),
    models: [...view.models.values()].map((model) => ({
      id: model.id,
      status: model.status,
      devices: model.devices,
      vram_mb: model.vramMb,
      in_flight: model.leases,
      load: loadScore(model),
      draining: model.draining,
      unservable: model.unservable,
      capabilities: model.capabilities,
      limit: model.limit,
    })),
    pending: view.pending,
    loading: node.health?.loading ?? [],
    activation: node.activation,
  };
}
