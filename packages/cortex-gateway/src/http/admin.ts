/**
 * The admin API: loads, nodes, and the fleet as it stands. With admin_keys set a key is needed, else a local
 * client.
 */
import { timingSafeEqual } from 'node:crypto';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import { ConfigError } from 'cortex-core/config/load';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { DefragAnswer } from 'cortex-core/wire/defrag';
import { AppError } from 'cortex-core/wire/errors';
import { z } from 'zod';
import { describePlan, describeReport } from '../fleet/describe-defrag.ts';
import { describeFleet, describeService } from '../fleet/describe-fleet.ts';
import { describeRoute } from '../fleet/describe-route.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { digestOf, keysIn } from '../quota/principals.ts';

export interface AdminDeps {
  readonly fleet: Fleet;
  readonly adminKeys: () => readonly string[];
  /** Reads the configuration files again; null = there are none. */
  readonly onReload: (() => Promise<ReloadReport>) | null;
}

const nodeName = z.string().min(1).max(128);
const targetSchema = z.strictObject({
  model: z.string().min(1).max(512),
  node: nodeName.nullish(),
});
const targetShape = '{"model","node"?}';
const drainSchema = z.strictObject({
  node: nodeName,
  /** Only no more loads: what is loaded goes on serving. */
  cordon: z.boolean().default(false),
  /** Seconds after which requests that still run are cut; null = they may end. */
  deadline: z.number().nonnegative().max(86_400).nullish(),
});
const undrainSchema = z.strictObject({ node: nodeName });

const defragSchema = z.strictObject({
  node: nodeName.nullish(),
  /** Make room for this one. */
  model: z.string().min(1).max(512).nullish(),
  dry_run: z.boolean().default(false),
});

export function adminHandlers(deps: AdminDeps) {
  const { fleet } = deps;
  const guarded = (handler: (exchange: Exchange) => Promise<void> | void) => (exchange: Exchange) => {
    requireAdmin(exchange, deps.adminKeys());
    return handler(exchange);
  };
  return {
    load: guarded(async (exchange) => {
      const { model, node } = await bodyOf(exchange, targetSchema, targetShape);
      const on = await fleet.operations.load(model, node ?? null);
      exchange.sendJson(200, { status: 'loaded', model, node: on });
    }),
    unload: guarded(async (exchange) => {
      const { model, node } = await bodyOf(exchange, targetSchema, targetShape);
      const nodes = await fleet.operations.unload(model, node ?? null);
      exchange.sendJson(200, { status: 'unloaded', model, nodes });
    }),
    cancel: guarded(async (exchange) => {
      const { model, node } = await bodyOf(exchange, targetSchema, targetShape);
      const nodes = await fleet.operations.cancel(model, node ?? null);
      exchange.sendJson(200, { status: 'cancelled', model, nodes });
    }),
    drain: guarded(async (exchange) => {
      const shape = '{"node","cordon"?,"deadline"?}';
      const { node, cordon, deadline } = await bodyOf(exchange, drainSchema, shape);
      if (cordon && deadline != null) {
        throw new AppError('invalid_request', 'deadline: a cordoned node keeps its requests; leave it out', {
          param: 'deadline',
        });
      }
      const deadlineMs = deadline == null ? null : deadline * 1000;
      const state = fleet.operations.drain(node, cordon ? 'cordoned' : 'drained', deadlineMs);
      exchange.sendJson(200, { node, ...describeService(state) });
    }),
    undrain: guarded(async (exchange) => {
      const { node } = await bodyOf(exchange, undrainSchema, '{"node"}');
      exchange.sendJson(200, { node, ...describeService(fleet.operations.undrain(node)) });
    }),
    reload: guarded(async (exchange) => exchange.sendJson(200, await reload(deps))),
    defrag: guarded(async (exchange) => {
      const { node, model, dry_run } = await bodyOf(exchange, defragSchema, '{"node"?,"model"?,"dry_run"?}');
      const nodes = dry_run
        ? fleet.operations.planDefrag(node ?? null, model ?? null).map(describePlan)
        : (await fleet.operations.defrag(node ?? null, model ?? null)).map(describeReport);
      exchange.sendJson(200, { dry_run, nodes } satisfies DefragAnswer);
    }),
    explain: guarded((exchange) => exchange.sendJson(200, describeRoute(fleet, exchange.query))),
    fleet: guarded((exchange) => exchange.sendJson(200, describeFleet(fleet))),
  };
}

async function reload({ onReload }: AdminDeps) {
  if (onReload === null) {
    throw new AppError(
      'not_found',
      'this gateway runs without configuration files; there is nothing to reload',
    );
  }
  try {
    const { changed, needsRestart, notes } = await onReload();
    const status = changed.length > 0 ? 'reloaded' : 'unchanged';
    return { status, changed, needs_restart: needsRestart, notes };
  } catch (thrown) {
    if (!(thrown instanceof ConfigError)) throw thrown;
    const count = thrown.faults.length === 1 ? 'a fault' : `${thrown.faults.length} faults`;
    const message = `the configuration has ${count} and nothing was changed:\n${thrown.message}`;
    throw new AppError('invalid_configuration', message, { extras: { faults: thrown.faults } });
  }
}

async function bodyOf<S extends z.ZodType>(
  exchange: Exchange,
  schema: S,
  shape: string,
): Promise<z.output<S>> {
  const parsed = schema.safeParse(await exchange.json());
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const param = issue?.path.join('.') ?? '';
  throw new AppError('invalid_request', `${param || 'body'}: ${issue?.message}; send ${shape}`, {
    ...(param === '' ? {} : { param }),
  });
}

/** Throws `model_not_allowed` or `invalid_api_key`. */
export function requireAdmin(exchange: Exchange, adminKeys: readonly string[]): void {
  if (adminKeys.length === 0) {
    if (isLocal(exchange)) return;
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

/**
 * A page in a browser of this machine, and whoever a proxy on it lets in, come from loopback too: the first
 * names its origin, the second the address that it forwards for, or asks for another host.
 */
function isLocal(exchange: Exchange): boolean {
  const isRelayed = ['origin', 'forwarded', 'x-forwarded-for', 'x-real-ip'].some(
    (name) => exchange.header(name) !== null,
  );
  const host = (exchange.header('host') ?? '').replace(/:\d+$/, '');
  const isLocalName = host === 'localhost' || host === '[::1]' || /^127\./.test(host);
  return isLoopback(exchange.request.socket.remoteAddress) && !isRelayed && isLocalName;
}

function isLoopback(address: string | undefined): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address ?? '');
}
