/**
 * Entry of the owner in a process of its own, forked with `serialization: 'advanced'`. Ends with its
 * parent: when the channel closes, and, while a load blocks the event loop, when another process has become
 * the parent.
 */
import { readSync, writeSync } from 'node:fs';
import { type FromOwner, isToOwner } from '../jobs.ts';
import { openEngine } from './open-engine.ts';
import { Owner } from './owner.ts';

/** Messages handed to the channel and not yet written, before stepping pauses, and before it goes on. */
const unsentMax = 256;
const unsentLow = 64;

const parentPid = process.ppid;
const wordsFd = readWordsFd();
const word = new Int32Array(1);
const at = new Int32Array(1);
let unsent = 0;
let congested = false;
let ended = false;

/** Nobody wakes it. */
const resting = new Int32Array(new SharedArrayBuffer(4));

const owner = new Owner(
  {
    send,
    isCongested: () => congested,
    cancelledLoad,
    workingOn,
    schedule: (turn) => void setImmediate(turn),
    nowMs: () => performance.now(),
    rest: (ms) => void Atomics.wait(resting, 0, 0, ms),
    onEnd: () => {
      ended = true;
      exitWhenSent();
    },
  },
  openEngine,
);

// A terminal's Ctrl-C reaches the whole process group; when to end is the parent's decision.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});
process.on('disconnect', () => {
  owner.close();
  process.exit(0);
});
process.on('message', (message: unknown) => {
  if (isToOwner(message)) owner.handle(message);
});

function send(message: FromOwner): void {
  if (!process.connected || process.send === undefined) return;
  unsent++;
  congested ||= unsent > unsentMax;
  process.send(message, undefined, undefined, () => {
    unsent--;
    if (congested && unsent <= unsentLow) {
      congested = false;
      owner.wake();
    }
    exitWhenSent();
  });
}

function exitWhenSent(): void {
  if (ended && unsent === 0) process.exit(0);
}

function cancelledLoad(): number {
  if (process.ppid !== parentPid) process.kill(process.pid, 'SIGKILL');
  if (wordsFd === null) return 0;
  readSync(wordsFd, word, 0, 4, 0);
  return word[0] ?? 0;
}

/** One model alone costs no write a step. */
function workingOn(handle: number): void {
  if (wordsFd === null || at[0] === handle) return;
  at[0] = handle;
  writeSync(wordsFd, at, 0, 4, 4);
}

function readWordsFd(): number | null {
  const argument = process.argv.find((text) => text.startsWith('--words-fd='));
  return argument === undefined ? null : Number(argument.slice('--words-fd='.length));
}
