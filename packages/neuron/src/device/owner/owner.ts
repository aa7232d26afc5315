/**
 * The one job handler behind both transports.
 *
 * Problem: native contexts belong to one thread, jobs arrive while sequences run, and a stream's events must
 * neither wait for each other nor cost a message each.
 * Design: a slab (handle -> model), a dispatch and a run loop. `handle()` runs a job to its end, except
 * Generate, which joins the model's batch, and Embed and Rank, which queue. While there is work the loop
 * steps each model once and the first of the queue once, flushes what that yielded as ONE message (quick
 * steps together, see outbox.ts), and yields to the message source (`setImmediate`: the event loop polls the
 * port or the channel with no wait, ~2 us a turn), so that a cancel is seen within one step. Idle it does not
 * run at all.
 * Limits: a load blocks the owner, running streams on the same device included. A congested sink (a parent
 * that does not read) pauses stepping, so a stalled parent cannot fill this side's memory.
 */
import { AppError, type ErrorCode, serializeError } from 'cortex-core/wire/errors';
import type { ArchHandle, KvPrefix, LoadSpec } from 'cortex-core/wire/inference';
import {
  compactArray,
  type EmbedJob,
  type FromOwner,
  type GenerateJob,
  handleOf,
  isStepped,
  type Job,
  type JobId,
  type JobResult,
  type RankJob,
  type Settled,
  type ToOwner,
} from '../jobs.ts';
import type { EngineLike, LoadedModelLike, SteppedTaskLike, VocabularyLike } from './engine-like.ts';
import { asJobError } from './job-error.ts';
import { gatherMs, Outbox, restMs } from './outbox.ts';

/** Progress messages per load at most, about 20 a second. */
const progressMsMin = 50;
/** An owner at work that has nothing to say says so this often. */
const aliveMs = 1000;

export interface OwnerPorts {
  readonly send: (message: FromOwner) => void;
  /** True while the other side has not read what was sent; `Owner.wake` is called when it has. */
  readonly isCongested: () => boolean;
  /** The id of the load that shall be given up, 0 for none; readable while a load blocks this thread. */
  readonly cancelledLoad: () => JobId;
  /** The model that what comes now is for, 0 for none: when this owner dies, who was at work. */
  readonly workingOn: (handle: ArchHandle) => void;
  /** Runs `turn` after the message source had its chance. */
  readonly schedule: (turn: () => void) => void;
  readonly nowMs: () => number;
  /** Gives this thread's core to others. */
  readonly rest: (ms: number) => void;
  /** Called once, after everything native is freed. */
  readonly onEnd: () => void;
}

interface Held {
  readonly model: LoadedModelLike;
  readonly spec: LoadSpec;
}

interface QueuedTask {
  readonly id: JobId;
  readonly job: EmbedJob | RankJob;
  readonly task: SteppedTaskLike<JobResult>;
}

interface RunningGeneration {
  readonly handle: ArchHandle;
  readonly cancel: () => void;
  readonly fail: (error: AppError) => void;
}

export class Owner {
  readonly #ports: OwnerPorts;
  readonly #openEngine: (start: ToOwner & { kind: 'Start' }) => EngineLike;
  readonly #slab = new Map<ArchHandle, Held>();
  readonly #vocabularies = new Map<ArchHandle, VocabularyLike>();
  readonly #running = new Map<JobId, RunningGeneration>();
  /** First come, first served. */
  #tasks: readonly QueuedTask[] = [];
  /** Models whose step throws with nothing left to fail: not stepped again before the next Generate. */
  readonly #stuck = new Set<ArchHandle>();
  #engine: EngineLike | null = null;
  #nextHandle: ArchHandle = 1;
  #outbox = new Outbox(gatherMs.cpu);
  #restMs = 0;
  #sentAtMs = 0;
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
        this.#tasks = this.#tasks.filter(({ id }) => id !== message.id);
        break;
      case 'Shutdown':
        this.close();
        return;
      default:
        message satisfies never;
    }
    this.#flush(!this.#hasWork());
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
    for (const handle of [...this.#slab.keys(), ...this.#vocabularies.keys()])
      this.#drop(handle, 'the owner shuts down', 'device_gone');
    this.#flush(true);
    try {
      this.#engine?.close();
    } finally {
      this.#engine = null;
      this.#ports.onEnd();
    }
  }

  #start(message: ToOwner & { kind: 'Start' }): void {
    this.#nextHandle = message.firstHandle;
    const { gpu } = message.options;
    this.#outbox = new Outbox(gpu ? gatherMs.gpu : gatherMs.cpu);
    this.#restMs = gpu ? 0 : restMs;
    try {
      this.#engine = this.#openEngine(message);
      this.#send({ kind: 'Ready' });
    } catch (error) {
      this.#send({ kind: 'StartFailed', error: serializeError(asJobError('Start', error)) });
      this.close();
    }
  }

  #turn(): void {
    if (this.#closed || this.#ports.isCongested()) return;
    for (const [handle, { model }] of this.#slab) {
      if (this.#stuck.has(handle) || !model.hasWork()) continue;
      this.#ports.workingOn(handle);
      try {
        model.step();
      } catch (error) {
        if (!this.#failRunning(handle, asJobError('Generate', error))) this.#stuck.add(handle);
      }
    }
    this.#stepTask();
    this.#flush(!this.#hasWork());
    if (this.#ports.nowMs() - this.#sentAtMs >= aliveMs) this.#send({ kind: 'Alive' });
    this.wake();
  }

  #stepTask(): void {
    const first = this.#tasks[0];
    if (first === undefined) return;
    const { id, job, task } = first;
    this.#ports.workingOn(job.handle);
    try {
      const result = task.step();
      if (result === null) return;
      this.#outbox.settle({ id, ok: true, result });
    } catch (error) {
      this.#outbox.settle({ id, ok: false, error: serializeError(asJobError(job.kind, error)) });
    }
    this.#tasks = this.#tasks.slice(1);
  }

  #submit(id: JobId, job: Job): void {
    try {
      // What is gathered must not wait for a load or a prompt.
      this.#flush(true);
      this.#ports.workingOn(handleOf(job) ?? 0);
      if (isStepped(job)) {
        this.#begin(id, job);
        return;
      }
      this.#outbox.settle({ id, ok: true, result: this.#run(id, job) });
    } catch (error) {
      this.#outbox.settle({ id, ok: false, error: serializeError(asJobError(job.kind, error)) });
    }
  }

  #begin(id: JobId, job: GenerateJob | EmbedJob | RankJob): void {
    if (job.kind === 'Generate') {
      this.#generate(id, job);
      return;
    }
    const model = this.#model(job);
    const task = job.kind === 'Embed' ? model.embed(job.inputs) : model.rank(job.inputs);
    this.#tasks = [...this.#tasks, { id, job, task }];
  }

  #run(id: JobId, job: Exclude<Job, GenerateJob | EmbedJob | RankJob>): JobResult {
    switch (job.kind) {
      case 'QueryVram':
        return this.#requireEngine().memory();
      case 'ListDevices':
        return this.#requireEngine().devices();
      case 'Load':
        return this.#load(id, job.spec, []);
      case 'TransferIn':
        return this.#load(id, job.exported.spec, job.exported.prefixes);
      case 'OpenVocabulary': {
        const vocabulary = this.#requireEngine().openVocabulary(job.modelId, job.file);
        const handle = this.#nextHandle++;
        this.#vocabularies.set(handle, vocabulary);
        return { handle, facts: vocabulary.facts };
      }
      case 'Export': {
        const { model, spec } = this.#held(job);
        return { spec, prefixes: model.exportPrefixes() };
      }
      case 'DropArch':
        this.#drop(job.handle, 'its model was unloaded');
        return null;
      case 'ClearKv':
        this.#model(job).clearKv();
        return null;
      case 'ForwardLogits':
        return compactArray(this.#model(job).forwardLogits(job.tokens, job.offset));
      case 'Tokenize':
        return compactArray(
          (this.#vocabularies.get(job.handle) ?? this.#model(job)).tokenize(job.text, job.options),
        );
      case 'Detokenize':
        return this.#model(job).detokenize(job.tokens);
      case 'SnapshotKv':
        return this.#model(job).snapshotKv();
      case 'RestoreKv':
        return this.#model(job).restoreKv(job.id);
      case 'DropKvSnapshot':
        return this.#model(job).dropKvSnapshot(job.id);
      default:
        return job satisfies never;
    }
  }

  #load(id: JobId, spec: LoadSpec, prefixes: readonly KvPrefix[]): JobResult {
    let sentAtMs = Number.NEGATIVE_INFINITY;
    let cancelled = this.#ports.cancelledLoad() === id;
    const cancelError = (cause?: unknown): AppError =>
      new AppError('load_cancelled', `the load of "${spec.modelId}" was cancelled`, { cause });
    if (cancelled) throw cancelError();
    let model: LoadedModelLike;
    try {
      model = this.#requireEngine().load(spec, (fraction) => {
        const now = this.#ports.nowMs();
        if (now - sentAtMs >= progressMsMin || fraction >= 1) {
          sentAtMs = now;
          this.#send({ kind: 'Progress', id, fraction });
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
    warm(model, prefixes);
    const handle = this.#nextHandle++;
    this.#slab.set(handle, { model, spec });
    return { handle, facts: model.facts };
  }

  #generate(id: JobId, job: GenerateJob): void {
    const model = this.#model(job);
    let ended = false;
    const settle = (settled: Settled): void => {
      if (ended) return;
      ended = true;
      this.#running.delete(id);
      this.#outbox.settle(settled);
    };
    const sequence = model.submit(job.params, {
      onStep: (event) => {
        if (!ended) this.#outbox.addStep(id, event);
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

  #drop(handle: ArchHandle, why: string, code: ErrorCode = 'model_not_loaded'): void {
    this.#vocabularies.get(handle)?.close();
    this.#vocabularies.delete(handle);
    const held = this.#slab.get(handle);
    if (held === undefined) return;
    this.#slab.delete(handle);
    this.#stuck.delete(handle);
    this.#failRunning(handle, new AppError(code, `Generate: stopped, because ${why}`));
    for (const { id, job } of this.#tasks.filter((task) => task.job.handle === handle)) {
      const error = new AppError(code, `${job.kind}: stopped, because ${why}`);
      this.#outbox.settle({ id, ok: false, error: serializeError(error) });
    }
    this.#tasks = this.#tasks.filter(({ job }) => job.handle !== handle);
    try {
      held.model.close();
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

  #held(job: { readonly kind: string; readonly handle: ArchHandle }): Held {
    const held = this.#slab.get(job.handle);
    if (held === undefined)
      throw new AppError('job_failed', `${job.kind}: no model for handle ${job.handle}`);
    return held;
  }

  #model(job: { readonly kind: string; readonly handle: ArchHandle }): LoadedModelLike {
    return this.#held(job).model;
  }

  #requireEngine(): EngineLike {
    if (this.#engine === null) throw new AppError('job_failed', 'the owner has not been started');
    return this.#engine;
  }

  #hasWork(): boolean {
    if (this.#tasks.length > 0) return true;
    for (const [handle, { model }] of this.#slab)
      if (!this.#stuck.has(handle) && model.hasWork()) return true;
    return false;
  }

  #send(message: FromOwner): void {
    this.#sentAtMs = this.#ports.nowMs();
    this.#ports.send(message);
  }

  /** `isLast`: also what could wait for the next step's yield. */
  #flush(isLast: boolean): void {
    const content = this.#outbox.take(this.#ports.nowMs(), isLast);
    if (content === null) return;
    const { begins, ...sent } = content;
    this.#send({ kind: 'Steps', ...sent });
    if (begins && !isLast) this.#ports.rest(this.#restMs);
  }
}

/** A prefix is an advantage, not a condition: a load without them is a load all the same. */
function warm(model: LoadedModelLike, prefixes: readonly KvPrefix[]): void {
  if (prefixes.length === 0) return;
  try {
    model.importPrefixes(prefixes);
  } catch (error) {
    process.stderr.write(`TransferIn: the prefixes were left out: ${String(error)}\n`);
  }
}
