/**
 * The neuron of `cortex up`: a child process that is watched and started again.
 *
 * Design: the child leads its own process group, so that a terminal's Ctrl-C reaches this process alone,
 * which then stops the child in order; and so that what the child started can be ended with it. Its
 * configuration goes in, and `ready` comes back, over IPC; when this process is killed, the channel closes
 * and the child leaves by itself. Its output goes to a file directly: a pipe would break with this process.
 * Limits: a stop takes `graceMs`, then SIGKILL; restarts back off to `BACKOFF_MS_MAX`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import type { Clock } from 'cortex-core/daemon/clock';
import { CliError } from './cli-error.ts';
import { openLog } from './state-dir.ts';
import { toPrintable } from './text.ts';

export type ToNeuron = { readonly type: 'start' | 'reload'; readonly config: NeuronConfig };
export type FromNeuron =
  /** null = it had not started yet. */
  | { readonly type: 'reloaded'; readonly report: ReloadReport | null }
  | { readonly type: 'ready'; readonly url: string; readonly port: number }
  | { readonly type: 'failed'; readonly message: string };

export interface NeuronAddress {
  readonly url: string;
  readonly port: number;
}

export interface NeuronDeath {
  /** e.g. `exit code 1`, `signal SIGKILL`. */
  readonly cause: string;
  readonly logTail: readonly string[];
  readonly restartInMs: number;
}

export interface NeuronProcessOptions {
  /** The built neuron-main.js. */
  readonly entry: string;
  readonly config: NeuronConfig;
  readonly logFile: string;
  readonly clock: Clock;
  readonly onDeath: (death: NeuronDeath) => void;
  readonly onRestart: (address: NeuronAddress) => void;
  readonly graceMs?: number;
  readonly backoffMs?: number;
}

const BACKOFF_MS_MAX = 30_000;
const RELOAD_MS_MAX = 5000;
/** A child that lived this long died of something new: back-off begins anew. */
const SETTLED_MS = 60_000;
const TAIL_BYTES = 8 * 1024;
const TAIL_LINES = 8;

export class NeuronProcess {
  readonly #options: NeuronProcessOptions;
  readonly #closing = new AbortController();
  #config: NeuronConfig;
  #child: ChildProcess | null = null;
  #closed: Promise<void> | null = null;
  #deathsInARow = 0;
  /** As the child that runs was told: 0 = any free one. */
  #startedPort = 0;

  constructor(options: NeuronProcessOptions) {
    this.#options = options;
    this.#config = options.config;
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** Resolves when the child listens; rejects with one line when it cannot. After that, it is kept alive. */
  async start(): Promise<NeuronAddress> {
    const address = await this.#spawn();
    // A restarted neuron must be found where the gateway looks for it.
    this.#config = { ...this.#config, port: address.port };
    return address;
  }

  /**
   * New configuration for the child that runs, and for those that come after it. Resolves with what changed,
   * or null when there is no child to tell now: the next one starts with it.
   */
  reload(config: NeuronConfig): Promise<ReloadReport | null> {
    const child = this.#child;
    // its successor must be found where the gateway looks for it, whatever the file says now
    this.#config = { ...config, port: this.#config.port };
    // "any free port" was given out when it started, and is no change
    const isSame = config.port === this.#options.config.port;
    const told = isSame ? { ...config, port: this.#startedPort } : config;
    if (child === null || !child.connected) return Promise.resolve(null);
    return new Promise((resolve) => {
      const end = (report: ReloadReport | null): void => {
        timer.cancel();
        child.off('message', onMessage);
        child.off('exit', onExit);
        resolve(report);
      };
      const onExit = (): void => end(null);
      const onMessage = (message: FromNeuron): void => {
        if (message.type === 'reloaded') end(message.report);
      };
      const timer = this.#options.clock.setTimer(RELOAD_MS_MAX, onExit);
      child.on('message', onMessage);
      child.once('exit', onExit);
      child.send({ type: 'reload', config: told } satisfies ToNeuron, () => {});
    });
  }

  /** Ends the child and everything it started. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#stop();
    return this.#closed;
  }

  /** Ends them at once. */
  kill(): void {
    this.#closing.abort();
    if (this.#child?.pid !== undefined) killGroup(this.#child.pid);
  }

  async #stop(): Promise<void> {
    this.#closing.abort();
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGTERM');
    const timer = this.#options.clock.setTimer(this.#options.graceMs ?? 3000, () => this.kill());
    await gone;
    timer.cancel();
  }

  #spawn(): Promise<NeuronAddress> {
    const log = openLog(this.#options.logFile);
    const startedMs = this.#options.clock.monotonicMs();
    const child = fork(this.#options.entry, ['--supervised'], {
      stdio: ['ignore', log, log, 'ipc'],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    this.#startedPort = this.#config.port;
    return new Promise((resolve, reject) => {
      let ready = false;
      child.once('message', (message: FromNeuron) => {
        if (message.type === 'failed') return reject(new CliError(toPrintable(message.message)));
        if (message.type !== 'ready') return;
        ready = true;
        resolve({ url: message.url, port: message.port });
      });
      child.once('error', (cause) =>
        reject(new CliError(`the neuron does not start: ${cause.message}`, 1, { cause })),
      );
      child.once('exit', (code, signal) => {
        if (child.pid !== undefined) killGroup(child.pid);
        const cause = signal === null ? `exit code ${code}` : `signal ${signal}`;
        if (ready) return void this.#revive(cause, this.#options.clock.monotonicMs() - startedMs);
        const tail = readTail(this.#options.logFile).map((line) => `\n  ${line}`);
        reject(
          new CliError(
            `the neuron ended while starting (${cause}); see ${this.#options.logFile}${tail.join('')}`,
          ),
        );
      });
      child.send({ type: 'start', config: this.#config } satisfies ToNeuron, () => {});
    });
  }

  async #revive(firstCause: string, livedMs: number): Promise<void> {
    let cause = firstCause;
    if (livedMs >= SETTLED_MS) this.#deathsInARow = 0;
    while (!this.#closing.signal.aborted) {
      const restartInMs = Math.min(
        BACKOFF_MS_MAX,
        (this.#options.backoffMs ?? 500) * 2 ** this.#deathsInARow++,
      );
      this.#options.onDeath({ cause, logTail: readTail(this.#options.logFile), restartInMs });
      try {
        await this.#options.clock.sleep(restartInMs, this.#closing.signal);
        const address = await this.#spawn();
        return this.#options.onRestart(address);
      } catch (thrown) {
        cause = thrown instanceof Error ? (thrown.message.split('\n')[0] ?? '') : String(thrown);
      }
    }
  }
}

/** The child leads a group of its own number; where there are no groups, the child itself. */
function killGroup(pid: number): void {
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}

function readTail(file: string): readonly string[] {
  try {
    const fd = openSync(file, 'r');
    try {
      const { size } = fstatSync(fd);
      const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES));
      readSync(fd, bytes, 0, bytes.length, size - bytes.length);
      const lines = bytes.toString('utf8').split('\n').map(toPrintable);
      return lines.filter((line) => line.trim() !== '').slice(-TAIL_LINES);
    } finally {
      closeSync(fd);
    }
  } catch {
    return [];
  }
}
