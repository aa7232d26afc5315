/** How a device reaches its owner. Two exist: a worker thread and a process; a test brings a third. */
import type { ArchHandle } from 'cortex-core/wire/inference';
import type { FromOwner, JobId, ToOwner } from './jobs.ts';

export interface Transport {
  readonly kind: 'process' | 'thread';
  /** Whether a new owner starts with a clean native state; a thread shares the process's. */
  readonly isolates: boolean;
  spawn(events: TransportEvents): OwnerLink;
}

export interface TransportEvents {
  readonly onMessage: (message: FromOwner) => void;
  /** Exactly once, after the last message: `exit code 134`, `signal SIGKILL`, `uncaught ...`. */
  readonly onExit: (cause: string) => void;
}

export interface OwnerLink {
  /** Of the owner's process; null for a thread. */
  readonly pid: number | null;
  /** Never throws; a message to an owner that is gone is dropped, its `onExit` says the rest. */
  post(message: ToOwner): void;
  /** Reaches the owner also while a load blocks it. */
  cancelLoad(id: JobId): void;
  /**
   * The model of the job that the owner is in, or was in last; 0 = a job of no model, such as a load; null =
   * not known. Can be read after its end: who was at work when it died.
   */
  workingOn(): ArchHandle | null;
  /** Ends the owner at once, jobs or not. */
  terminate(): void;
  /** Last lines of the owner's stderr, oldest first. */
  stderrTail(): readonly string[];
}
