/** The gateway, put together in the order a request meets it. */
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { parseListen } from 'cortex-core/config/fields';
import type { ModelsConfig } from 'cortex-core/config/models-config';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { HttpServer } from 'cortex-core/daemon/http-server';
import type { Log } from 'cortex-core/daemon/log';
import { toCatalogue } from './fleet/catalogue.ts';
import { Fleet } from './fleet/fleet.ts';
import { toTtl } from './fleet/idle-unloads.ts';
import { NodeState } from './fleet/node-state.ts';
import { allowBrowsers } from './http/cors.ts';
import type { InferenceDeps } from './http/inference.ts';
import { GatewayMetrics } from './http/metrics.ts';
import { envelopeOf, gatewayRoutes } from './http/routes.ts';
import { Ledger } from './quota/ledger.ts';
import { Principals } from './quota/principals.ts';
import { NeuronClient } from './upstream/neuron-client.ts';

export interface GatewayDeps {
  readonly log: Log;
  readonly clock?: Clock;
}

export interface Gateway {
  readonly port: number;
  /** Where a client on this machine reaches it, e.g. `http://127.0.0.1:31313`. */
  readonly url: string;
  readonly metricsPort: number;
  readonly fleet: Fleet;
  /** Stops accepting, lets running answers end for up to 5 s. Idempotent. */
  close(): Promise<void>;
}

const closeGraceMs = 4500;

/** Resolves when it listens and every neuron was asked once. */
export async function startGateway(
  config: CortexConfig,
  modelsConfig: ModelsConfig,
  { log, clock = systemClock }: GatewayDeps,
): Promise<Gateway> {
  const metrics = new GatewayMetrics();
  const fleet = createFleet(config, modelsConfig, metrics, log, clock);
  metrics.watch(fleet);
  const closing = new AbortController();
  const server = createApiServer(config, fleet, metrics, log, clock, closing.signal);
  const metricsServer = createMetricsServer(metrics, log);
  const api = addressOf(config.gateway.listen);
  const scrape = addressOf(config.gateway.metrics_listen);
  const close = async (): Promise<void> => {
    // what waits for a load is refused now; what streams may end
    closing.abort();
    const waiting = server.close(closeGraceMs);
    fleet.stop();
    await Promise.all([waiting, metricsServer.close(0)]);
    await fleet.close();
  };
  try {
    const port = await server.listen(api.host, api.port);
    const metricsPort = await metricsServer.listen(scrape.host, scrape.port);
    await fleet.start();
    log.info('gateway listens', { host: api.host, port, metrics_port: metricsPort });
    return { port, url: urlOf(api.host, port), metricsPort, fleet, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

function createFleet(
  config: CortexConfig,
  modelsConfig: ModelsConfig,
  metrics: GatewayMetrics,
  log: Log,
  clock: Clock,
): Fleet {
  const catalogue = toCatalogue(modelsConfig);
  for (const [alias, target] of catalogue.aliases) {
    if (!catalogue.entries.has(target))
      log.warn('alias of a model that is not in the catalogue', { alias, target });
  }
  const { gateway, eviction, queue, neurons } = config;
  const key = gateway.neuron_key ?? null;
  return new Fleet({
    nodes: neurons.map(({ name, endpoint }) => {
      return new NodeState(name, new NeuronClient({ name, endpoint, key, clock }), catalogue);
    }),
    catalogue,
    strategy: eviction.strategy,
    clock,
    log,
    pollIntervalMs: gateway.poll_interval_secs * 1000,
    pollTimeoutMs: gateway.poll_timeout_secs * 1000,
    missesMax: gateway.unhealthy_after_misses,
    loadTimeoutMs: gateway.load_timeout_secs * 1000,
    waitersMax: gateway.max_waiting_requests,
    turns: {
      maxWaitMs: queue.max_wait_secs * 1000,
      residencyFactor: queue.min_residency_factor,
      residencyMaxMs: queue.min_residency_max_secs * 1000,
    },
    drain: { timeoutMs: eviction.drain_timeout_secs * 1000, cutAfter: eviction.cut_after_drain },
    ttlMs: toTtl(modelsConfig, eviction.idle_ttl_secs),
    onEvent: (event) => metrics.onFleetEvent(event),
  });
}

function createApiServer(
  config: CortexConfig,
  fleet: Fleet,
  metrics: GatewayMetrics,
  log: Log,
  clock: Clock,
  closing: AbortSignal,
): HttpServer {
  const { gateway, entitlements } = config;
  const inference: InferenceDeps = {
    fleet,
    clock,
    principals: new Principals(entitlements),
    ledger: new Ledger(clock),
    metrics,
    idleMs: gateway.upstream_idle_timeout_secs * 1000,
    coldLoadWaitMs: gateway.cold_load_wait_secs * 1000,
    keepAliveMs: gateway.keepalive_secs * 1000,
  };
  return new HttpServer({
    routes: gatewayRoutes({
      inference,
      admin: { fleet, adminKeys: gateway.admin_keys },
      createdSecs: Math.floor(clock.now() / 1000),
    }),
    log,
    bodyBytesMax: gateway.max_body_mb * 1024 * 1024,
    authorize: allowBrowsers,
    envelopeOf,
    onEnd: (exchange, status, durationMs) => {
      // a kept-alive connection would hold the close back
      if (closing.aborted) exchange.request.socket.end();
      log.debug('request', {
        request_id: exchange.requestId,
        method: exchange.request.method,
        path: exchange.path,
        status,
        ms: Math.round(durationMs),
        route: exchange.response.getHeader('x-cortex-route'),
      });
    },
  });
}

function createMetricsServer({ registry }: GatewayMetrics, log: Log): HttpServer {
  return new HttpServer({
    routes: [
      {
        method: 'GET',
        path: '/metrics',
        handler: async (exchange) => exchange.sendText(200, await registry.metrics(), registry.contentType),
      },
    ],
    log,
    bodyBytesMax: 1024,
    envelopeOf: () => 'openai',
  });
}

function addressOf(listen: string): { readonly host: string; readonly port: number } {
  const address = parseListen(listen);
  if (address === null) throw new Error(`"${listen}" is not an address to listen on; use host:port`);
  return address;
}

function urlOf(host: string, port: number): string {
  if (host === '0.0.0.0') return `http://127.0.0.1:${port}`;
  if (host === '::') return `http://[::1]:${port}`;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
