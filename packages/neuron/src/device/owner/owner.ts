/**
 * The one job handler behind both transports.
 *
 * Problem: native contexts belong to one thread, jobs arrive while sequences run, and a stream's events must
 * neither wait for each other nor cost a message each.
 * Design: a slab (handle -> model), a dispatch and a run loop. `handle()` runs a job to its end, except
 * Generate, which joins the model's batch. While any model has work the loop steps each once, flushes what
 * the steps yielded as ONE message, and yields to the message source (`setImmediate`: the event loop polls
 * the port or the channel with no wait, ~2 us a turn), so that a cancel is seen within one step. Idle it
 * does not run at all.
 * Limits: a load blocks the owner, running streams on the same device included. A congested sink (a parent
 * that does not read) pauses stepping, so a stalled parent cannot fill this side's memory.
 */
import { AppError, serializeError } from 'cortex-core/wire/errors';
import type { ArchHandle } from 'cortex-core/wire/inference';
import {
  compactArray,
  type FromOwner,
  type GenerateJob,
  type Job,
  type JobId,
  type JobResult,
  type LoadJob,
  type Settled,
  type StepOfJob,
  type ToOwner,
} from '../jobs.ts';
import type { EngineLike, LoadedModelLike } from './engine-like.ts';

/** Progress messages per load at most, about 20 a second. */
const progressMsMin = 50;

export interface OwnerPorts {
  readonly send: (message: FromOwner) => void;
  /** True while the other side has not read what was sent; `Owner.wake` is called when it has. */
  readonly isCongested: () => boolean;
  /** The id of the load that shall be given up, 0 for none; readable while a load blocks this thread. */
  readonly cancelledLoad: () => JobId;
  /** Runs `turn` after the message source had its chance. */
  readonly schedule: (turn: () => void) => void;
  readonly nowMs: () => number;
  /** Called once, after everything native is freed. */
  readonly onEnd: () => void;
}

interface RunningGeneration {
  readonly handle: ArchHandle;
  readonly cancel: () => void;
  readonly fail: (error: AppError) => void;
}

export class Owner {
  readonly #ports: OwnerPorts;
  readonly #openEngine: (start: ToOwner & { kind: 'Start' }) => EngineLike;
  readonly #slab = new Map<ArchHandle, LoadedModelLike>();
  readonly #running = new Map<JobId, RunningGeneration>();
  /** Models whose step throws with nothing left to fail: not stepped again before the next Generate. */
  readonly #stuck = new Set<ArchHandle>();
  #engine: EngineLike | null = null;
  #nextHandle: ArchHandle = 1;
  #steps: StepOfJob[] = [];
  #settled: Settled[] = [];
  #scheduled = false;
  #closed = false;

  constructor(ports: OwnerPorts, openEngine: (start: ToOwner & { kind: 'Start' }) => EngineLike) {
    this.#ports = ports;
    this.#openEngine = openEngine;
  }

  handle(message: ToOwner): void {
    if (this.#closed) return;
    switch (message.kind) {
      case 'Start':
        this.#start(message);
        break;
      case 'Submit':
        this.#submit(message.id, message.job);
        break;
      case 'Cancel':
        this.#running.get(message.id)?.cancel();
        break;
      case 'Shutdown':
        this.close();
        return;
      default:
        message satisfies never;
    }
    this.#flush();
    this.wake();
  }

  /** Resumes stepping when there is work; harmless at any time. */
  wake(): void {
    if (this.#scheduled || this.#closed || this.#ports.isCongested() || !this.#hasWork()) return;
    this.#scheduled = true;
    this.#ports.schedule(() => {
      this.#scheduled = false;
      this.#turn();
    });
  }

  /** Ends what still runs, frees every model on this thread, then the engine. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const handle of [...this.#slab.keys()]) this.#drop(handle, 'the owner shuts down');
    this.#flush();
    try {
      this.#engine?.close();
    } finally {
      this.#engine = null;
      this.#ports.onEnd();
    }
  }

  #start(message: ToOwner & { kind: 'Start' }): void {
    this.#nextHandle = message.firstHandle;
    try {
      this.#engine = this.#openEngine(message);
      this.#ports.send({ kind: 'Ready' });
    } catch (error) {
      this.#ports.send({ kind: 'StartFailed', error: serializeError(asJobError('Start', error)) });
      this.close();
    }
  }

  #turn(): void {
    if (this.#closed || this.#ports.isCongested()) return;
    for (const [handle, model] of this.#slab) {
      if (this.#stuck.has(handle) || !model.hasWork()) continue;
      try {
        model.step();
      } catch (error) {
        if (!this.#failRunning(handle, asJobError('Generate', error))) this.#stuck.add(handle);
      }
    }
    this.#flush();
    this.wake();
  }

  #submit(id: JobId, job: Job): void {
    try {
      if (job.kind === 'Generate') this.#generate(id, job);
      else this.#settled.push({ id, ok: true, result: this.#run(id, job) });
    } catch (error) {
      this.#settled.push({ id, ok: false, error: serializeError(asJobError(job.kind, error)) });
    }
  }

  #run(id: JobId, job: Exclude<Job, GenerateJob>): JobResult {
    switch (job.kind) {
      case 'QueryVram':
        return this.#requireEngine().memory();
      case 'ListDevices':
        return this.#requireEngine().devices();
      case 'Load':
        return this.#load(id, job);
      case 'DropArch':
        this.#drop(job.handle, 'its model was unloaded');
        return null;
      case 'ClearKv':
        this.#model(job).clearKv();
        return null;
      case 'ForwardLogits':
        return compactArray(this.#model(job).forwardLogits(job.tokens, job.offset));
      case 'Tokenize':
        return compactArray(this.#model(job).tokenize(job.text, job.options));
      case 'Detokenize':
        return this.#model(job).detokenize(job.tokens);
      default:
        return job satisfies never;
    }
  }

  #load(id: JobId, job: LoadJob): JobResult {
    let sentAtMs = Number.NEGATIVE_INFINITY;
    let cancelled = this.#ports.cancelledLoad() === id;
    const cancelError = (cause?: unknown): AppError =>
      new AppError('load_cancelled', `the load of "${job.spec.modelId}" was cancelled`, { cause });
    if (cancelled) throw cancelError();
    let model: LoadedModelLike;
    try {
      model = this.#requireEngine().load(job.spec, (fraction) => {
        const now = this.#ports.nowMs();
        if (now - sentAtMs >= progressMsMin || fraction >= 1) {
          sentAtMs = now;
          this.#ports.send({ kind: 'Progress', id, fraction });
        }
        cancelled ||= this.#ports.cancelledLoad() === id;
        return !cancelled;
      });
    } catch (error) {
      throw cancelled ? cancelError(error) : error;
    }
    if (cancelled || this.#ports.cancelledLoad() === id) {
      model.close();
      throw cancelError();
    }
    const handle = this.#nextHandle++;
    this.#slab.set(handle, model);
    return { handle, facts: model.facts };
  }

  #generate(id: JobId, job: GenerateJob): void {
    const model = this.#model(job);
    let ended = false;
    const settle = (settled: Settled): void => {
      if (ended) return;
      ended = true;
      this.#running.delete(id);
      this.#settled.push(settled);
    };
    const sequence = model.submit(job.params, {
      onStep: (event) => {
        if (!ended) this.#steps.push({ id, event });
      },
      onDone: (result) => settle({ id, ok: true, result }),
      onError: (error) => settle({ id, ok: false, error: serializeError(asJobError(job.kind, error)) }),
    });
    if (ended) return;
    this.#stuck.delete(job.handle);
    this.#running.set(id, {
      handle: job.handle,
      cancel: () => sequence.cancel(),
      fail: (error) => settle({ id, ok: false, error: serializeError(error) }),
    });
  }

  #drop(handle: ArchHandle, why: string): void {
    const model = this.#slab.get(handle);
    if (model === undefined) return;
    this.#slab.delete(handle);
    this.#stuck.delete(handle);
    this.#failRunning(handle, new AppError('model_not_loaded', `Generate: stopped, because ${why}`));
    try {
      model.close();
    } catch (error) {
      // The contract: a drop always succeeds. What could not be freed goes with the owner.
      process.stderr.write(`DropArch: freeing handle ${handle} failed: ${String(error)}\n`);
    }
  }

  /** False when nothing ran there. */
  #failRunning(handle: ArchHandle, error: AppError): boolean {
    let failed = false;
    for (const generation of [...this.#running.values()]) {
      if (generation.handle !== handle) continue;
      failed = true;
      generation.fail(error);
      try {
        generation.cancel();
      } catch {
        // The sequence has already failed; its slot is freed with the model.
      }
    }
    return failed;
  }

  #model(job: { readonly kind: string; readonly handle: ArchHandle }): LoadedModelLike {
    const model = this.#slab.get(job.handle);
    if (model === undefined)
      throw new AppError('job_failed', `${job.kind}: no model for handle ${job.handle}`);
    return model;
  }

  #requireEngine(): EngineLike {
    if (this.#engine === null) throw new AppError('job_failed', 'the owner has not been started');
    return this.#engine;
  }

  #hasWork(): boolean {
    for (const [handle, model] of this.#slab) if (!this.#stuck.has(handle) && model.hasWork()) return true;
    return false;
  }

  #flush(): void {
    if (this.#steps.length === 0 && this.#settled.length === 0) return;
    this.#ports.send({ kind: 'Steps', steps: this.#steps, settled: this.#settled });
    this.#steps = [];
    this.#settled = [];
  }
}

/** What is not an AppError yet: JobFailed(cause). The cause's own text stays in the log. */
function asJobError(kind: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new AppError('job_failed', `${kind} failed: ${text}`, { cause: error });
}
