/**
 * The owner on a worker thread of this process: the path of CPU devices. Loads the engine into this
 * process.
 */
import { Worker } from 'node:worker_threads';
import type { Log } from 'cortex-core/daemon/log';
import { isFromOwner } from './jobs.ts';
import { LineTail } from './line-tail.ts';
import type { OwnerLink, Transport, TransportEvents } from './transport.ts';

export interface ThreadTransportOptions {
  /** Name of the thread, e.g. `device-cpu`. */
  readonly name: string;
  readonly log: Log;
  /** The owner's entry; tests bring their own. */
  readonly entry?: URL;
}

export function createThreadTransport(options: ThreadTransportOptions): Transport {
  return { kind: 'thread', isolates: false, spawn: (events) => spawnThread(options, events) };
}

function spawnThread(options: ThreadTransportOptions, events: TransportEvents): OwnerLink {
  // Two shared words: the id of the load to give up, which the owner reads while the load blocks its thread,
  // and the model that it is at, which it writes.
  const words = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(options.entry ?? new URL('./owner/thread-main.js', import.meta.url), {
    name: options.name,
    workerData: { words },
    execArgv: [],
    stderr: true,
  });
  const tail = new LineTail((line) => options.log.debug('device owner', { line }));
  tail.read(worker.stderr);
  let uncaught: string | null = null;
  worker.on('message', (message: unknown) => {
    if (isFromOwner(message)) events.onMessage(message);
  });
  worker.on('error', (error: unknown) => {
    uncaught = error instanceof Error ? error.message : String(error);
  });
  worker.once('exit', (code) => {
    tail.close();
    events.onExit(uncaught === null ? `exit code ${code}` : `uncaught error: ${uncaught}`);
  });
  return {
    pid: null,
    post: (message) => worker.postMessage(message),
    cancelLoad: (id) => {
      Atomics.store(words, 0, id);
    },
    workingOn: () => Atomics.load(words, 1),
    terminate: () => void worker.terminate().catch(() => {}),
    stderrTail: () => tail.lines,
  };
}
