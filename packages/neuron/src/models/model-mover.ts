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
import type { LoadedModel } from './loader.ts';
import type { LostHandles } from './lost-handles.ts';
import type { ModelEntry } from './model-entry.ts';
import type { DeviceSlot, Placement } from './placement.ts';
import { adoptModel, type Transfer, transferModel } from './transfer.ts';

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

export class ModelMover {
  readonly #deps: ModelMoverDeps;
  readonly #recycling = new Map<DeviceSlot, Promise<RecycleReport>>();

  constructor(deps: ModelMoverDeps) {
    this.#deps = deps;
  }

  /** The entry must be `loaded`; it is again when this settles, or recovers, or was unloaded meanwhile. */
  move(entry: ModelEntry, target: DeviceSlot, drainMs: number): Promise<void> {
    entry.status = 'draining';
    const done = this.#move(entry, target, drainMs);
    entry.ready = done;
    return done;
  }

  /** The entries must be `loaded` on `slot`. One at a time per slot: who comes later gets the same report. */
  recycle(slot: DeviceSlot, entries: readonly ModelEntry[], drainMs: number): Promise<RecycleReport> {
    const running = this.#recycling.get(slot);
    if (running !== undefined) return running;
    for (const entry of entries) entry.status = 'draining';
    const done = this.#recycle(slot, entries, drainMs).finally(() => this.#recycling.delete(slot));
    for (const entry of entries) entry.ready = done.then(() => {});
    for (const entry of entries) entry.ready.catch(() => {});
    this.#recycling.set(slot, done);
    return done;
  }

  async #move(entry: ModelEntry, target: DeviceSlot, drainMs: number): Promise<void> {
    const { placement, log, lost } = this.#deps;
    const old = await this.#drain(entry, drainMs);
    const { signal } = entry.stopLoading;
    try {
      const moved = await transferModel(placement, old, toTransfer(entry, target));
      if (signal.aborted || lost.has(moved)) {
        await target.device.dropArch(moved.arch.handle);
        moved.reservation.release();
        throw signal.aborted ? signal.reason : lost.toError(moved);
      }
      entry.spec = { ...entry.spec, devices: [...target.indices] };
      entry.attach(moved);
      log.info('model moved', { model: entry.id, from: old.slot.device.id, to: target.device.id });
    } catch (error) {
      this.#putBack(entry, old);
      throw error;
    }
    await old.slot.device.dropArch(old.arch.handle);
    old.reservation.release();
  }

  async #recycle(slot: DeviceSlot, entries: readonly ModelEntry[], drainMs: number): Promise<RecycleReport> {
    const held = new Map<ModelEntry, { old: LoadedModel; exported: ExportedArch | null }>();
    const drained = await Promise.allSettled(entries.map((entry) => this.#drain(entry, drainMs)));
    for (const [at, entry] of entries.entries()) {
      const outcome = drained[at];
      if (outcome?.status !== 'fulfilled') continue; // unloaded, or lost with its owner, in the meantime
      const old = outcome.value;
      held.set(entry, { old, exported: await this.#export(entry, old) });
    }
    try {
      await slot.device.restartOwner();
    } catch (error) {
      for (const [entry, { old }] of held) this.#putBack(entry, old);
      throw error;
    }
    const transferred: string[] = [];
    for (const [entry, { old, exported }] of held) {
      if (await this.#adopt(entry, old, exported, slot)) transferred.push(entry.id);
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
    await entry.drain(drainMs, movedMidway(entry.id));
    // Who had its prompt read when the drain began may have been admitted since.
    if (entry.admission.counters.inFlight > 0) await entry.drain(drainMs, movedMidway(entry.id));
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
    const moved = exported === null ? null : await this.#transferBack(entry, old, exported, slot);
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
    slot: DeviceSlot,
  ): Promise<LoadedModel | null> {
    try {
      return await adoptModel(old, exported, old.reservation, toTransfer(entry, slot));
    } catch (thrown) {
      this.#warn(entry, 'could not be transferred and is loaded plainly', thrown);
      return null;
    }
  }

  /** After a failure: it serves where it was, if it is still there. */
  #putBack(entry: ModelEntry, old: LoadedModel): void {
    if (entry.model === old && entry.status === 'moving') {
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

function toTransfer(entry: ModelEntry, target: DeviceSlot): Transfer {
  const bytes = entry.model?.arch.facts.fileBytes ?? 0;
  return {
    spec: entry.spec,
    target,
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
