/**
 * The `neuron` executable. On its own it is a daemon in the foreground that logs to stderr. With
 * `--supervised` it is the child of `cortex up`: configuration comes in over IPC, `ready` goes out, and a
 * closed channel ends it.
 */
import { dirname, resolve } from 'node:path';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { createLog } from 'cortex-core/daemon/log';
import { CliError } from './cli-error.ts';
import { ConfigReloader } from './config-reloader.ts';
import { FileWatch, signFiles } from './file-watch.ts';
import { loadNeuronConfig } from './load-files.ts';
import type { FromNeuron, ToNeuron } from './neuron-process.ts';
import { createNeuronProgram } from './neuron-program.ts';
import { runProgram } from './program-runner.ts';
import { untilStopped } from './stop-signals.ts';
import { createTerminal } from './terminal.ts';

const STOP_MS_MAX = 20_000;
/** `cortex up` kills after 3 s; this ends on its own before, also when nobody is there to kill. */
const SUPERVISED_STOP_MS_MAX = 4000;

if (process.argv[2] === '--supervised' && process.send !== undefined) runSupervised();
else {
  const terminal = createTerminal();
  await runProgram(createNeuronProgram(terminal, runForeground), 'neuron', terminal);
}

async function runForeground(options: { readonly config?: string; readonly port?: number }): Promise<void> {
  const file = options.config ?? (process.env.NEURON_CONFIG || undefined);
  const load = (): NeuronConfig => {
    const loaded = loadNeuronConfig({ path: file, env: process.env });
    return options.port === undefined ? loaded : { ...loaded, port: options.port };
  };
  let config = load();
  const files = file === undefined ? [] : [file];
  const since = signFiles(files);
  const log = createLog(config.log.level);
  const { startNeuron } = await import('neuron/neuron');
  const reloader = new ConfigReloader({
    log,
    apply: async () => {
      const running = await started;
      const next = load();
      const report = running.reload(next);
      log.setLevel(next.log.level);
      config = next;
      return report;
    },
  });
  const stopped = untilStopped(process, log, () => reloader.trigger('signal'));
  const started = startNeuron(config, {
    log,
    ...(file === undefined ? {} : { baseDir: dirname(resolve(file)) }),
  });
  const neuron = await started;
  const watch = new FileWatch({
    clock: systemClock,
    paths: () => files,
    since,
    isOn: () => config.watch_config,
    onChange: () => reloader.trigger('file'),
  });
  log.info('neuron listens', { url: neuron.url });
  await stopped;
  watch.close();
  await endWithin(neuron.close(), STOP_MS_MAX);
  process.exit(0);
}

function runSupervised(): void {
  let neuron: SupervisedNeuron | null = null;
  /** A configuration that came while it started. */
  let next: NeuronConfig | null = null;
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    void endWithin(neuron?.close() ?? Promise.resolve(), SUPERVISED_STOP_MS_MAX).then(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('disconnect', stop);
  process.on('message', (message: ToNeuron) => {
    if (message.type === 'reload') {
      if (neuron === null) next = message.config;
      return tell({ type: 'reloaded', report: neuron?.reload(message.config) ?? null });
    }
    startSupervised(message.config).then(
      (started) => {
        neuron = started;
        if (next !== null) started.reload(next);
        if (stopping) void endWithin(started.close(), SUPERVISED_STOP_MS_MAX).then(() => process.exit(0));
      },
      (thrown: unknown) => {
        const reason = thrown instanceof Error ? thrown.message : String(thrown);
        if (!(thrown instanceof CliError) && thrown instanceof Error)
          process.stderr.write(`${thrown.stack}\n`);
        tell({ type: 'failed', message: reason }, () => process.exit(1));
      },
    );
  });
}

interface SupervisedNeuron {
  readonly reload: (config: NeuronConfig) => ReloadReport;
  readonly close: () => Promise<void>;
}

async function startSupervised(config: NeuronConfig): Promise<SupervisedNeuron> {
  const { startNeuron } = await import('neuron/neuron');
  const log = createLog(config.log.level);
  const neuron = await startNeuron(config, { log });
  tell({ type: 'ready', url: neuron.url, port: neuron.port });
  return {
    reload: (next) => {
      const report = neuron.reload(next);
      log.setLevel(next.log.level);
      return report;
    },
    close: () => neuron.close(),
  };
}

function tell(message: FromNeuron, sent: () => void = () => {}): void {
  if (process.send === undefined || !process.connected) sent();
  else process.send(message, undefined, undefined, sent);
}

/** Resolves when the work ended, well or not, or the time is over. */
function endWithin(work: Promise<void>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = systemClock.setTimer(ms, resolve);
    const end = (): void => {
      timer.cancel();
      resolve();
    };
    work.then(end, end);
  });
}
