/**
 * The owner in a process of its own: a native abort or a poisoned GPU context ends that process, not the
 * daemon.
 *
 * Two words that no message could carry: the load to give up, for a load blocks the owner's event loop, and
 * the model that the owner is at, for whoever aborts says nothing more. The owner inherits a descriptor of
 * an unlinked 8-byte file; it reads the first within the progress callback and writes the second when it
 * changes.
 * Reading a regular file never blocks, on any platform, which a pipe's inherited end does not promise.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Log } from 'cortex-core/daemon/log';
import { isFromOwner } from './jobs.ts';
import { LineTail } from './line-tail.ts';
import type { OwnerLink, Transport, TransportEvents } from './transport.ts';

export interface ProcessTransportOptions {
  readonly log: Log;
  /** Added to this process's environment, e.g. `CUDA_VISIBLE_DEVICES`. */
  readonly env: Readonly<Record<string, string>>;
  /** The owner's entry; tests bring their own. */
  readonly entry?: URL;
}

export function createProcessTransport(options: ProcessTransportOptions): Transport {
  return { kind: 'process', isolates: true, spawn: (events) => spawnProcess(options, events) };
}

function spawnProcess(options: ProcessTransportOptions, events: TransportEvents): OwnerLink {
  const words = openSharedWords(options.log);
  const entry = options.entry ?? new URL('./owner/process-main.js', import.meta.url);
  const child = fork(fileURLToPath(entry), words === null ? [] : ['--words-fd=4'], {
    serialization: 'advanced',
    execArgv: [],
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc', words ?? 'ignore'],
  });
  const tail = new LineTail((line) => options.log.debug('device owner', { pid: child.pid, line }));
  tail.read(child.stdout);
  tail.read(child.stderr);
  let ended = false;
  let lastAt: number | null = null;
  const end = (cause: string): void => {
    if (ended) return;
    ended = true;
    tail.close();
    if (words !== null) {
      lastAt = readAt(words);
      closeSync(words);
    }
    events.onExit(cause);
  };
  child.on('message', (message: unknown) => {
    if (!ended && isFromOwner(message)) events.onMessage(message);
  });
  // 'close' comes after the channel and both pipes have been read to their ends; 'exit' may come before.
  child.once('close', (code, signal) => end(signal === null ? `exit code ${code}` : `signal ${signal}`));
  child.once('error', (error) => {
    if (child.pid === undefined) end(`could not be started: ${error.message}`);
  });
  return {
    pid: child.pid ?? null,
    post: (message) => send(child, message),
    cancelLoad: (id) => {
      if (words !== null && !ended) writeSync(words, Int32Array.of(id), 0, 4, 0);
    },
    workingOn: () => (words === null || ended ? lastAt : readAt(words)),
    terminate: () => void child.kill('SIGKILL'),
    stderrTail: () => tail.lines,
  };
}

function send(child: ChildProcess, message: Parameters<ChildProcess['send']>[0]): void {
  if (child.connected) child.send(message, () => {});
}

/**
 * A descriptor of a nameless 8-byte file; null where no file can be made: loads then run to their end, and
 * all that had work share the blame for a death.
 */
function openSharedWords(log: Log): number | null {
  try {
    const folder = mkdtempSync(join(tmpdir(), 'neuron-owner-'));
    try {
      const words = openSync(join(folder, 'words'), 'w+');
      writeSync(words, Int32Array.of(0, 0), 0, 8, 0);
      return words;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  } catch (error) {
    log.warn('loads cannot be cancelled: no temporary file', { error: String(error) });
    return null;
  }
}

function readAt(words: number): number {
  const word = new Int32Array(1);
  readSync(words, word, 0, 4, 4);
  return word[0] ?? 0;
}
