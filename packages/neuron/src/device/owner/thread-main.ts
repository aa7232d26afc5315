/** Entry of the owner on a worker thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { isToOwner } from '../jobs.ts';
import { openEngine } from './open-engine.ts';
import { Owner } from './owner.ts';

const port = parentPort;
if (port === null) throw new Error('owner/thread-main is the entry of a worker thread');
const { words } = workerData as { readonly words: Int32Array };

/** Nobody wakes it. */
const resting = new Int32Array(new SharedArrayBuffer(4));

const owner = new Owner(
  {
    send: (message) => port.postMessage(message),
    isCongested: () => false,
    cancelledLoad: () => Atomics.load(words, 0),
    workingOn: (handle) => void Atomics.store(words, 1, handle),
    schedule: (turn) => void setImmediate(turn),
    nowMs: () => performance.now(),
    rest: (ms) => void Atomics.wait(resting, 0, 0, ms),
    onEnd: () => port.close(),
  },
  openEngine,
);
port.on('message', (message: unknown) => {
  if (isToOwner(message)) owner.handle(message);
});
