/**
 * `cortex up`: a gateway in this process and neurons in children, one or --nodes of them, until a signal.
 *
 * Order: configuration, children, gateway, models, then the address. A fault on the way stops what was
 * started and is told in one line; from the address on, a child that dies is started again and the gateway
 * stays.
 */
import { createWriteStream, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { createLog, type LeveledLog } from 'cortex-core/daemon/log';
import { LogSink } from 'cortex-core/daemon/log-sink';
import type { Gateway } from 'cortex-gateway/gateway';
import { CliError } from './cli-error.ts';
import { ConfigReloader } from './config-reloader.ts';
import { FileWatch, signFiles } from './file-watch.ts';
import { GatewayClient } from './gateway-client.ts';
import type { NeuronAddress, NeuronDeath } from './neuron-process.ts';
import { ProgressDisplay } from './progress.ts';
import { stateDir } from './state-dir.ts';
import { isDaemon, listenForStop } from './stop-signals.ts';
import { distDir, type Terminal } from './terminal.ts';
import { formatDuration, formatMb, toPrintable } from './text.ts';
import { buildUpConfig, type UpConfig, type UpOptions, withLocalNeuron } from './up-config.ts';
import { UpNeuron } from './up-neuron.ts';
import { renderFact, renderHost, renderMachine, renderReady, toConnectUrl } from './up-text.ts';
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
  readonly #neurons: readonly UpNeuron[];
  readonly #progress: ProgressDisplay;
  readonly #closing = new AbortController();
  readonly #filesAtStart: string;
  #config: UpConfig;
  #gateway: Gateway | null = null;
  #reloader: ConfigReloader | null = null;
  #watch: FileWatch | null = null;
  #isUp = false;
  #loadsFromMs = 0;

  constructor(terminal: Terminal, build: () => UpConfig, logDir: string) {
    this.#terminal = terminal;
    this.#build = build;
    const config = build();
    this.#config = config;
    this.#filesAtStart = signFiles(config.files);
    this.#logDir = logDir;
    this.#progress = new ProgressDisplay(terminal.stdout, '  ');
    this.#neurons = config.nodes.map(
      (node) =>
        new UpNeuron(node, logDir, {
          onDeath: (neuron, death) => this.#tellDeath(neuron, death),
          onRestart: ({ name }, { url }) => this.#fact(name ?? 'neuron', `back on ${url}`),
          onLoaded: (neuron, id) => this.#tellLoaded(neuron, id),
          onFailed: (neuron, id, error) => this.#tellFailed(neuron, id, error),
          onProgress: (progress) => this.#progress.show(progress),
        }),
    );
  }

  /** Never resolves while all is well; rejects when it cannot come up. */
  async run(): Promise<never> {
    const { style } = this.#terminal;
    this.#say(`${style.bold('cortex')} ${readVersion().version}`);
    // The gateway's code is read while the children start.
    const [addresses, { startGateway }] = await Promise.all([
      this.#startNeurons(),
      import('cortex-gateway/gateway'),
    ]);
    if (this.#closing.signal.aborted) return new Promise(() => {});
    await this.#tellMachine(addresses);
    const gateway = await this.#startGateway(addresses, startGateway);
    const signal = this.#closing.signal;
    this.#loadsFromMs = systemClock.monotonicMs();
    const loaded = (await Promise.all(this.#neurons.map((each) => each.awaitModels(signal)))).flat();
    await this.#awaitGatewaySeesModels(gateway, loaded);
    for (const neuron of this.#neurons) neuron.isUp = true;
    this.#isUp = true;
    const ready = {
      url: toConnectUrl(gateway.url),
      metricsUrl: toMetricsUrl(gateway),
      neuronUrl: addresses.length === 1 ? (addresses[0]?.url ?? null) : null,
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
    const work = Promise.allSettled([this.#gateway?.close(), ...this.#neurons.map((each) => each.close())]);
    const deadline = new AbortController();
    await Promise.race([work, systemClock.sleep(STOP_MS_MAX, deadline.signal).catch(() => {})]);
    deadline.abort();
    this.kill();
  }

  kill(): void {
    for (const neuron of this.#neurons) neuron.kill();
  }

  async #startNeurons(): Promise<readonly NeuronAddress[]> {
    const starts = this.#neurons.map((neuron) => neuron.start().catch(withPortHint('--neuron-port')));
    return await Promise.all(starts);
  }

  async #tellMachine(addresses: readonly NeuronAddress[]): Promise<void> {
    const [first] = this.#neurons;
    if (first === undefined) return;
    const { style } = this.#terminal;
    const [machine, health] = await Promise.all([first.discovery(), first.health()]);
    if (this.#neurons.length === 1) {
      for (const line of renderMachine(machine, health, style)) this.#say(line);
      return;
    }
    this.#say(renderHost(machine, style));
    for (const [at, { name, memoryMb }] of this.#neurons.entries()) {
      this.#fact(name ?? 'neuron', `${addresses[at]?.url ?? ''}, ${formatMb(memoryMb)} for models`);
    }
  }

  async #startGateway(addresses: readonly NeuronAddress[], start: StartGateway): Promise<Gateway> {
    mkdirSync(this.#logDir, { recursive: true });
    const stream = createWriteStream(join(this.#logDir, 'gateway.log'), { flags: 'a', mode: 0o600 });
    const config = this.#withNeurons(this.#config.gateway, addresses);
    const log = createLog(config.log.level, new LogSink(stream));
    const reloader = new ConfigReloader({ log, apply: () => this.#reload(addresses, log) });
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

  /** Gateway and neurons read again what they were started with; nothing changes when one has a fault. */
  async #reload(addresses: readonly NeuronAddress[], log: LeveledLog): Promise<ReloadReport> {
    const { stderr, errorStyle, style } = this.#terminal;
    try {
      const next = this.#build();
      const gateway = await this.#gateway?.reload(this.#withNeurons(next.gateway, addresses), next.models);
      log.setLevel(next.gateway.log.level);
      const reports: NamedReport[] = [...(gateway === undefined ? [] : [{ who: null, report: gateway }])];
      for (const [at, neuron] of this.#neurons.entries()) {
        const node = next.nodes[at];
        const report = node === undefined ? null : await neuron.reload(node.config);
        if (report !== null) reports.push({ who: neuron.name ?? 'neuron', report });
      }
      this.#config = next;
      const report = joinReports(reports);
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

  #withNeurons(config: CortexConfig, addresses: readonly NeuronAddress[]): CortexConfig {
    return addresses.reduce(
      (before, { url }, at) => withLocalNeuron(before, url, this.#neurons[at]?.name ?? undefined),
      config,
    );
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

  #tellLoaded({ name }: UpNeuron, id: string): void {
    const { style } = this.#terminal;
    const took = formatDuration(systemClock.monotonicMs() - this.#loadsFromMs);
    const where = name === null ? '' : ` on ${name}`;
    this.#fact('loaded', `${toPrintable(id)}${where} ${style.dim(`in ${took}`)}`);
  }

  /** Throws where the model is one without which `up` has failed. */
  #tellFailed({ name }: UpNeuron, id: string, error: string): void {
    const where = name === null ? '' : ` on ${name}`;
    const line = `model ${toPrintable(id)} is not loaded${where}: ${toPrintable(error)}`;
    if (this.#config.required.includes(id)) throw new CliError(line);
    this.#fact('failed', this.#terminal.style.yellow(line));
  }

  #tellDeath({ name }: UpNeuron, death: NeuronDeath): void {
    const { stderr, errorStyle } = this.#terminal;
    const wait = formatDuration(death.restartInMs);
    const line = `${name ?? 'the neuron'} ended (${death.cause}); starting it again in ${wait}`;
    stderr.write(`${errorStyle.yellow(line)}\n`);
    for (const tail of death.logTail) stderr.write(`  ${errorStyle.dim(tail)}\n`);
  }

  #fact(label: string, text: string): void {
    this.#say(renderFact(label, text, this.#terminal.style));
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

interface NamedReport {
  /** null = the gateway. */
  readonly who: string | null;
  readonly report: ReloadReport;
}

function joinReports(reports: readonly NamedReport[]): ReloadReport {
  const join = (lines: (report: ReloadReport) => readonly string[]): string[] =>
    reports.flatMap(({ who, report }) =>
      lines(report).map((line) => (who === null ? line : `${who}: ${line}`)),
    );
  return {
    changed: join(({ changed }) => changed),
    needsRestart: join(({ needsRestart }) => needsRestart),
    notes: join(({ notes }) => notes),
  };
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

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
