/**
 * The admin API: load, unload, and the fleet as it stands. With admin_keys set a key is needed, else a
 * local client.
 */
import { timingSafeEqual } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { z } from 'zod';
import { loadScore } from '../decide/route.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { NodeState } from '../fleet/node-state.ts';
import { digestOf, keysIn } from '../quota/principals.ts';

export interface AdminDeps {
  readonly fleet: Fleet;
  readonly adminKeys: readonly string[];
}

const targetSchema = z.strictObject({
  model: z.string().min(1).max(512),
  node: z.string().min(1).max(128).nullish(),
});

export function adminHandlers(deps: AdminDeps) {
  const guarded = (handler: (exchange: Exchange) => Promise<void> | void) => (exchange: Exchange) => {
    requireAdmin(exchange, deps.adminKeys);
    return handler(exchange);
  };
  return {
    load: guarded(async (exchange) => {
      const { model, node } = await targetOf(exchange);
      const on = await deps.fleet.load(model, node ?? null);
      exchange.sendJson(200, { status: 'loaded', model, node: on });
    }),
    unload: guarded(async (exchange) => {
      const { model, node } = await targetOf(exchange);
      const nodes = await deps.fleet.unload(model, node ?? null);
      exchange.sendJson(200, { status: 'unloaded', model, nodes });
    }),
    fleet: guarded((exchange) => exchange.sendJson(200, describeFleet(deps.fleet))),
  };
}

async function targetOf(exchange: Exchange): Promise<z.output<typeof targetSchema>> {
  const parsed = targetSchema.safeParse(await exchange.json());
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new AppError(
    'invalid_request',
    `${issue?.path.join('.') || 'body'}: ${issue?.message}; send {"model","node"?}`,
  );
}

function requireAdmin(exchange: Exchange, adminKeys: readonly string[]): void {
  if (adminKeys.length === 0) {
    if (isLoopback(exchange.request.socket.remoteAddress)) return;
    throw new AppError(
      'model_not_allowed',
      'the admin API is for local clients only; set gateway.admin_keys',
    );
  }
  const given = keysIn(exchange.header('authorization'), exchange.header('x-api-key'));
  if (given.some((key) => adminKeys.some((known) => sameKey(key, known)))) return;
  throw new AppError('invalid_api_key', 'the admin API needs one of gateway.admin_keys as a Bearer token');
}

function sameKey(a: string, b: string): boolean {
  return timingSafeEqual(Buffer.from(digestOf(a)), Buffer.from(digestOf(b)));
}

function isLoopback(address: string | undefined): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address ?? '');
}

function describeFleet(fleet: Fleet) {
  const { aliases, strategy } = fleet.view();
  return {
    strategy,
    waiting: fleet.waitingCount,
    aliases: Object.fromEntries(aliases),
    nodes: fleet.nodes().map(describeNode),
  };
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
