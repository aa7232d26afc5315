/**
 * The only writer of name -> handle and of a model's state.
 *
 *     load() ─► loading ─► loaded ─► unloading ─► (gone)
 *                  │          │ the owner died
 *               (gone)    recovering ─► loaded | poisoned (3 deaths in 10 min with it at work) | failed
 *
 *     move(), recycle(): loaded ─► draining ─► moving ─► loaded (there, or here when it fails) | recovering
 *
 * A load belongs to the neuron, not to the request that asked: who goes away does not stop it, who comes
 * later attaches to it. A load that fails leaves no entry, so ids from the network cannot pile up. `poisoned`
 * and `failed` stay out until someone loads them explicitly.
 * After each await the entry is looked at again: it may be closing, or on its way out.
 */
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import { AppError, describeCause, toAppError } from 'cortex-core/wire/errors';
import type { LoadProgress, ModelLoad, ModelSpec, NeuronModel, UseMark } from 'cortex-core/wire/neuron';
import type { OwnerDeath } from '../device/device.ts';
import { AvailableModels, withFile } from './available-models.ts';
import { type DeviceSlot, isAt } from './choose-target.ts';
import type { CreateGate, GateLimits } from './gate.ts';
import { loadsAtOnceMax, type ModelLoader } from './loader.ts';
import { LostHandles } from './lost-handles.ts';
import { ModelDeaths } from './model-deaths.ts';
import { type EntryStatus, ModelEntry, type ServingModel } from './model-entry.ts';
import { ModelMover, type RecycleReport } from './model-mover.ts';
import { inUse, notFound, notLoaded, shuttingDown, unloadedMidway } from './registry-errors.ts';
import type { ModelSources } from './sources.ts';

export interface RegistryDeps {
  readonly config: NeuronConfig;
  readonly slots: readonly DeviceSlot[];
  readonly sources: ModelSources;
  readonly loader: ModelLoader;
  readonly createGate: CreateGate;
  readonly clock: Clock;
  readonly log: Log;
}

const recoveryAttemptsMax = 5;
const drainMsMax = 20_000;
const recoveryWaitMsMax = 10_000;

export class ModelRegistry {
  readonly #deps: RegistryDeps;
  readonly #entries = new Map<string, ModelEntry>();
  readonly #available: AvailableModels;
  readonly #unsubscribe: (() => void)[];
  readonly #mover: ModelMover;
  readonly #lost = new LostHandles();
  readonly #deaths: ModelDeaths;
  /** Models that the present owner of a device has let go. */
  readonly #unloads = new WeakMap<DeviceSlot, number>();
  #isClosing = false;
  #closed: Promise<void> | null = null;

  constructor(deps: RegistryDeps) {
    this.#deps = deps;
    this.#deaths = new ModelDeaths(deps.clock);
    this.#available = new AvailableModels(deps.sources, deps.loader, deps.clock);
    this.#mover = new ModelMover({
      placement: deps.loader.placement,
      log: deps.log,
      lost: this.#lost,
      recover: (entry) => this.#startRecovery(entry),
    });
    this.#unsubscribe = [deps.loader.onOwnerDeath((slot, death) => this.#onOwnerDeath(slot, death))];
  }

  /** Resolves when the model serves. `file`: a path that the configuration named. */
  load(spec: ModelSpec, file: string | null = null): Promise<void> {
    const id = spec.model_id;
    if (this.#isClosing) return Promise.reject(shuttingDown());
    const existing = this.#entries.get(id);
    switch (existing?.status) {
      case 'loaded':
      case 'draining':
      case 'moving':
        return Promise.reject(new AppError('invalid_request', `model '${id}' already loaded`));
      case 'loading':
      case 'recovering':
        return existing.ready;
      case 'unloading':
        return existing.gone.then(() => this.load(spec, file));
      default:
        break; // new, or poisoned or failed and wanted again
    }
    const loads = [...this.#entries.values()].filter((entry) => entry.status === 'loading').length;
    if (loads >= loadsAtOnceMax) {
      return Promise.reject(
        new AppError('overloaded', `${loads} loads are running; retry later`, { retryAfterSecs: 5 }),
      );
    }
    const entry = this.#createEntry(spec, file);
    this.#entries.set(id, entry);
    if (existing !== undefined) this.#deaths.forget(id);
    entry.ready = this.#bringUp(entry).catch((error: unknown) => {
      if (entry.status === 'loading') this.#keepOut(entry);
      if (this.#entries.get(id) === entry) this.#entries.delete(id);
      entry.markGone();
      throw error;
    });
    entry.ready.catch(() => {}); // a load without a listener is no crash; who awaits it still sees the error
    return entry.ready;
  }

  /** As `unload`, but one that was used or loaded again since it stood so stays: `model_in_use`. */
  async unloadUnused(id: string, since: UseMark): Promise<void> {
    const entry = this.#entries.get(id);
    const isUnused = entry?.status === 'loaded' && entry.use.isUnusedSince(since);
    if (entry !== undefined && entry.status !== 'unloading' && !isUnused) throw inUse(id);
    await this.unload(id);
  }

  /**
   * Stops new requests, lets the running ones end for a while, then cuts them and frees the model. Resolves
   * when what its load or reload had taken is free too: who waits for the memory takes it next.
   */
  async unload(id: string, drainMs = drainMsMax): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw notLoaded(id);
    if (entry.status === 'unloading') return entry.gone;
    const loading = entry.isLoading ? entry.ready : null;
    entry.status = 'unloading';
    entry.admission.close(() => new AppError('model_not_loaded', `model "${id}" is being unloaded`));
    entry.stopLoading.abort(new AppError('load_cancelled', `the load of model "${id}" was cancelled`));
    try {
      await entry.drain(drainMs, this.#isClosing ? shuttingDown() : unloadedMidway(id));
      const slot = entry.model?.slot;
      await entry.dropArch();
      // A neuron that ends waits for no load: its owners go too.
      if (!this.#isClosing) await loading?.catch(() => {});
      if (slot !== undefined) this.#unloads.set(slot, this.unloadsOn(slot) + 1);
    } finally {
      if (this.#entries.get(id) === entry) this.#entries.delete(id);
      entry.markGone();
      this.#deps.log.info('model unloaded', { model: id });
    }
  }

  /**
   * Stops the load of that model and nothing else. Resolves as `unload` does, with false when it is not
   * loading: a model that serves stays.
   */
  async cancelLoad(id: string): Promise<boolean> {
    const entry = this.#entries.get(id);
    if (entry?.status !== 'loading') return false;
    await this.unload(id, 0);
    return true;
  }

  /**
   * Brings a loaded model to other devices of this machine: drains, loads it there with its warm prefixes,
   * then drops it here. When that fails it stays and serves, and this rejects. Newcomers wait meanwhile.
   */
  async move(id: string, devices: readonly number[], drainMs = drainMsMax): Promise<void> {
    const own = this.#entries.get(id)?.spec.split_mode;
    const [target] = await this.#deps.loader.placement.choose({
      model_id: id,
      devices: [...devices],
      // What it was on one device says nothing of several.
      ...(new Set(devices).size > 1 && own !== 'none' ? { split_mode: own } : {}),
    });
    const entry = this.#entries.get(id);
    if (entry === undefined) throw notLoaded(id);
    if (this.#isClosing) throw shuttingDown();
    if (entry.status !== 'loaded') throw entry.refusal();
    if (isAt(target, entry.model?.slot)) return;
    await this.#mover.move(entry, target, drainMs);
  }

  /**
   * Gives a device a fresh owner, and it its models back with their warm prefixes, or by a plain load where
   * that fails. Loads under way there end with `device_gone`.
   */
  recycle(device: number, drainMs = drainMsMax): Promise<RecycleReport> {
    const slot = this.#deps.slots.find(({ indices }) => indices.includes(device));
    if (slot === undefined) return Promise.reject(this.#noDevice(device));
    if (this.#isClosing) return Promise.reject(shuttingDown());
    const entries = [...this.#entries.values()].filter(
      (entry) => entry.status === 'loaded' && entry.handleOn(slot) !== null,
    );
    return this.#mover.recycle(slot, entries, drainMs);
  }

  /** What a request runs on. Errors: `model_not_found`, `model_loading`, `model_recovering`, ... */
  serving(id: string): ServingModel {
    // Whoever comes over an open connection is told that the neuron goes, not that its models are gone.
    if (this.#isClosing) throw shuttingDown();
    const entry = this.#entries.get(id);
    if (entry === undefined) throw notFound(id);
    return entry.serving();
  }

  /** A request still reads its prompt. */
  stillAsked(id: string): void {
    this.#entries.get(id)?.use.asked();
  }

  /** As `serving`, but a model that moves, or comes back after a death, is waited for, within a limit. */
  whenServing(id: string, signal: AbortSignal): Promise<ServingModel> {
    this.stillAsked(id);
    return this.#whenServing(id, signal, ['draining', 'moving', 'recovering']);
  }

  /** As `whenServing`, for a request with a permit: a draining model waits for that one, so it runs now. */
  whenAdmitted(id: string, signal: AbortSignal): Promise<ServingModel> {
    return this.#whenServing(id, signal, ['moving', 'recovering']);
  }

  isLoaded(id: string): boolean {
    return this.#entries.get(id)?.isLoaded ?? false;
  }

  /** What is known here of a model, loaded or not; null = nothing. */
  async find(id: string): Promise<NeuronModel | null> {
    return (await this.list()).find((model) => model.id === id) ?? null;
  }

  /** Loaded and on the way first, then what this machine's disk has. Never loads, wakes or keeps a model. */
  async list(): Promise<readonly NeuronModel[]> {
    const available = await this.#available.list();
    const onDisk = new Map(available.map((model) => [model.id, model]));
    const held = [...this.#entries.values()].map((entry) => withFile(entry.toWire(), onDisk.get(entry.id)));
    const rest = available.filter((model) => !this.#entries.has(model.id));
    return [...held, ...rest].sort((a, b) => rank(a) - rank(b) || a.id.localeCompare(b.id));
  }

  /** The file of a model's vocabulary, loaded or on this disk; null = unknown here. Fetches nothing. */
  async fileOf(id: string): Promise<string | null> {
    const entry = this.#entries.get(id);
    return entry?.model?.file ?? entry?.file ?? (await this.#available.fileOf(id));
  }

  loads(): readonly ModelLoad[] {
    return [...this.#entries.values()].filter((entry) => entry.isLoaded).map((each) => each.toLoad());
  }

  /** Since its owner started: what a fresh owner would be good for. */
  unloadsOn(slot: DeviceSlot): number {
    return this.#unloads.get(slot) ?? 0;
  }

  progress(): readonly LoadProgress[] {
    const loading = [...this.#entries.values()].filter((entry) => entry.isLoading);
    return loading.map((entry) => entry.meter.progress);
  }

  /** MiB of each loaded model, promised and taken. */
  memory(): readonly { readonly id: string; readonly usedMb: number; readonly estimateMb: number }[] {
    return [...this.#entries.values()].flatMap(({ id, memory }) =>
      memory === null ? [] : { id, ...memory },
    );
  }

  /** The longest prompt that a model here is advertised for; 0 = none is loaded. */
  largestInput(): number {
    return Math.max(0, ...[...this.#entries.values()].map(({ limit }) => limit?.input ?? 0));
  }

  /** Limits for the requests of every model that is here. */
  setLimits(limitsOf: (spec: ModelSpec) => GateLimits): void {
    for (const { spec, admission } of this.#entries.values()) admission.setLimits(limitsOf(spec));
  }

  /** Refuses requests from now on; those that run go on. */
  closeAdmission(): void {
    for (const entry of this.#entries.values()) entry.admission.close();
  }

  /** Unloads everything, requests that still run are cut after `drainMs`. Idempotent. */
  close(drainMs: number): Promise<void> {
    this.#isClosing = true;
    this.#closed ??= (async () => {
      this.closeAdmission();
      for (const stop of this.#unsubscribe) stop();
      await Promise.allSettled([...this.#entries.keys()].map((id) => this.unload(id, drainMs)));
    })();
    return this.#closed;
  }

  async #whenServing(
    id: string,
    signal: AbortSignal,
    waitsFor: readonly EntryStatus[],
  ): Promise<ServingModel> {
    const waitMs = this.#deps.config.admission.max_wait_secs * 1000;
    // A move that fails may end in a recovery.
    for (let round = 0; round < 2; round++) {
      const entry = this.#entries.get(id);
      if (entry === undefined || !waitsFor.includes(entry.status)) return this.serving(id);
      await entry.waitReady(entry.isMoving ? waitMs : Math.min(waitMs, recoveryWaitMsMax), signal);
    }
    const entry = this.#entries.get(id);
    if (entry !== undefined && waitsFor.includes(entry.status)) throw entry.refusal();
    return this.serving(id);
  }

  #createEntry(spec: ModelSpec, file: string | null): ModelEntry {
    const { createGate, config, clock } = this.#deps;
    const limits = {
      outputTokensMax: config.admission.max_tokens,
      prefillSecsMax: config.limits.prefill_secs_max,
    };
    return new ModelEntry(spec, file, createGate(spec), limits, clock);
  }

  async #bringUp(entry: ModelEntry): Promise<void> {
    const { file, meter } = entry;
    const spec = { ...entry.spec, slots: entry.slotsAsked };
    const signal = entry.stopLoading.signal;
    const loaded = await this.#deps.loader.load(spec, file, meter, signal).catch((error: unknown) => {
      throw signal.aborted ? signal.reason : error;
    });
    if (signal.aborted || this.#lost.has(loaded)) {
      await loaded.slot.device.dropArch(loaded.arch.handle);
      loaded.reservation.release();
      throw signal.aborted ? signal.reason : this.#lost.toError(loaded);
    }
    entry.attach(loaded);
    // It may have got fewer slots than were hoped for.
    entry.admission.setLimits(this.#deps.createGate(entry.spec).limits);
    entry.use.loaded();
    const { context, slots, memoryMb: mb, loadMs: ms, drafts: who, draftsWhy: why } = loaded.arch.facts;
    const drafts = why === undefined ? who : `${who}: ${why}`;
    const device = loaded.slot.device.id;
    this.#deps.log.info('model loaded', { model: entry.id, device, context, slots, mb, ms, drafts });
  }

  #onOwnerDeath(slot: DeviceSlot, death: OwnerDeath): void {
    this.#lost.note(slot, death);
    this.#unloads.delete(slot);
    for (const entry of this.#entries.values()) {
      const handle = entry.handleOn(slot);
      if (handle === null || !death.lostHandles.includes(handle)) continue;
      entry.detach();
      if (death.busyHandles.includes(handle)) this.#deaths.note(entry.id);
      if (entry.status === 'loaded') this.#startRecovery(entry);
    }
    const loading = death.loading === null ? undefined : this.#entries.get(death.loading);
    // By a load, or by a move to there.
    const isAtWork = loading?.isLoading === true || loading?.status === 'moving';
    if (death.busyHandles.length === 0 && isAtWork) this.#deaths.note(loading.id);
  }

  /** Throws when it brought its device down too often. */
  #keepOut(entry: ModelEntry): void {
    if (!this.#deaths.isTooMany(entry.id)) return;
    entry.status = 'poisoned';
    const fields = { model: entry.id };
    this.#deps.log.error('model poisoned: its owner died three times with it at work', fields);
    throw entry.refusal();
  }

  /** Loads it again, plainly. */
  #startRecovery(entry: ModelEntry): void {
    entry.status = 'recovering';
    entry.ready = this.#recover(entry);
    entry.ready.catch(() => {});
  }

  async #recover(entry: ModelEntry): Promise<void> {
    const { clock, log } = this.#deps;
    const signal = entry.stopLoading.signal;
    for (let attempt = 0; ; attempt++) {
      this.#keepOut(entry);
      const waits = Math.max(attempt, this.#deaths.count(entry.id) - 1);
      if (waits > 0) await clock.sleep(Math.min(1000 * 2 ** (waits - 1), 30_000), signal);
      signal.throwIfAborted();
      try {
        await this.#bringUp(entry);
        return;
      } catch (thrown) {
        if (signal.aborted) throw signal.reason;
        const error = toAppError(thrown);
        const fields = { model: entry.id, attempt, code: error.code, cause: describeCause(error) };
        log.warn(`reload after an owner's death failed: ${error.message}`, fields);
        if (attempt + 1 < recoveryAttemptsMax) continue;
        entry.status = 'failed';
        entry.failure = error.message;
        throw error;
      }
    }
  }

  #noDevice(device: number): AppError {
    const known = this.#deps.slots.flatMap(({ indices }) => indices).join(', ') || 'none';
    return new AppError('invalid_request', `there is no device ${device}; this machine has ${known}`, {
      param: 'device',
    });
  }
}

function rank(model: NeuronModel): number {
  return model.status === 'available' ? 1 : 0;
}
