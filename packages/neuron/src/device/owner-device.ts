/**
 * A device whose owner lives elsewhere: jobs become messages, replies become promises.
 *
 * Problem: the owner can die at any moment (native abort, OOM kill), hang in a load, or be poisoned; none
 * of it may hang a caller, take the daemon down, or let an old handle name a new model.
 * Design: every submitted job is in `PendingJobs` until it ends exactly once. A dead owner rejects what it
 * had with a retryable `device_gone` and is spawned again with exponential back-off; jobs submitted
 * meanwhile wait for the new owner up to a limit. The new owner's handles start above every handle of the
 * old one. Loads go one at a time.
 * Limits: the jobs waiting or running, the wait, the drain and the back-off each have one
 * (`OwnerDeviceLimits`).
 */
import { AppError, deserializeError } from 'cortex-core/wire/errors';
import type {
  ArchHandle,
  BackendDevice,
  DeviceMemory,
  GenerateParams,
  GenerateResult,
  LoadedArch,
  LoadSpec,
  StepEvent,
  TokenizeOptions,
} from 'cortex-core/wire/inference';
import type { Device, DeviceState, LoadProgressEvent, OwnerDeath } from './device.ts';
import { type FromOwner, handleOf, type Job, type JobKind, type JobResults, type Settled } from './jobs.ts';
import {
  defaultOwnerDeviceLimits,
  type OwnerDeviceLimits,
  type OwnerDeviceOptions,
} from './owner-device-options.ts';
import { callHook, type JobHooks, type PendingJob, PendingJobs, settleAborted } from './pending-jobs.ts';
import type { OwnerLink } from './transport.ts';

export class OwnerDevice implements Device {
  readonly id: string;
  readonly #options: OwnerDeviceOptions;
  readonly #limits: OwnerDeviceLimits;
  readonly #jobs = new PendingJobs();
  readonly #liveHandles = new Set<ArchHandle>();
  readonly #deathListeners = new Set<(death: OwnerDeath) => void>();
  #state: DeviceState = 'starting';
  #link: OwnerLink | null = null;
  #ready = false;
  #readyAtMs = 0;
  /** Handles below belong to owners that died. */
  #firstHandle: ArchHandle = 1;
  #nextHandle: ArchHandle = 1;
  #respawnMs: number;
  #respawnTimer: { cancel(): void } | null = null;
  #startError: AppError | null = null;
  #poisonReason: string | null = null;
  #closing: Promise<void> | null = null;
  #onLinkExit: (() => void) | null = null;

  /** Spawns the owner at once; jobs may be submitted before it is up. */
  constructor(options: OwnerDeviceOptions) {
    this.id = options.id;
    this.#options = options;
    this.#limits = { ...defaultOwnerDeviceLimits, ...options.limits };
    this.#respawnMs = this.#limits.respawnMsMin;
    this.#spawn();
  }

  get state(): DeviceState {
    return this.#state;
  }

  /** Process id of the owner; null for a thread and while there is none. */
  get ownerPid(): number | null {
    return this.#link?.pid ?? null;
  }

  queryVram(signal?: AbortSignal): Promise<DeviceMemory> {
    return this.#submit({ kind: 'QueryVram' }, { signal });
  }

  listBackendDevices(signal?: AbortSignal): Promise<readonly BackendDevice[]> {
    return this.#submit({ kind: 'ListDevices' }, { signal });
  }

  load(
    spec: LoadSpec,
    onProgress: (event: LoadProgressEvent) => void,
    signal?: AbortSignal,
  ): Promise<LoadedArch> {
    const devices = spec.devices.length > 0 ? spec.devices : (this.#options.defaultDevices ?? []);
    const hooks: JobHooks = { signal, onProgress: (fraction) => onProgress({ fraction }) };
    return this.#submit({ kind: 'Load', spec: { ...spec, devices } }, hooks);
  }

  async dropArch(handle: ArchHandle): Promise<void> {
    // An owner that is gone took its models with it, and a poisoned one is past saving: a drop always
    // succeeds.
    this.#liveHandles.delete(handle);
    if (!this.#ready) return;
    await this.#submit({ kind: 'DropArch', handle }, {}).catch(() => {});
  }

  async clearKv(handle: ArchHandle, signal?: AbortSignal): Promise<void> {
    await this.#submit({ kind: 'ClearKv', handle }, { signal });
  }

  forwardLogits(
    handle: ArchHandle,
    tokens: Int32Array,
    offset: number,
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    return this.#submit({ kind: 'ForwardLogits', handle, tokens, offset }, { signal });
  }

  tokenize(
    handle: ArchHandle,
    text: string,
    options: TokenizeOptions,
    signal?: AbortSignal,
  ): Promise<Int32Array> {
    return this.#submit({ kind: 'Tokenize', handle, text, options }, { signal });
  }

  detokenize(handle: ArchHandle, tokens: Int32Array, signal?: AbortSignal): Promise<string> {
    return this.#submit({ kind: 'Detokenize', handle, tokens }, { signal });
  }

  generate(
    handle: ArchHandle,
    params: GenerateParams,
    onStep: (event: StepEvent) => void,
    signal?: AbortSignal,
  ): Promise<GenerateResult> {
    return this.#submit({ kind: 'Generate', handle, params }, { signal, onStep });
  }

  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void {
    this.#deathListeners.add(listener);
    return () => void this.#deathListeners.delete(listener);
  }

  shutdown(): Promise<void> {
    this.#closing ??= this.#shutdown();
    return this.#closing;
  }

  async #submit<K extends JobKind>(job: Extract<Job, { kind: K }>, hooks: JobHooks): Promise<JobResults[K]> {
    const refusal = this.#refusal(job);
    if (refusal !== null) throw refusal;
    const [pending, result] = this.#jobs.add(job, hooks, (aborted) => this.#abort(aborted));
    if (hooks.signal?.aborted) settleAborted(this.#jobs, pending);
    else if (this.#ready) this.#post(pending);
    else this.#waitForOwner(pending);
    return (await result) as JobResults[K];
  }

  #refusal(job: Job): AppError | null {
    if (this.#closing !== null && job.kind !== 'DropArch') return this.#gone('is no longer running');
    if (this.#poisonReason !== null) return this.#poisoned();
    if (this.#startError !== null) return this.#startError;
    const handle = handleOf(job);
    if (handle !== null && handle < this.#firstHandle && job.kind !== 'DropArch') {
      return this.#gone(`lost the model of handle ${handle} when its owner died; it is being loaded again`);
    }
    if (this.#jobs.size < this.#limits.jobsMax) return null;
    const text = `device ${this.id} has ${this.#jobs.size} jobs, its limit; try again`;
    return new AppError('overloaded', text, { retryAfterSecs: 1 });
  }

  #post(pending: PendingJob): void {
    if (pending.job.kind === 'Load' && this.#jobs.postedLoad() !== undefined) return;
    pending.waitTimer?.cancel();
    pending.posted = true;
    this.#link?.post({ kind: 'Submit', id: pending.id, job: pending.job });
  }

  #postWaiting(): void {
    for (const pending of this.#jobs.all()) if (!pending.posted) this.#post(pending);
  }

  #waitForOwner(pending: PendingJob): void {
    pending.waitTimer?.cancel();
    pending.waitTimer = this.#options.clock.setTimer(this.#limits.ownerWaitMsMax, () => {
      const seconds = this.#limits.ownerWaitMsMax / 1000;
      this.#jobs.reject(pending, this.#gone(`has had no owner for ${seconds} s`));
    });
  }

  #abort(pending: PendingJob): void {
    if (pending.posted && (pending.job.kind === 'Generate' || pending.job.kind === 'Load')) {
      pending.aborted = true;
      if (pending.job.kind === 'Load') this.#link?.cancelLoad(pending.id);
      else this.#link?.post({ kind: 'Cancel', id: pending.id });
      return;
    }
    settleAborted(this.#jobs, pending);
  }

  #spawn(): void {
    let link: OwnerLink;
    try {
      link = this.#options.transport.spawn({
        onMessage: (message) => this.#receive(message),
        onExit: (cause) => this.#onExit(cause, link),
      });
    } catch (error) {
      this.#options.log.error('device owner cannot be spawned', { device: this.id, error: String(error) });
      this.#scheduleRespawn(0);
      return;
    }
    this.#link = link;
    this.#nextHandle = this.#firstHandle;
    link.post({ kind: 'Start', firstHandle: this.#firstHandle, options: this.#options.owner });
  }

  #receive(message: FromOwner): void {
    switch (message.kind) {
      case 'Ready':
        this.#ready = true;
        this.#readyAtMs = this.#options.clock.monotonicMs();
        this.#startError = null;
        if (this.#state !== 'closed') this.#state = 'ready';
        this.#postWaiting();
        return;
      case 'StartFailed':
        this.#startError = deserializeError(message.error);
        this.#options.log.error('device owner cannot start', { device: this.id, error: message.error });
        for (const pending of this.#jobs.all()) this.#jobs.reject(pending, this.#startError);
        return;
      case 'Progress':
        this.#onProgress(message.id, message.fraction);
        return;
      case 'Steps':
        for (const { id, event } of message.steps) this.#onStep(id, event);
        for (const settled of message.settled) this.#onSettled(settled);
        return;
      default:
        message satisfies never;
    }
  }

  #onProgress(id: number, fraction: number): void {
    const pending = this.#jobs.get(id);
    if (pending === undefined || pending.aborted) return;
    const error = callHook(() => pending.hooks.onProgress?.(fraction));
    if (error !== null) this.#options.log.warn('a load progress listener failed', { error: error.message });
  }

  #onStep(id: number, event: StepEvent): void {
    const pending = this.#jobs.get(id);
    if (pending === undefined || pending.aborted) return;
    const error = callHook(() => pending.hooks.onStep?.(event));
    if (error === null) return;
    this.#link?.post({ kind: 'Cancel', id });
    this.#jobs.reject(pending, error);
  }

  #onSettled(settled: Settled): void {
    const pending = this.#jobs.get(settled.id);
    if (pending === undefined) return;
    if (settled.ok) this.#succeed(pending, settled.result as JobResults[JobKind]);
    else {
      const error = deserializeError(settled.error);
      this.#jobs.reject(pending, error);
      if (error.code === 'device_poisoned') this.#poison(error.message);
    }
    if (pending.job.kind === 'Load' && this.#ready) this.#postWaiting();
  }

  #succeed(pending: PendingJob, result: JobResults[JobKind]): void {
    if (pending.job.kind === 'Load') {
      const { handle } = result as LoadedArch;
      this.#nextHandle = Math.max(this.#nextHandle, handle + 1);
      if (pending.aborted) {
        // The load ended before the owner saw the cancel: nobody would ever drop this model.
        settleAborted(this.#jobs, pending);
        void this.dropArch(handle);
        return;
      }
      this.#liveHandles.add(handle);
    }
    this.#jobs.resolve(pending, result);
  }

  #poison(reason: string): void {
    this.#poisonReason = reason;
    if (this.#state !== 'closed') this.#state = 'poisoned';
    for (const pending of this.#jobs.all()) this.#jobs.reject(pending, this.#poisoned());
    this.#options.log.error('device is poisoned', { device: this.id, reason });
    // A new process gets a clean native context; a thread would share the broken one.
    if (this.#options.transport.isolates) this.#link?.terminate();
  }

  #onExit(cause: string, link: OwnerLink): void {
    const stderrTail = link.stderrTail();
    const wasReady = this.#ready;
    const livedMs = wasReady ? this.#options.clock.monotonicMs() - this.#readyAtMs : 0;
    const busyHandles = this.#jobs.busyHandles();
    const lostHandles = [...this.#liveHandles];
    this.#link = null;
    this.#ready = false;
    this.#firstHandle = this.#nextHandle;
    this.#liveHandles.clear();
    this.#rejectLost(cause, stderrTail);
    this.#onLinkExit?.();
    if (this.#closing !== null) return;
    const fatal = this.#poisonReason !== null && !this.#options.transport.isolates;
    if (!fatal) this.#scheduleRespawn(livedMs);
    this.#options.log.error('device owner died', {
      device: this.id,
      cause,
      busyHandles,
      lostHandles,
      stderrTail,
    });
    const poisoned = this.#poisonReason === null ? '' : ` (${this.#poisonReason})`;
    if (!fatal) this.#poisonReason = null;
    if (!wasReady) return;
    const death = { deviceId: this.id, cause: cause + poisoned, lostHandles, busyHandles, stderrTail };
    for (const listener of [...this.#deathListeners]) {
      const error = callHook(() => listener(death));
      if (error !== null) this.#options.log.error('an owner death listener failed', { error: error.message });
    }
  }

  /** What the dead owner had, and what was meant for its models; the rest waits for the next owner. */
  #rejectLost(cause: string, stderrTail: readonly string[]): void {
    for (const pending of this.#jobs.all()) {
      if (pending.job.kind === 'DropArch') this.#jobs.resolve(pending, null);
      else if (pending.aborted) settleAborted(this.#jobs, pending);
      else if (pending.posted || handleOf(pending.job) !== null || this.#closing !== null) {
        this.#jobs.reject(pending, this.#gone(`lost its owner (${cause}); try again`, stderrTail));
      } else if (pending.waitTimer === null) this.#waitForOwner(pending);
    }
  }

  #scheduleRespawn(livedMs: number): void {
    if (livedMs >= this.#limits.respawnResetMs) this.#respawnMs = this.#limits.respawnMsMin;
    const delayMs = this.#respawnMs;
    this.#respawnMs = Math.min(this.#respawnMs * 2, this.#limits.respawnMsMax);
    this.#state = 'respawning';
    this.#respawnTimer = this.#options.clock.setTimer(delayMs, () => {
      this.#respawnTimer = null;
      this.#spawn();
    });
  }

  async #shutdown(): Promise<void> {
    this.#state = 'closed';
    this.#respawnTimer?.cancel();
    const link = this.#link;
    if (link !== null) {
      const exited = new Promise<void>((resolve) => {
        this.#onLinkExit = resolve;
      });
      const drained = this.#jobs.untilIdle();
      if (!(await this.#within(this.#limits.drainMsMax, drained, exited))) {
        for (const pending of this.#jobs.all()) this.#abort(pending);
        await this.#within(this.#limits.cancelMsMax, drained, exited);
      }
      link.post({ kind: 'Shutdown' });
      if (!(await this.#within(this.#limits.exitMsMax, exited))) {
        link.terminate();
        // A thread inside a native call cannot be stopped; it ends with the process.
        await this.#within(this.#limits.exitMsMax, exited);
      }
    }
    for (const pending of this.#jobs.all()) this.#jobs.reject(pending, this.#gone('is no longer running'));
  }

  /** Whether one of `events` came within the time. */
  async #within(ms: number, ...events: readonly Promise<void>[]): Promise<boolean> {
    let timer: { cancel(): void } | null = null;
    const late = new Promise<false>((resolve) => {
      timer = this.#options.clock.setTimer(ms, () => resolve(false));
    });
    const came = Promise.race(events).then(() => true);
    return Promise.race([came, late]).finally(() => timer?.cancel());
  }

  #gone(what: string, stderrTail: readonly string[] = []): AppError {
    return new AppError('device_gone', `device ${this.id} ${what}`, {
      retryAfterSecs: 2,
      ...(stderrTail.length === 0 ? {} : { detail: stderrTail.join('\n') }),
    });
  }

  #poisoned(): AppError {
    const way = this.#options.transport.isolates
      ? 'its owner is being replaced'
      : 'restart the neuron to recover';
    const text = `device ${this.id} is poisoned (${this.#poisonReason}); ${way}`;
    return new AppError('device_poisoned', text, { retryAfterSecs: 2 });
  }
}
