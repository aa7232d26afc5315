/**
 * The jobs of one device that have no result yet: who waits, what they wait for, what runs on which handle.
 */
import { AppError, toAppError } from 'cortex-core/wire/errors';
import type { ArchHandle, StepEvent } from 'cortex-core/wire/inference';
import { handleOf, isLoad, type Job, type JobId, type JobResult, specOf } from './jobs.ts';
import type { OwnerDeviceLimits } from './owner-device-options.ts';

type SilenceLimits = Pick<OwnerDeviceLimits, 'stepMsMax' | 'loadSilenceMsMax'>;

export interface JobHooks {
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: (event: StepEvent) => void;
  readonly onProgress?: (fraction: number) => void;
}

export interface PendingJob {
  readonly id: JobId;
  readonly job: Job;
  readonly hooks: JobHooks;
  /** Whether the owner has it. */
  posted: boolean;
  /** The caller has given up; the owner still has to say how it ended. */
  aborted: boolean;
  waitTimer: { cancel(): void } | null;
  readonly resolve: (result: JobResult) => void;
  readonly reject: (error: AppError) => void;
}

export class PendingJobs {
  readonly #jobs = new Map<JobId, PendingJob>();
  readonly #idleWaiters = new Set<() => void>();
  #nextId: JobId = 1;

  get size(): number {
    return this.#jobs.size;
  }

  get(id: JobId): PendingJob | undefined {
    return this.#jobs.get(id);
  }

  all(): readonly PendingJob[] {
    return [...this.#jobs.values()];
  }

  /** Registers a job; `onAbort` is called when its signal aborts before it ended. */
  add(job: Job, hooks: JobHooks, onAbort: (pending: PendingJob) => void): [PendingJob, Promise<JobResult>] {
    const { promise, resolve, reject } = deferred<JobResult>();
    const abort = (): void => onAbort(pending);
    const end = (): void => {
      pending.waitTimer?.cancel();
      hooks.signal?.removeEventListener('abort', abort);
    };
    const pending: PendingJob = {
      id: this.#nextId++,
      job,
      hooks,
      posted: false,
      aborted: false,
      waitTimer: null,
      resolve: (result) => {
        end();
        resolve(result);
      },
      reject: (error) => {
        end();
        reject(error);
      },
    };
    hooks.signal?.addEventListener('abort', abort, { once: true });
    this.#jobs.set(pending.id, pending);
    return [pending, promise];
  }

  resolve(pending: PendingJob, result: JobResult): void {
    if (this.#remove(pending)) pending.resolve(result);
  }

  reject(pending: PendingJob, error: AppError): void {
    if (this.#remove(pending)) pending.reject(error);
  }

  /** The load that the owner works on; loads go one at a time, so that each can be given up by its id. */
  postedLoad(): PendingJob | undefined {
    return this.all().find(({ job, posted }) => posted && isLoad(job));
  }

  /**
   * Who may have brought the owner down: handles, and the name of the model that it loads. `at`: where it
   * was; null = not known, then all that it had.
   */
  suspects(at: ArchHandle | null): {
    readonly busyHandles: readonly ArchHandle[];
    readonly loading: string | null;
  } {
    const handles = new Set<ArchHandle>();
    for (const { job, posted } of this.#jobs.values()) {
      const handle = handleOf(job);
      if (posted && handle !== null && job.kind !== 'DropArch') handles.add(handle);
    }
    const load = this.postedLoad()?.job;
    const loading = load !== undefined && isLoad(load) ? specOf(load).modelId : null;
    if (at === null) return { busyHandles: [...handles], loading };
    return { busyHandles: handles.has(at) ? [at] : [], loading: at === 0 ? loading : null };
  }

  /** How long an owner that is up may say nothing with what it has; null = for ever. */
  silenceMsMax({ stepMsMax, loadSilenceMsMax }: SilenceLimits): number | null {
    const load = this.postedLoad();
    // A load that has been given up must see that soon; one that goes on may wait long for a slow disk.
    if (load !== undefined) return load.aborted ? stepMsMax : loadSilenceMsMax;
    return this.all().some(({ posted }) => posted) ? stepMsMax : null;
  }

  /** Calls a listener of a job that still has one; what it throws is returned. */
  tell(id: JobId, call: (hooks: JobHooks) => void): AppError | null {
    const pending = this.#jobs.get(id);
    return pending === undefined || pending.aborted ? null : callHook(() => call(pending.hooks));
  }

  /** Resolves when nothing is pending. */
  untilIdle(): Promise<void> {
    if (this.#jobs.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.add(resolve));
  }

  #remove(pending: PendingJob): boolean {
    if (!this.#jobs.delete(pending.id)) return false;
    if (this.#jobs.size === 0) {
      for (const wake of this.#idleWaiters) wake();
      this.#idleWaiters.clear();
    }
    return true;
  }
}

/** How a job ends whose caller gave up before the owner had it, or that has nothing to undo. */
export function settleAborted(jobs: PendingJobs, pending: PendingJob): void {
  const { job, hooks } = pending;
  if (job.kind === 'Generate') {
    jobs.resolve(pending, {
      finishReason: 'cancelled',
      stopText: null,
      usage: { promptTokens: job.params.tokens.length, cachedTokens: 0, completionTokens: 0 },
      timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 },
    });
    return;
  }
  if (isLoad(job)) {
    const { modelId } = specOf(job);
    jobs.reject(pending, new AppError('load_cancelled', `the load of "${modelId}" was cancelled`));
    return;
  }
  const reason: unknown = hooks.signal?.reason;
  jobs.reject(
    pending,
    reason instanceof AppError
      ? reason
      : new AppError('job_failed', `${job.kind}: given up by its caller`, { cause: reason }),
  );
}

/**
 * Ends what a dead owner had, and what was meant for its models, with `gone`; the rest waits for the next
 * owner, unless there will be none (`wait` null).
 */
export function loseOwner(
  jobs: PendingJobs,
  gone: AppError,
  wait: ((pending: PendingJob) => void) | null,
): void {
  for (const pending of jobs.all()) {
    if (pending.job.kind === 'DropArch') jobs.resolve(pending, null);
    else if (pending.aborted) settleAborted(jobs, pending);
    else if (pending.posted || handleOf(pending.job) !== null || wait === null) jobs.reject(pending, gone);
    else if (pending.waitTimer === null) wait(pending);
  }
}

/** Runs a caller's callback; what it throws is the caller's failure, not the device's. */
export function callHook(run: () => void): AppError | null {
  try {
    run();
    return null;
  } catch (error) {
    return toAppError(error);
  }
}

function deferred<T>(): { promise: Promise<T>; resolve: (v: T) => void; reject: (e: unknown) => void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
