/**
 * `cortex up`: a gateway in this process and a neuron in a child, until a signal.
 *
 * Order: configuration, child, gateway, models, then the address. A fault on the way stops what was started
 * and is told in one line; from the address on, a child that dies is started again and the gateway stays.
 */
import { createWriteStream, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { createLog, type LeveledLog } from 'cortex-core/daemon/log';
import { discoverySchema, healthSchema, type NeuronHealth } from 'cortex-core/wire/neuron';
import type { Gateway } from 'cortex-gateway/gateway';
import { CliError } from './cli-error.ts';
import { ConfigReloader } from './config-reloader.ts';
import { FileWatch, signFiles } from './file-watch.ts';
import { GatewayClient } from './gateway-client.ts';
import { type NeuronAddress, type NeuronDeath, NeuronProcess } from './neuron-process.ts';
import { ProgressDisplay } from './progress.ts';
import { stateDir } from './state-dir.ts';
import { isDaemon, listenForStop } from './stop-signals.ts';
import { distDir, type Terminal } from './terminal.ts';
import { formatDuration, toPrintable } from './text.ts';
import { buildUpConfig, type UpConfig, type UpOptions, withLocalNeuron } from './up-config.ts';
import { renderFact, renderMachine, renderReady, toConnectUrl } from './up-text.ts';
import { readVersion } from './version.ts';

/** Everything must be gone 5 s after Ctrl-C; the child is killed after 3. */
const STOP_MS_MAX = 4500;
const LOAD_POLL_MS = 100;
const GATEWAY_SEES_MODEL_MS_MAX = 3000;

export async function runUp(terminal: Terminal, options: UpOptions): Promise<void> {
  const { cwd, env } = terminal;
  const up = new Up(
    terminal,
    () => buildUpConfig(options, { cwd, env, installedAt: distDir }),
    stateDir(env),
  );
  const stop = new AbortController();
  process.once('exit', () => up.kill());
  const forget = listenForStop(process, systemClock, {
    onFirst: () => {
      terminal.stdout.write(`${terminal.stdout.isTTY === true ? '\r' : ''}stopping ...\n`);
      stop.abort();
    },
    onSecond: () => process.exit(130),
    ...(isDaemon(terminal) ? { onHangup: () => up.reloadOr(() => stop.abort()) } : {}),
  });
  try {
    await Promise.race([up.run(), aborted(stop.signal)]);
  } finally {
    await up.close();
    forget();
  }
  terminal.stdout.write('stopped\n');
}

class Up {
  readonly #terminal: Terminal;
  readonly #build: () => UpConfig;
  readonly #logDir: string;
  readonly #neuron: NeuronProcess;
  readonly #progress: ProgressDisplay;
  readonly #closing = new AbortController();
  readonly #filesAtStart: string;
  #config: UpConfig;
  #gateway: Gateway | null = null;
  #reloader: ConfigReloader | null = null;
  #watch: FileWatch | null = null;
  #isUp = false;
  /** Set by a child that died before the address was out. */
  #earlyDeath: NeuronDeath | null = null;

  constructor(terminal: Terminal, build: () => UpConfig, logDir: string) {
    this.#terminal = terminal;
    this.#build = build;
    const config = build();
    this.#config = config;
    this.#filesAtStart = signFiles(config.files);
    this.#logDir = logDir;
    this.#progress = new ProgressDisplay(terminal.stdout, '  ');
    this.#neuron = new NeuronProcess({
      entry: join(distDir, 'neuron-main.js'),
      config: config.neuron,
      logFile: join(logDir, 'neuron.log'),
      clock: systemClock,
      onDeath: (death) => this.#tellDeath(death),
      onRestart: (address) => this.#say(renderFact('neuron', `back on ${address.url}`, terminal.style)),
    });
  }

  /** Never resolves while all is well; rejects when it cannot come up. */
  async run(): Promise<never> {
    const { style } = this.#terminal;
    this.#say(`${style.bold('cortex')} ${readVersion().version}`);
    // The gateway's code is read while the child starts.
    const [address, { startGateway }] = await Promise.all([
      this.#neuron.start().catch(withPortHint('--neuron-port')),
      import('cortex-gateway/gateway'),
    ]);
    if (this.#closing.signal.aborted) return new Promise(() => {});
    const neuron = this.#neuronClient(address);
    const machine = discoverySchema.parse(await neuron.get('/discovery'));
    for (const line of renderMachine(machine, await readHealth(neuron), style)) this.#say(line);
    const gateway = await this.#startGateway(address, startGateway);
    const loaded = await this.#awaitModels(neuron);
    await this.#awaitGatewaySeesModels(gateway, loaded);
    this.#isUp = true;
    const ready = {
      url: toConnectUrl(gateway.url),
      metricsUrl: toMetricsUrl(gateway),
      neuronUrl: address.url,
      model: this.#config.required[0] ?? loaded[0] ?? null,
      needsKey: this.#config.gateway.entitlements.require_auth,
      logDir: this.#logDir,
    };
    for (const line of renderReady(ready, style)) this.#say(line);
    return new Promise(() => {});
  }

  /** Once it is up it reads its files again; before that, `otherwise`. */
  reloadOr(otherwise: () => void): void {
    if (this.#isUp && this.#reloader !== null) this.#reloader.trigger('signal');
    else otherwise();
  }

  /** Idempotent; takes at most STOP_MS_MAX. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#watch?.close();
    this.#progress.clear();
    const work = Promise.allSettled([this.#gateway?.close(), this.#neuron.close()]);
    const deadline = new AbortController();
    await Promise.race([work, systemClock.sleep(STOP_MS_MAX, deadline.signal).catch(() => {})]);
    deadline.abort();
    this.#neuron.kill();
  }

  kill(): void {
    this.#neuron.kill();
  }

  async #startGateway(address: NeuronAddress, start: StartGateway): Promise<Gateway> {
    mkdirSync(this.#logDir, { recursive: true });
    const stream = createWriteStream(join(this.#logDir, 'gateway.log'), { flags: 'a', mode: 0o600 });
    // A log that cannot be written is no reason to end the service.
    stream.on('error', () => {});
    const config = withLocalNeuron(this.#config.gateway, address.url);
    const log = createLog(config.log.level, { write: (line) => void stream.write(line) });
    const reloader = new ConfigReloader({ log, apply: () => this.#reload(address, log) });
    const onReload = (): Promise<ReloadReport> => reloader.reload('request');
    const gateway = await start(config, this.#config.models, { log, onReload }).catch(
      withPortHint('--port or --metrics-port'),
    );
    this.#gateway = gateway;
    this.#reloader = reloader;
    this.#watch = new FileWatch({
      clock: systemClock,
      paths: () => this.#config.files,
      since: this.#filesAtStart,
      isOn: () => this.#config.gateway.gateway.watch_config,
      onChange: () => reloader.trigger('file'),
    });
    // A stop that came meanwhile has not seen it.
    if (this.#closing.signal.aborted) await gateway.close();
    return gateway;
  }

  /** Gateway and neuron read again what they were started with; nothing changes when one has a fault. */
  async #reload(address: NeuronAddress, log: LeveledLog): Promise<ReloadReport> {
    const { stderr, errorStyle, style } = this.#terminal;
    try {
      const next = this.#build();
      const ofGateway = await this.#gateway?.reload(withLocalNeuron(next.gateway, address.url), next.models);
      log.setLevel(next.gateway.log.level);
      const ofNeuron = await this.#neuron.reload(next.neuron);
      this.#config = next;
      const report = joinReports(ofGateway ?? null, ofNeuron);
      for (const line of report.changed) this.#say(renderFact('reloaded', toPrintable(line), style));
      for (const line of report.needsRestart) {
        this.#say(renderFact('restart', style.yellow(`${toPrintable(line)} needs a restart`), style));
      }
      return report;
    } catch (thrown) {
      const faults = (thrown instanceof Error ? thrown.message : String(thrown)).split('\n').map(toPrintable);
      stderr.write(`${errorStyle.yellow('configuration not reloaded, nothing was changed')}\n`);
      for (const line of faults) stderr.write(`  ${line}\n`);
      throw thrown;
    }
  }

  /** The models that are loaded, once every load has ended; throws when a required one is not. */
  async #awaitModels(neuron: GatewayClient): Promise<readonly string[]> {
    const startedMs = systemClock.monotonicMs();
    const told = new Set<string>();
    for (;;) {
      if (this.#earlyDeath !== null) throw toDeathError(this.#earlyDeath, this.#logDir);
      const health = await readHealth(neuron).catch(() => null);
      if (health !== null) {
        this.#showLoads(health, told, startedMs);
        if (health.activation.state === 'ready') return health.activation.completed;
      }
      await systemClock.sleep(LOAD_POLL_MS, this.#closing.signal);
    }
  }

  #showLoads(health: NeuronHealth, told: Set<string>, startedMs: number): void {
    const { style } = this.#terminal;
    const { completed, failed } = health.activation;
    for (const id of completed) {
      if (told.has(id)) continue;
      told.add(id);
      const took = formatDuration(systemClock.monotonicMs() - startedMs);
      this.#say(renderFact('loaded', `${toPrintable(id)} ${style.dim(`in ${took}`)}`, style));
    }
    for (const { model_id: id, error } of failed) {
      if (told.has(id)) continue;
      told.add(id);
      const line = `model ${toPrintable(id)} is not loaded: ${toPrintable(error)}`;
      if (this.#config.required.includes(id)) throw new CliError(line);
      this.#say(renderFact('failed', style.yellow(line), style));
    }
    for (const progress of health.loading) this.#progress.show(progress);
  }

  /** The gateway's next poll: before it, the pasted curl line could meet a gateway that knows no model. */
  async #awaitGatewaySeesModels(gateway: Gateway, ids: readonly string[]): Promise<void> {
    const client = new GatewayClient({ endpoint: toConnectUrl(gateway.url) });
    const untilMs = systemClock.monotonicMs() + GATEWAY_SEES_MODEL_MS_MAX;
    while (systemClock.monotonicMs() < untilMs) {
      const list = (await client.get('/v1/models').catch(() => null)) as ModelList | null;
      // It wants a key: it cannot be asked, and need not be.
      if (list === null) return;
      const loaded = list.data.filter((model) => model.loaded).map((model) => model.id);
      if (ids.every((id) => loaded.includes(id))) return;
      await systemClock.sleep(LOAD_POLL_MS, this.#closing.signal);
    }
  }

  #neuronClient(address: NeuronAddress): GatewayClient {
    return new GatewayClient({ endpoint: address.url, apiKey: this.#config.neuron.key });
  }

  #tellDeath(death: NeuronDeath): void {
    if (!this.#isUp) {
      this.#earlyDeath = death;
      return;
    }
    const { stderr, errorStyle } = this.#terminal;
    const wait = formatDuration(death.restartInMs);
    stderr.write(`${errorStyle.yellow(`the neuron ended (${death.cause}); starting it again in ${wait}`)}\n`);
    for (const line of death.logTail) stderr.write(`  ${errorStyle.dim(line)}\n`);
  }

  #say(line: string): void {
    this.#progress.clear();
    this.#terminal.stdout.write(`${line}\n`);
  }
}

type StartGateway = typeof import('cortex-gateway/gateway').startGateway;

interface ModelList {
  readonly data: readonly { readonly id: string; readonly loaded?: boolean }[];
}

function joinReports(gateway: ReloadReport | null, neuron: ReloadReport | null): ReloadReport {
  const join = (lines: (report: ReloadReport) => readonly string[]): string[] => [
    ...(gateway === null ? [] : lines(gateway)),
    ...(neuron === null ? [] : lines(neuron).map((line) => `neuron: ${line}`)),
  ];
  return {
    changed: join(({ changed }) => changed),
    needsRestart: join(({ needsRestart }) => needsRestart),
    notes: join(({ notes }) => notes),
  };
}

async function readHealth(neuron: GatewayClient): Promise<NeuronHealth> {
  return healthSchema.parse(await neuron.get('/health'));
}

function toMetricsUrl(gateway: Gateway): string | null {
  const url = new URL(toConnectUrl(gateway.url));
  url.port = String(gateway.metricsPort);
  return new URL('/metrics', url).href;
}

/** A port in use is told by the listener; the option that changes it is known here. */
function withPortHint(option: string): (thrown: unknown) => never {
  return (thrown) => {
    if (!(thrown instanceof Error) || !thrown.message.includes('is in use')) throw thrown;
    throw new CliError(`${thrown.message} with ${option}`, 1, { cause: thrown });
  };
}

function toDeathError(death: NeuronDeath, logDir: string): CliError {
  const tail = death.logTail.map((line) => `\n  ${line}`).join('');
  return new CliError(
    `the neuron ended while it loaded models (${death.cause}); see ${logDir}/neuron.log${tail}`,
  );
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
