import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { OwnerOptions } from './jobs.ts';
import type { Transport } from './transport.ts';

export interface OwnerDeviceLimits {
  /** Back-off before an owner is spawned again: the first, and the largest. */
  readonly respawnMsMin: number;
  readonly respawnMsMax: number;
  /** A life of this length resets the back-off. */
  readonly respawnResetMs: number;
  /** How long a job waits for an owner that is not up. */
  readonly ownerWaitMsMax: number;
  /** Silence of an owner with work before it counts as hung: in steps, and inside a load. */
  readonly stepMsMax: number;
  readonly loadSilenceMsMax: number;
  /** Jobs without a result. */
  readonly jobsMax: number;
  /** Shutdown: time for running jobs to end, then for cancelled ones, then for the owner to exit. */
  readonly drainMsMax: number;
  readonly cancelMsMax: number;
  readonly exitMsMax: number;
}

export const defaultOwnerDeviceLimits: OwnerDeviceLimits = {
  respawnMsMin: 250,
  respawnMsMax: 30_000,
  respawnResetMs: 60_000,
  ownerWaitMsMax: 15_000,
  stepMsMax: 120_000,
  loadSilenceMsMax: 1_200_000,
  jobsMax: 4096,
  drainMsMax: 2500,
  cancelMsMax: 750,
  exitMsMax: 750,
};

/** A load may wait long for a slow disk, and tells of its progress; a step may not. */
const loadSilenceFactor = 10;

export function toOwnerLimits(stepTimeoutSecs: number): Partial<OwnerDeviceLimits> {
  const stepMsMax = stepTimeoutSecs * 1000;
  return { stepMsMax, loadSilenceMsMax: stepMsMax * loadSilenceFactor };
}

export interface OwnerDeviceOptions {
  readonly id: string;
  readonly transport: Transport;
  readonly owner: OwnerOptions;
  readonly clock: Clock;
  readonly log: Log;
  /** What a load's empty `devices` means: indices into the owner's list; empty = all. */
  readonly defaultDevices?: readonly number[];
  readonly limits?: Partial<OwnerDeviceLimits>;
}
