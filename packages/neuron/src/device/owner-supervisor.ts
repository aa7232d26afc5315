/**
 * One owner after another for one device: what is submitted ends exactly once, whatever becomes of the owner.
 *
 * Problem: the owner can die at any moment (native abort, OOM kill), hang, or be poisoned; none of it may
 * hang a caller, take the daemon down, or let an old handle name a new model.
 * Design: every submitted job is in `PendingJobs` until it ends exactly once. A dead owner rejects what it
 * had with a retryable `Gone` and is spawned again with exponential back-off; jobs submitted meanwhile wait
 * for the new owner up to a limit. The new owner's handles start above every handle of the old one. Loads go
 * one at a time. An owner that is silent at work for too long is hung: a process is killed, a thread, which
 * nothing can end, leaves its device poisoned. Limits: `OwnerDeviceLimits`.
 */
import type { AppError } from 'cortex-core/wire/errors';
import type { ArchHandle, StepEvent } from 'cortex-core/wire/inference';
import type { DeviceState, OwnerDeath } from './device.ts';
import { type Poisoned, toDeviceError, toGone, toOverloaded, toPoisoned } from './device-errors.ts';
import {
  type FromOwner,
  handleOf,
  isLoad,
  isStepped,
  type Job,
  type JobKind,
  type JobResults,
  opensHandle,
  type Settled,
} from './jobs.ts';
import { OwnerDeaths } from './owner-deaths.ts';
import {
  defaultOwnerDeviceLimits,
  type OwnerDeviceLimits,
  type OwnerDeviceOptions,
} from './owner-device-options.ts';
import { type JobHooks, loseOwner, type PendingJob, PendingJobs, settleAborted } from './pending-jobs.ts';
import { Respawn } from './respawn.ts';
import { SilenceWatchdog } from './silence-watchdog.ts';
import type { OwnerLink } from './transport.ts';
import { within } from './within.ts';

export class OwnerSupervisor {
  readonly #id: string;
  readonly #options: OwnerDeviceOptions;
  readonly #limits: OwnerDeviceLimits;
  readonly #jobs = new PendingJobs();
  readonly #watchdog: SilenceWatchdog;
  readonly #liveHandles = new Set<ArchHandle>();
  readonly #deaths: OwnerDeaths;
  #state: DeviceState = 'starting';
  #link: OwnerLink | null = null;
  #life = 0;
  #ready = false;
  /** Null: this owner was not up yet. */
  #readyAtMs: number | null = null;
  /** Handles below belong to owners that died. */
  #firstHandle: ArchHandle = 1;
  #nextHandle: ArchHandle = 1;
  readonly #respawn: Respawn;
  /** Runs from the moment this owner was ended by force. */
  #killTimer: { cancel(): void } | null = null;
  #startError: AppError | null = null;
  #poisonReason: string | null = null;
  /** Why this owner is being ended from here. */
  #endReason: string | null = null;
  #isRestarting = false;
  #closing: Promise<void> | null = null;
  #onLinkExit: (() => void) | null = null;

  /** Spawns the owner at once; jobs may be submitted before it is up. */
  constructor(options: OwnerDeviceOptions) {
    this.#id = options.id;
    this.#options = options;
    this.#limits = { ...defaultOwnerDeviceLimits, ...options.limits };
    this.#deaths = new OwnerDeaths(options.log);
    this.#respawn = new Respawn(options.clock, this.#limits, () => this.#spawn());
    this.#watchdog = new SilenceWatchdog({
      clock: options.clock,
      checkMs: this.#limits.stepMsMax,
      allowedMs: () => this.#silenceMsMax(),
      onSilence: (ms) => this.#onHang(ms),
    });
    this.#spawn();
  }

  get state(): DeviceState {
    return this.#state;
  }

  get ownerPid(): number | null {
    return this.#link?.pid ?? null;
  }

  onDeath(listener: (death: OwnerDeath) => void): () => void {
    return this.#deaths.listen(listener);
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#shutdown();
    return this.#closing;
  }

  /** An owner that is gone took its models with it, and a poisoned one is past saving: always succeeds. */
  async drop(handle: ArchHandle): Promise<void> {
    this.#liveHandles.delete(handle);
    if (!this.#ready || this.#poisonReason !== null) return;
    await this.submit({ kind: 'DropArch', handle }, {}).catch(() => {});
  }

  /**
   * Ends the owner, a thread inside a step in at most `stepMsMax`, and waits for the next one, at most
   * `ownerWaitMsMax`. What it had is lost as in a death,
   * and listeners hear of one (`restarted`).
   */
  async restart(): Promise<void> {
    const refusal = this.#refusal({ kind: 'QueryVram' });
    if (refusal !== null) throw refusal;
    const link = this.#link;
    if (this.#respawn.isPending)
      this.#respawn.after(0); // who asks does not wait for the back-off
    else if (link !== null && this.#ready) {
      this.#isRestarting = true;
      this.#ready = false; // what comes now waits for the next owner
      this.#state = 'respawning';
      const exited = this.#untilExit();
      // A load blocks the owner, which would not read the rest.
      const load = this.#jobs.postedLoad();
      if (load !== undefined) link.cancelLoad(load.id);
      link.post({ kind: 'Shutdown' });
      // Only its own end frees what a thread has; a process leaves nothing behind.
      const waitMs = this.#options.transport.isolates ? this.#limits.exitMsMax : this.#limits.stepMsMax;
      if (!(await within(this.#options.clock, waitMs, exited))) this.#terminate();
    }
    await this.submit({ kind: 'QueryVram' }, {});
  }

  async submit<K extends JobKind>(job: Extract<Job, { kind: K }>, hooks: JobHooks): Promise<JobResults[K]> {
    const refusal = this.#refusal(job);
    if (refusal !== null) throw refusal;
    const [pending, result] = this.#jobs.add(job, hooks, (aborted) => this.#abort(aborted));
    if (hooks.signal?.aborted) settleAborted(this.#jobs, pending);
    else if (this.#ready) this.#post(pending);
    else this.#waitForOwner(pending);
    return (await result) as JobResults[K];
  }

  #refusal(job: Job): AppError | null {
    if (this.#closing !== null && job.kind !== 'DropArch') return toGone(this.#id, 'is no longer running');
    if (this.#poisonReason !== null) return this.#poisoned();
    if (this.#startError !== null) return this.#startError;
    const handle = handleOf(job);
    if (handle !== null && handle < this.#firstHandle && job.kind !== 'DropArch') {
      const lost = `lost the model of handle ${handle} when its owner died; it is being loaded again`;
      return toGone(this.#id, lost);
    }
    // A drop that is refused would leave its model there for good.
    if (this.#jobs.size < this.#limits.jobsMax || job.kind === 'DropArch') return null;
    return toOverloaded(this.#id, this.#jobs.size);
  }

  #post(pending: PendingJob): void {
    pending.waitTimer?.cancel(); // there is an owner, if only an earlier load comes first
    pending.waitTimer = null;
    if (isLoad(pending.job) && this.#jobs.postedLoad() !== undefined) return;
    this.#watchdog.start(this.#silenceMsMax() === null);
    pending.posted = true;
    this.#link?.post({ kind: 'Submit', id: pending.id, job: pending.job });
  }

  #postAll(): void {
    for (const pending of this.#jobs.all()) if (!pending.posted) this.#post(pending);
  }

  #waitForOwner(pending: PendingJob): void {
    pending.waitTimer?.cancel();
    pending.waitTimer = this.#options.clock.setTimer(this.#limits.ownerWaitMsMax, () => {
      const text = `has had no owner for ${this.#limits.ownerWaitMsMax / 1000} s`;
      this.#jobs.reject(pending, toGone(this.#id, text));
    });
  }

  #abort(pending: PendingJob): void {
    const { id, job, posted } = pending;
    if (posted && isLoad(job)) this.#link?.cancelLoad(id);
    else if (posted && isStepped(job)) this.#link?.post({ kind: 'Cancel', id });
    if (posted && (isLoad(job) || job.kind === 'Generate')) pending.aborted = true;
    else settleAborted(this.#jobs, pending);
  }

  #spawn(): void {
    let link: OwnerLink;
    try {
      link = this.#options.transport.spawn({
        onMessage: (message) => this.#receive(message),
        onExit: (cause) => this.#onExit(cause, link),
      });
    } catch (error) {
      this.#options.log.error('device owner cannot be spawned', { device: this.#id, error: String(error) });
      this.#state = 'respawning';
      this.#respawn.backOff(0);
      return;
    }
    this.#link = link;
    this.#watchdog.start(true);
    this.#nextHandle = this.#firstHandle;
    this.#life++;
    const { owner } = this.#options;
    link.post({ kind: 'Start', firstHandle: this.#firstHandle, life: this.#life, options: owner });
  }

  #receive(message: FromOwner): void {
    this.#watchdog.heard();
    switch (message.kind) {
      case 'Ready':
        if (this.#killTimer !== null) return; // too late
        this.#ready = true;
        this.#readyAtMs = this.#options.clock.monotonicMs();
        this.#startError = null;
        if (this.#state !== 'closed') this.#state = 'ready';
        this.#postAll();
        return;
      case 'StartFailed':
        this.#startError = toDeviceError(this.#id, message.error);
        this.#options.log.error('device owner cannot start', { device: this.#id, error: message.error });
        for (const pending of this.#jobs.all()) this.#jobs.reject(pending, this.#startError);
        return;
      case 'Progress':
        this.#onProgress(message.id, message.fraction);
        return;
      case 'Steps':
        for (const { id, event } of message.steps) this.#onStep(id, event);
        for (const settled of message.settled) this.#onSettled(settled);
        return;
      case 'Alive':
        return;
      default:
        message satisfies never;
    }
  }

  #onProgress(id: number, fraction: number): void {
    const error = this.#jobs.tell(id, (hooks) => hooks.onProgress?.(fraction));
    if (error !== null) this.#options.log.warn('a load progress listener failed', { error: error.message });
  }

  #onStep(id: number, event: StepEvent): void {
    const error = this.#jobs.tell(id, (hooks) => hooks.onStep?.(event));
    const pending = this.#jobs.get(id);
    if (error === null || pending === undefined) return;
    this.#link?.post({ kind: 'Cancel', id });
    this.#jobs.reject(pending, error);
  }

  #onSettled(settled: Settled): void {
    const pending = this.#jobs.get(settled.id);
    if (pending === undefined) return;
    if (settled.ok) this.#succeed(pending, settled.result as JobResults[JobKind]);
    else {
      const ended = toDeviceError(this.#id, settled.error);
      const isOurs = ended.code === 'load_cancelled' && this.#isRestarting && !pending.aborted;
      const error = isOurs ? toGone(this.#id, 'is being restarted; try again') : ended;
      this.#jobs.reject(pending, error);
      if (error.code === 'logits_not_finite') {
        this.#options.log.error(error.message, { device: this.#id, health: error.detail });
      }
      if (error.code === 'device_poisoned') this.#poison(error.message);
    }
    if (isLoad(pending.job) && this.#ready) this.#postAll();
  }

  #succeed(pending: PendingJob, result: JobResults[JobKind]): void {
    if (opensHandle(pending.job)) {
      const { handle } = result as { readonly handle: ArchHandle };
      this.#nextHandle = Math.max(this.#nextHandle, handle + 1);
      if (pending.aborted) {
        // The load ended before the owner saw the cancel: nobody would ever drop this model.
        settleAborted(this.#jobs, pending);
        void this.drop(handle);
        return;
      }
      this.#liveHandles.add(handle);
    }
    this.#jobs.resolve(pending, result);
  }

  #silenceMsMax(): number | null {
    // Opening libllama, or a driver.
    return this.#ready ? this.#jobs.silenceMsMax(this.#limits) : this.#limits.loadSilenceMsMax;
  }

  #onHang(ms: number): void {
    const { loading } = this.#jobs.suspects(this.#link?.workingOn() ?? null);
    const what = !this.#ready ? 'its start' : loading === null ? 'a step' : `the load of "${loading}"`;
    const reason = `${what} hung for ${Math.round(ms / 1000)} s`;
    if (!this.#options.transport.isolates) {
      this.#poison(reason);
      return;
    }
    this.#options.log.error('device owner hangs and is killed', { device: this.#id, reason });
    this.#endReason = reason;
    this.#terminate();
  }

  /** Even SIGKILL waits for a process inside the kernel: its jobs do not, and it gets no new ones. */
  #terminate(): void {
    this.#ready = false;
    if (this.#state === 'ready') this.#state = 'respawning';
    this.#watchdog.close();
    this.#killTimer?.cancel();
    this.#killTimer = this.#options.clock.setTimer(this.#limits.exitMsMax, () => {
      this.#loseOwner(toGone(this.#id, 'has an owner that cannot be ended; try again'));
    });
    this.#link?.terminate();
  }

  #loseOwner(gone: AppError): void {
    loseOwner(this.#jobs, gone, this.#closing === null ? (pending) => this.#waitForOwner(pending) : null);
  }

  #poison(reason: string): void {
    this.#poisonReason = reason;
    if (this.#state !== 'closed') this.#state = 'poisoned';
    for (const pending of this.#jobs.all()) this.#jobs.reject(pending, this.#poisoned());
    this.#options.log.error('device is poisoned', { device: this.#id, reason });
    // A new process gets a clean native context; a thread would share the broken one.
    if (this.#options.transport.isolates) this.#terminate();
  }

  #onExit(exit: string, link: OwnerLink): void {
    const stderrTail = link.stderrTail();
    const wasReady = this.#readyAtMs !== null;
    const livedMs = this.#readyAtMs === null ? 0 : this.#options.clock.monotonicMs() - this.#readyAtMs;
    const isFatal = this.#poisonReason !== null && !this.#options.transport.isolates;
    const why = this.#poisonReason ?? this.#endReason;
    const cause = this.#isRestarting ? 'restarted' : why === null ? exit : `${exit} (${why})`;
    const death: OwnerDeath = {
      deviceId: this.#id,
      cause,
      lostHandles: [...this.#liveHandles],
      ...(this.#isRestarting ? { busyHandles: [], loading: null } : this.#jobs.suspects(link.workingOn())),
      stderrTail,
    };
    this.#watchdog.close();
    this.#killTimer?.cancel();
    this.#killTimer = null;
    this.#link = null;
    this.#ready = false;
    this.#readyAtMs = null;
    this.#firstHandle = this.#nextHandle;
    this.#liveHandles.clear();
    this.#loseOwner(toGone(this.#id, `lost its owner (${cause}); try again`, stderrTail));
    this.#onLinkExit?.();
    if (this.#closing !== null) return;
    const wasAsked = this.#isRestarting;
    this.#isRestarting = false;
    this.#endReason = null;
    if (!isFatal) {
      this.#poisonReason = null;
      this.#state = 'respawning';
      if (wasAsked) this.#respawn.after(0);
      else this.#respawn.backOff(livedMs);
    }
    this.#deaths.tell(death, { wasReady, wasAsked });
  }

  async #shutdown(): Promise<void> {
    this.#state = 'closed';
    this.#respawn.cancel();
    const link = this.#link;
    if (link !== null) {
      const exited = this.#untilExit();
      const drained = this.#jobs.untilIdle();
      if (!(await within(this.#options.clock, this.#limits.drainMsMax, drained, exited))) {
        for (const pending of this.#jobs.all()) this.#abort(pending);
        await within(this.#options.clock, this.#limits.cancelMsMax, drained, exited);
      }
      link.post({ kind: 'Shutdown' });
      if (!(await within(this.#options.clock, this.#limits.exitMsMax, exited))) {
        this.#terminate();
        // A thread inside a native call cannot be stopped; it ends with the process.
        await within(this.#options.clock, this.#limits.exitMsMax, exited);
      }
    }
    this.#watchdog.close();
    this.#killTimer?.cancel();
    for (const pending of this.#jobs.all())
      this.#jobs.reject(pending, toGone(this.#id, 'is no longer running'));
  }

  #untilExit(): Promise<void> {
    return new Promise((resolve) => {
      this.#onLinkExit = resolve;
    });
  }

  #poisoned(): Poisoned {
    return toPoisoned(this.#id, this.#poisonReason ?? '', this.#options.transport.isolates);
  }
}
