/**
 * The admin API: load, unload, and the fleet as it stands. With admin_keys set a key is needed, else a
 * local client.
 */
import { timingSafeEqual } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { DefragAnswer } from 'cortex-core/wire/defrag';
import { AppError } from 'cortex-core/wire/errors';
import { z } from 'zod';
import { describePlan, describeReport } from '../fleet/describe-defrag.ts';
import { describeFleet } from '../fleet/describe-fleet.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { digestOf, keysIn } from '../quota/principals.ts';

export interface AdminDeps {
  readonly fleet: Fleet;
  readonly adminKeys: readonly string[];
}

const targetSchema = z.strictObject({
  model: z.string().min(1).max(512),
  node: z.string().min(1).max(128).nullish(),
});

const defragSchema = z.strictObject({
  node: z.string().min(1).max(128).nullish(),
  /** Make room for this one. */
  model: z.string().min(1).max(512).nullish(),
  dry_run: z.boolean().default(false),
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
    defrag: guarded(async (exchange) => {
      const { node, model, dry_run } = await bodyOf(exchange, defragSchema, '{"node"?,"model"?,"dry_run"?}');
      const nodes = dry_run
        ? deps.fleet.planDefrag(node ?? null, model ?? null).map(describePlan)
        : (await deps.fleet.defrag(node ?? null, model ?? null)).map(describeReport);
      exchange.sendJson(200, { dry_run, nodes } satisfies DefragAnswer);
    }),
    fleet: guarded((exchange) => exchange.sendJson(200, describeFleet(deps.fleet))),
  };
}

function targetOf(exchange: Exchange): Promise<z.output<typeof targetSchema>> {
  return bodyOf(exchange, targetSchema, '{"model","node"?}');
}

async function bodyOf<T extends z.ZodType>(
  exchange: Exchange,
  schema: T,
  shape: string,
): Promise<z.output<T>> {
  const parsed = schema.safeParse(await exchange.json());
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new AppError(
    'invalid_request',
    `${issue?.path.join('.') || 'body'}: ${issue?.message}; send ${shape}`,
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
