/**
 * The `neuron` executable. On its own it is a daemon in the foreground that logs to stderr. With
 * `--supervised` it is the child of `cortex up`: configuration comes in over IPC, `ready` goes out, and a
 * closed channel ends it.
 */
import { dirname, resolve } from 'node:path';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { createLog } from 'cortex-core/daemon/log';
import { CliError } from './cli-error.ts';
import { loadNeuronConfig } from './load-files.ts';
import type { FromNeuron, ToNeuron } from './neuron-process.ts';
import { createNeuronProgram } from './neuron-program.ts';
import { runProgram } from './program-runner.ts';
import { listenForStop } from './stop-signals.ts';
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
  const loaded = loadNeuronConfig({ path: file, env: process.env });
  const config = options.port === undefined ? loaded : { ...loaded, port: options.port };
  const log = createLog(config.log.level);
  const { startNeuron } = await import('neuron/neuron');
  const neuron = await startNeuron(config, {
    log,
    ...(file === undefined ? {} : { baseDir: dirname(resolve(file)) }),
  });
  log.info('neuron listens', { url: neuron.url });
  await new Promise<void>((stop) => {
    listenForStop(process, systemClock, {
      onFirst: (signal) => {
        log.info('stopping', { signal });
        stop();
      },
      onSecond: () => process.exit(1),
    });
  });
  await endWithin(neuron.close(), STOP_MS_MAX);
  process.exit(0);
}

function runSupervised(): void {
  let close: (() => Promise<void>) | null = null;
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    void endWithin(close?.() ?? Promise.resolve(), SUPERVISED_STOP_MS_MAX).then(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('disconnect', stop);
  process.once('message', (message: ToNeuron) => {
    startSupervised(message.config).then(
      (started) => {
        close = started;
        if (stopping) void endWithin(started(), SUPERVISED_STOP_MS_MAX).then(() => process.exit(0));
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

async function startSupervised(config: NeuronConfig): Promise<() => Promise<void>> {
  const { startNeuron } = await import('neuron/neuron');
  const neuron = await startNeuron(config, { log: createLog(config.log.level) });
  tell({ type: 'ready', url: neuron.url, port: neuron.port }, () => {});
  return () => neuron.close();
}

function tell(message: FromNeuron, sent: () => void): void {
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
