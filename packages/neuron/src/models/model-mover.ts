/**
 * Moves loaded models between owners: to another device, or to a fresh owner of the same one.
 *
 * Problem: requests come at any time, and either owner can die, or the model be unloaded, at any await.
 * Design: draining: newcomers wait in the registry, who was admitted ends or is cut; then, in the same tick
 * in which nothing runs, moving: export, transfer in, and the handle is swapped in one tick, so that a
 * request sees the old one or the new one whole. Who moves holds the memory of what moves.
 * Limits: while a model moves, both devices hold it.
 */
import type { Log } from 'cortex-core/daemon/log';
import { AppError, describeCause, toAppError } from 'cortex-core/wire/errors';
import type { ExportedArch } from 'cortex-core/wire/inference';
import type { DeviceSlot, Target } from './choose-target.ts';
import type { LoadedModel } from './loader.ts';
import type { LostHandles } from './lost-handles.ts';
import type { ModelEntry } from './model-entry.ts';
import type { Placement } from './placement.ts';
import { type Adoption, adoptModel, transferModel } from './transfer.ts';

export interface ModelMoverDeps {
  readonly placement: Placement;
  readonly log: Log;
  readonly lost: LostHandles;
  /** Loads a model again, plainly; sets its status and `ready`. */
  readonly recover: (entry: ModelEntry) => void;
}

/** Ids of the models that a fresh owner has again. */
export interface RecycleReport {
  /** With what they had. */
  readonly transferred: readonly string[];
  /** By a plain load. */
  readonly reloaded: readonly string[];
  /** Not at all; `GET /models` says why. */
  readonly failed: readonly string[];
}

/** Per model of a recycle: wakes who waits for it, once it serves again, recovers, or is unloaded. */
type Marks = Map<ModelEntry, () => void>;

/** Each round is short once running requests were cut. */
const drainRoundsMax = 8;

export class ModelMover {
  readonly #deps: ModelMoverDeps;
  readonly #recycling = new Map<DeviceSlot, Promise<RecycleReport>>();

  constructor(deps: ModelMoverDeps) {
    this.#deps = deps;
  }

  /** The entry must be `loaded`; it is again when this settles, or recovers, or was unloaded meanwhile. */
  move(entry: ModelEntry, target: Target, drainMs: number): Promise<void> {
    entry.status = 'draining';
    const done = this.#move(entry, target, drainMs);
    entry.ready = done;
    return done;
  }

  /** The entries must be `loaded` on `slot`. One at a time per slot: who comes later gets the same report. */
  recycle(slot: DeviceSlot, entries: readonly ModelEntry[], drainMs: number): Promise<RecycleReport> {
    const running = this.#recycling.get(slot);
    if (running !== undefined) return running;
    const marks: Marks = new Map();
    for (const entry of entries) {
      entry.status = 'draining';
      entry.ready = new Promise((resolve) => marks.set(entry, resolve));
    }
    const done = this.#recycle(slot, marks, drainMs).finally(() => {
      for (const markDecided of marks.values()) markDecided();
      this.#recycling.delete(slot);
    });
    this.#recycling.set(slot, done);
    return done;
  }

  async #move(entry: ModelEntry, target: Target, drainMs: number): Promise<void> {
    const { placement, log, lost } = this.#deps;
    const old = await this.#drain(entry, drainMs);
    const { signal } = entry.stopLoading;
    try {
      const transfer = { ...toAdoption(entry), spec: entry.spec, target };
      const moved = await transferModel(placement, old, transfer);
      if (signal.aborted || lost.has(moved)) {
        await moved.slot.device.dropArch(moved.arch.handle);
        moved.reservation.release();
        throw signal.aborted ? signal.reason : lost.toError(moved);
      }
      const devices = target.members.flatMap(({ indices }) => indices);
      // A recovery must find one place: these devices, as they are split here.
      entry.spec = { ...entry.spec, devices, tensor_parallel: null, split_mode: target.splitMode };
      entry.slotsAsked = entry.spec.slots;
      entry.attach(moved);
      log.info('model moved', { model: entry.id, from: old.slot.device.id, to: target.id });
    } catch (error) {
      this.#putBack(entry, old);
      throw error;
    }
    await old.slot.device.dropArch(old.arch.handle);
    old.reservation.release();
  }

  async #recycle(slot: DeviceSlot, marks: Marks, drainMs: number): Promise<RecycleReport> {
    const entries = [...marks.keys()];
    const held = new Map<ModelEntry, { old: LoadedModel; exported: ExportedArch | null }>();
    const drained = await Promise.allSettled(entries.map((entry) => this.#drain(entry, drainMs)));
    for (const [at, entry] of entries.entries()) {
      const outcome = drained[at];
      if (outcome?.status !== 'fulfilled') {
        marks.get(entry)?.(); // unloaded, or lost with its owner, in the meantime
        continue;
      }
      const old = outcome.value;
      held.set(entry, { old, exported: await this.#export(entry, old) });
    }
    // Else a load that comes when the fresh owner is empty is promised their memory.
    for (const { old } of held.values()) old.reservation.unsettle();
    try {
      await slot.device.restartOwner();
    } catch (error) {
      for (const [entry, { old }] of held) this.#putBack(entry, old);
      throw error;
    }
    const transferred: string[] = [];
    for (const [entry, { old, exported }] of held) {
      if (await this.#adopt(entry, old, exported, slot)) transferred.push(entry.id);
      marks.get(entry)?.();
    }
    const others = entries.filter((entry) => !transferred.includes(entry.id));
    await Promise.allSettled(others.map((entry) => (entry.status === 'recovering' ? entry.ready : null)));
    const report = {
      transferred,
      reloaded: others.filter((entry) => entry.isLoaded).map(({ id }) => id),
      failed: others.filter((entry) => !entry.isLoaded).map(({ id }) => id),
    };
    this.#deps.log.info('device owner recycled', { device: slot.device.id, ...report });
    return report;
  }

  /** Resolves in the tick in which nothing runs any more, with the model, whose memory is then held here. */
  async #drain(entry: ModelEntry, drainMs: number): Promise<LoadedModel> {
    const { signal } = entry.stopLoading;
    // Who had its prompt read when a round began may have been admitted since.
    for (let round = 0; round < drainRoundsMax; round++) {
      await entry.drain(drainMs, movedMidway(entry.id));
      if (entry.admission.counters.inFlight === 0) break;
    }
    signal.throwIfAborted();
    const { model } = entry;
    if (model === null) {
      this.#deps.recover(entry);
      throw entry.refusal();
    }
    entry.status = 'moving';
    return model;
  }

  async #export(entry: ModelEntry, old: LoadedModel): Promise<ExportedArch | null> {
    try {
      return await old.slot.device.exportArch(old.arch.handle, entry.stopLoading.signal);
    } catch (thrown) {
      this.#warn(entry, 'could not be exported and is loaded plainly', thrown);
      return null;
    }
  }

  /** False: it is recovering, or was unloaded. */
  async #adopt(
    entry: ModelEntry,
    old: LoadedModel,
    exported: ExportedArch | null,
    slot: DeviceSlot,
  ): Promise<boolean> {
    const { signal } = entry.stopLoading;
    const moved = exported === null ? null : await this.#transferBack(entry, old, exported);
    if (moved !== null && !signal.aborted && !this.#deps.lost.has(moved)) {
      entry.attach(moved);
      return true;
    }
    if (moved !== null) await slot.device.dropArch(moved.arch.handle);
    old.reservation.release();
    if (!signal.aborted) this.#deps.recover(entry);
    return false;
  }

  async #transferBack(
    entry: ModelEntry,
    old: LoadedModel,
    exported: ExportedArch,
  ): Promise<LoadedModel | null> {
    try {
      return await adoptModel(old, exported, old.reservation, toAdoption(entry));
    } catch (thrown) {
      this.#warn(entry, 'could not be transferred and is loaded plainly', thrown);
      return null;
    }
  }

  /** After a failure: it serves where it was, if it is still there. */
  #putBack(entry: ModelEntry, old: LoadedModel): void {
    if (entry.model === old && entry.status === 'moving') {
      old.reservation.settle(old.reservation.mb);
      entry.attach(old);
      return;
    }
    // Its owner died, or it is being unloaded, which drops what is attached.
    if (entry.model === null) old.reservation.release();
    if (entry.status === 'moving') this.#deps.recover(entry);
  }

  #warn(entry: ModelEntry, what: string, thrown: unknown): void {
    const error = toAppError(thrown);
    const fields = { model: entry.id, code: error.code, cause: describeCause(error) };
    this.#deps.log.warn(`a model ${what}: ${error.message}`, fields);
  }
}

function toAdoption(entry: ModelEntry): Adoption {
  const bytes = entry.model?.arch.facts.fileBytes ?? 0;
  return {
    onProgress: (fraction) => entry.meter.report('loading', Math.round(fraction * bytes), bytes),
    signal: entry.stopLoading.signal,
  };
}

function movedMidway(id: string): AppError {
  return new AppError(
    'model_recovering',
    `model "${id}" was moved to another device during the answer; retry`,
    {
      extras: { model_id: id },
      retryAfterSecs: 2,
    },
  );
}
