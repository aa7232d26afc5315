/** The gateway, put together in the order a request meets it. */
import { join } from 'node:path';
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import { parseListen } from 'cortex-core/config/fields';
import type { ModelsConfig } from 'cortex-core/config/models-config';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { HttpServer } from 'cortex-core/daemon/http-server';
import type { Log } from 'cortex-core/daemon/log';
import { RateBook } from './decide/rate-book.ts';
import { doubtfulAliases, toCatalogue } from './fleet/catalogue.ts';
import { Fleet } from './fleet/fleet.ts';
import type { FleetSettings } from './fleet/fleet-options.ts';
import { toTtl } from './fleet/idle-unloads.ts';
import { RatesFile } from './fleet/rates-file.ts';
import { Attachments } from './http/attachments.ts';
import { type BackgroundLimits, BackgroundRuns } from './http/background-runs.ts';
import { allowBrowsers } from './http/cors.ts';
import type { FailoverSettings, InferenceDeps } from './http/inference-deps.ts';
import { GatewayMetrics } from './http/metrics.ts';
import { ResponseStore } from './http/response-store.ts';
import { RetryBudget } from './http/retry-budget.ts';
import { envelopeOf, gatewayRoutes } from './http/routes.ts';
import { StreamChecks } from './http/stream-checks.ts';
import { LiveConfig } from './live-config.ts';
import { toProviderDeps, toProviderSpec } from './provider-parts.ts';
import { Ledger } from './quota/ledger.ts';
import { Principals } from './quota/principals.ts';
import { NeuronClient } from './upstream/neuron-client.ts';

export interface GatewayDeps {
  readonly log: Log;
  readonly clock?: Clock;
  /** What POST /admin/reload does: reads the files again and hands them to `reload`. */
  readonly onReload?: () => Promise<ReloadReport>;
  /** Where the keys of providers stand; those of the process when absent. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Gateway {
  readonly port: number;
  /** Where a client on this machine reaches it, e.g. `http://127.0.0.1:31313`. */
  readonly url: string;
  readonly metricsPort: number;
  readonly fleet: Fleet;
  /**
   * New configuration, without disturbing a request; what needs a restart is left and told. Resolves when
   * nodes that are new were asked once.
   */
  reload(config: CortexConfig, modelsConfig: ModelsConfig): Promise<ReloadReport>;
  /** Stops accepting, lets running answers end for up to 5 s. Idempotent. */
  close(): Promise<void>;
}

const closeGraceMs = 4500;

/** Resolves when it listens and every neuron was asked once. */
export async function startGateway(
  config: CortexConfig,
  modelsConfig: ModelsConfig,
  { log, clock = systemClock, onReload, env = process.env }: GatewayDeps,
): Promise<Gateway> {
  const live = new LiveConfig(config, modelsConfig);
  const metrics = new GatewayMetrics();
  const rates = new RateBook();
  const file = config.state_dir === undefined ? null : join(config.state_dir, 'rates.json');
  const ratesFile = new RatesFile({ file, rates, clock, log });
  await ratesFile.open();
  const fleet = createFleet(live, { metrics, log, clock, rates, env });
  metrics.watch(fleet);
  const closing = new AbortController();
  const principals = new Principals(config.entitlements);
  const parts: Parts = { live, fleet, metrics, principals, log, clock, onReload: onReload ?? null };
  const { server, background } = createApi(parts, closing.signal);
  const metricsServer = createMetricsServer(metrics, log);
  const api = addressOf(config.gateway.listen);
  const scrape = addressOf(config.gateway.metrics_listen);
  const reload = async (nextConfig: CortexConfig, nextModels: ModelsConfig): Promise<ReloadReport> => {
    const report = live.replace(nextConfig, nextModels);
    if (report.changed.length === 0) return report;
    principals.replace(live.config.entitlements);
    await fleet.reconfigure(toFleetSettings(live, log));
    return report;
  };
  const close = async (): Promise<void> => {
    // what waits for a load is refused now; what streams may end
    closing.abort();
    const waiting = server.close(closeGraceMs);
    fleet.stop();
    await Promise.all([waiting, metricsServer.close(0)]);
    await background.close();
    await fleet.close();
    await ratesFile.close();
  };
  try {
    const port = await server.listen(api.host, api.port);
    const metricsPort = await metricsServer.listen(scrape.host, scrape.port);
    await fleet.start();
    log.info('gateway listens', { host: api.host, port, metrics_port: metricsPort });
    return { port, url: urlOf(api.host, port), metricsPort, fleet, reload, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

interface Parts {
  readonly live: LiveConfig;
  readonly fleet: Fleet;
  readonly metrics: GatewayMetrics;
  readonly principals: Principals;
  readonly log: Log;
  readonly clock: Clock;
  readonly onReload: (() => Promise<ReloadReport>) | null;
}

interface FleetParts {
  readonly metrics: GatewayMetrics;
  readonly log: Log;
  readonly clock: Clock;
  readonly rates: RateBook;
  readonly env: Readonly<Record<string, string | undefined>>;
}

function createFleet(live: LiveConfig, { metrics, log, clock, rates, env }: FleetParts): Fleet {
  const key = (): string | null => live.config.gateway.neuron_key ?? null;
  return new Fleet({
    settings: toFleetSettings(live, log),
    connect: ({ name, endpoint }) => new NeuronClient({ name, endpoint, key, clock }),
    clock,
    log,
    rates,
    providerDeps: toProviderDeps(env, clock),
    onEvent: (event) => metrics.onFleetEvent(event),
  });
}

function toFleetSettings({ config, models }: LiveConfig, log: Log): FleetSettings {
  const catalogue = toCatalogue(models);
  for (const [alias, doubt] of doubtfulAliases(catalogue)) log.warn(`the alias ${doubt}`, { alias });
  const { gateway, eviction, queue, neurons, providers } = config;
  return {
    nodes: neurons,
    catalogue,
    providers: providers.map(toProviderSpec),
    strategy: eviction.strategy,
    pollIntervalMs: gateway.poll_interval_secs * 1000,
    pollTimeoutMs: gateway.poll_timeout_secs * 1000,
    missesMax: gateway.unhealthy_after_misses,
    failuresMax: gateway.rest_after_failures,
    defragAfterCycles: eviction.defrag_after_cycles,
    loadTimeoutMs: gateway.load_timeout_secs * 1000,
    waitersMax: gateway.max_waiting_requests,
    turns: {
      maxWaitMs: queue.max_wait_secs * 1000,
      residencyFactor: queue.min_residency_factor,
      residencyMaxMs: queue.min_residency_max_secs * 1000,
    },
    drain: { timeoutMs: eviction.drain_timeout_secs * 1000, cutAfter: eviction.cut_after_drain },
    ttlMs: toTtl(models, eviction.idle_ttl_secs),
  };
}

interface Api {
  readonly server: HttpServer;
  readonly background: BackgroundRuns;
}

/** Limits and keys are read at each use, so that a reload changes them. */
function createApi(parts: Parts, closing: AbortSignal): Api {
  const { live, fleet, metrics, principals, log, clock, onReload } = parts;
  const { failover } = live.config;
  const inference: InferenceDeps = {
    fleet,
    clock,
    log,
    principals,
    ledger: new Ledger(clock),
    metrics,
    get idleMs() {
      return live.config.gateway.upstream_idle_timeout_secs * 1000;
    },
    get coldLoadWaitMs() {
      return live.config.gateway.cold_load_wait_secs * 1000;
    },
    get keepAliveMs() {
      return live.config.gateway.keepalive_secs * 1000;
    },
    get prefixHygiene() {
      return live.config.gateway.prefix_hygiene;
    },
    streamChecks: new StreamChecks({
      ...{ every: live.config.gateway.stream_check_every, log },
      onFault: (dialect, rule) => metrics.onProtocolError(dialect, rule),
    }),
    failover: failoverSettings(live, clock),
    attachments: new Attachments({
      answerBytesMax: failover.attach_mb * 1024 * 1024,
      totalBytesMax: failover.attach_total_mb * 1024 * 1024,
    }),
  };
  const background = new BackgroundRuns(inference, backgroundLimits(live.config));
  const server = new HttpServer({
    routes: gatewayRoutes({
      inference,
      background,
      responses: responseStore(live.config, clock),
      admin: { fleet, adminKeys: () => live.config.gateway.admin_keys, onReload },
      createdSecs: Math.floor(clock.now() / 1000),
    }),
    log,
    get bodyBytesMax() {
      return live.config.gateway.max_body_mb * 1024 * 1024;
    },
    prepare: allowBrowsers,
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
  return { server, background };
}

function failoverSettings(live: LiveConfig, clock: Clock): FailoverSettings {
  const { budget_burst: burst, budget_ratio: ratio } = live.config.failover;
  return {
    budget: new RetryBudget({ clock, burst, ratio }),
    get attemptsMax() {
      return live.config.failover.attempts;
    },
    get giveUpMs() {
      return live.config.failover.give_up_secs * 1000;
    },
    get continues() {
      return live.config.failover.continue_streams;
    },
  };
}

/** The logs of all runs together take no more than the store. */
function backgroundLimits({ responses }: CortexConfig): BackgroundLimits {
  const { max_background: runsMax, max_mb: mbMax } = responses;
  return { runsMax, eventCharsMax: Math.floor((mbMax * 1024 * 1024) / Math.max(1, runsMax)) };
}

function responseStore({ responses }: CortexConfig, clock: Clock): ResponseStore {
  const { max_entries: entriesMax, max_mb: mbMax, keep_secs: secsMax } = responses;
  return new ResponseStore({ entriesMax, bytesMax: mbMax * 1024 * 1024, ageMsMax: secsMax * 1000 }, clock);
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
