/** One load from spec to handle: find or fetch files, check them, take the memory, call the owner. */
import { availableParallelism } from 'node:os';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadedArch } from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { OwnerDeath } from '../device/device.ts';
import type { DeviceSlot, Target } from './choose-target.ts';
import { assertDraftAllowed, type DraftFile, resolveDraft } from './draft-file.ts';
import type { ReadHeader } from './header-cache.ts';
import type { LoadMeter } from './load-meter.ts';
import {
  type Decision,
  decideLoad,
  type EngineConfig,
  type LoadChoice,
  type LoadChoices,
  type LoadPlan,
  loadChoices,
  planLoad,
  toActualMb,
  toLoadShape,
  toLoadSpec,
} from './load-plan.ts';
import { largestContext, type MemoryNeed, resolveContext } from './memory-budget.ts';
import { isPlausible, MemoryCorrections } from './memory-corrections.ts';
import type { Budgets, Placement, Reservation } from './placement.ts';
import { type CheckedModel, checkModelFiles } from './preflight.ts';
import type { ModelSources } from './sources.ts';
import { weightsDigest } from './weights-digest.ts';

export interface LoadedModel {
  readonly slot: DeviceSlot;
  /** The first file of its weights, absolute. */
  readonly file: string;
  readonly arch: LoadedArch;
  readonly reservation: Reservation;
  readonly digest: string | null;
  /** See weights-digest.ts; null when the files could not be read again. */
  readonly weightsDigest: string | null;
  /** Host memory of its prefix cache. */
  readonly prefixCacheMb: number;
  /** Host memory of layers that are not on its GPU; 0 on the CPU. */
  readonly hostLayersMb: number;
}

interface Reserved {
  readonly target: Target;
  /** Names the kind of load for what is remembered of it. */
  readonly key: string;
  readonly speculation: LoadPlan['speculation'];
  readonly reservation: Reservation;
  readonly decision: Decision;
}

interface ReservedLoad extends Reserved {
  readonly spec: ModelSpec;
  readonly first: string;
  readonly files: readonly string[];
  readonly digest: string | null;
  readonly draft: DraftFile | null;
  /** Of both models. */
  readonly fileBytes: number;
}

/** What a load is of, before anything is decided. */
interface FoundModel {
  readonly spec: ModelSpec;
  readonly checked: CheckedModel;
  readonly identity: string;
  readonly draft: DraftFile | null;
}

export class ModelLoader {
  readonly #sources: ModelSources;
  readonly #placement: Placement;
  readonly #engine: EngineConfig;
  readonly #corrections: MemoryCorrections;

  constructor(
    sources: ModelSources,
    placement: Placement,
    engine: EngineConfig,
    corrections = new MemoryCorrections(null, silentLog),
  ) {
    this.#sources = sources;
    this.#placement = placement;
    this.#engine = engine;
    this.#corrections = corrections;
  }

  /** Of every device that loads can go to, groups that come and go included. */
  onOwnerDeath(listener: (slot: DeviceSlot, death: OwnerDeath) => void): () => void {
    return this.#placement.onOwnerDeath(listener);
  }

  get placement(): Placement {
    return this.#placement;
  }

  async load(
    spec: ModelSpec,
    file: string | null,
    meter: LoadMeter,
    signal: AbortSignal,
  ): Promise<LoadedModel> {
    if (spec.harness !== 'llamacpp') {
      throw new AppError(
        'invalid_request',
        `there is no harness "${spec.harness.slice(0, 60)}"; use llamacpp`,
        { param: 'harness' },
      );
    }
    // What can be refused without the file is refused before gigabytes are fetched.
    toLoadShape(spec, this.#engine, 'cpu', 1);
    assertDraftAllowed(spec, this.#engine.speculation);
    this.#placement.assertPossible(spec);
    const request = { modelId: spec.model_id, quant: spec.quant ?? null, file };
    let fetched = 0;
    const onFetch = (done: number, total: number): void => {
      fetched = total;
      meter.report('fetching', done, total);
    };
    const { files, digest } = await this.#sources.resolve(request, onFetch, signal);
    const checked = await checkModelFiles(files, spec.lora ?? []);
    signal.throwIfAborted();
    const onDraft = (done: number, total: number): void =>
      meter.report('fetching', fetched + done, fetched + total);
    const draft = await resolveDraft(this.#sources, spec, checked, onDraft, signal);
    const first = files[0] ?? '';
    const identity = `${digest ?? first} ${checked.fileBytes}`;
    const reserved = await this.#reserve({ spec, checked, identity, draft }, signal);
    const fileBytes = checked.fileBytes + (draft?.checked.fileBytes ?? 0);
    return this.#loadReserved({ spec, first, files, digest, draft, fileBytes, ...reserved }, meter, signal);
  }

  /** Memory on the best device that has room; when none has, the error of the best. */
  async #reserve(model: FoundModel, signal: AbortSignal): Promise<Reserved> {
    const [best, ...others] = await this.#placement.choose(model.spec, signal);
    try {
      return await this.#reserveOn(best, model, signal);
    } catch (error) {
      for (const target of others) {
        if (!isLackOfMemory(error)) break;
        const reserved = await this.#reserveOn(target, model, signal).catch(() => null);
        if (reserved !== null) return reserved;
      }
      throw error;
    }
  }

  async #reserveOn(
    target: Target,
    { spec, checked, identity, draft }: FoundModel,
    signal: AbortSignal,
  ): Promise<Reserved> {
    const choices = loadChoices(checked, spec, this.#engine, target, draft);
    const decide = (budgets: Budgets, { slots, drafter }: LoadChoice) => {
      const of = { ...spec, slots };
      const { key, ...plan } = planLoad(checked, of, this.#engine, target, identity, drafter);
      const predict = (context: number, mb: number): number => this.#corrections.predict(key, context, mb);
      const decision = decideLoad(of, this.#engine, plan, predict, budgets);
      return { ...decision, slots, key, speculation: plan.speculation };
    };
    const { reservation, wanted } = await this.#placement.reserve(
      target,
      (budgets) => firstThatFits(choices, (choice) => decide(budgets, choice)),
      signal,
    );
    const { key, speculation } = wanted;
    return { target, key, speculation, reservation, decision: wanted };
  }

  async #loadReserved(what: ReservedLoad, meter: LoadMeter, signal: AbortSignal): Promise<LoadedModel> {
    const { spec, draft, fileBytes, target, decision, reservation } = what;
    const { slot } = reservation;
    try {
      meter.report('loading', 0, fileBytes);
      // The owner tells how far the model itself is; the one that drafts comes after it.
      const mainBytes = fileBytes - (draft?.checked.fileBytes ?? 0);
      const onLoad = ({ fraction }: { fraction: number }): void =>
        meter.report('loading', Math.round(fraction * mainBytes), fileBytes);
      const loadSpec = toLoadSpec(spec, what, this.#engine, decision, target, reservation);
      const digesting = weightsDigest({ files: what.files, lora: spec.lora ?? [] });
      const arch = await slot.device.load(loadSpec, onLoad, signal);
      this.#settle(what, arch);
      const weights = await digesting;
      const { prefixCacheMb, hostMb = 0 } = decision;
      const hostLayersMb = slot.kind === 'cpu' ? 0 : hostMb - prefixCacheMb;
      const { first: file, digest } = what;
      const parts = { file, digest, weightsDigest: weights, prefixCacheMb, hostLayersMb };
      return { slot, arch, reservation, ...parts };
    } catch (error) {
      reservation.release();
      throw error;
    }
  }

  /** What was really taken replaces what was promised, and is remembered where it says something. */
  #settle({ key, decision, reservation }: ReservedLoad, arch: LoadedArch): void {
    const { estimate, context, prefixCacheMb } = decision;
    const isCpu = reservation.slot.kind === 'cpu';
    const actualMb = toActualMb(arch.facts, estimate);
    if (!isPlausible(actualMb, estimate.totalMb)) {
      reservation.settle(reservation.mb);
      return;
    }
    // On a GPU it is the difference of two readings, which everything else there moves as well.
    if (isCpu || reservation.isUndisturbed) {
      this.#corrections.remember(key, context, estimate.totalMb, actualMb);
    }
    reservation.settle(Math.ceil(actualMb) + (isCpu ? prefixCacheMb : 0));
  }

  /**
   * MiB that a load with the configured defaults would take on the kind of device that it would go to; null
   * when the file cannot be read.
   */
  async estimateMb(files: readonly string[], read?: ReadHeader): Promise<number | null> {
    try {
      const checked = await checkModelFiles(files, [], read);
      const slots = this.#placement.slots;
      const slot = slots.find(({ kind }) => kind !== 'cpu') ?? slots[0];
      const target = {
        id: slot?.device.id ?? 'cpu',
        splitMode: 'none',
        members: slot ? [slot] : [],
      } as const;
      const identity = `${files[0] ?? ''} ${checked.fileBytes}`;
      const { context } = this.#engine;
      const totalMb = slot === undefined ? 0 : this.#placement.totalMb(slot);
      let mb = 0;
      for (const { slots, drafter } of loadChoices(checked, {}, this.#engine, target, null)) {
        const plan = planLoad(checked, { slots }, this.#engine, target, identity, drafter);
        const needAt = (tokens: number): MemoryNeed => {
          const estimate = plan.estimateAt(tokens);
          return { mb: Math.ceil(this.#corrections.predict(plan.key, tokens, estimate.totalMb)), estimate };
        };
        const largest = (): number => largestContext(needAt, plan.trainContext, totalMb);
        mb = needAt(resolveContext('', null, context, plan.trainContext, largest)).mb;
        if (mb <= totalMb) break;
      }
      return mb;
    } catch {
      return null;
    }
  }
}

/**
 * Fewer slots only where even an empty device is too small: one that is full gets room when a model leaves.
 * Nobody asked for prediction layers by name: a model that fits without them is loaded without.
 */
function firstThatFits<T>([choice, ...others]: LoadChoices, decide: (choice: LoadChoice) => T): T {
  try {
    return decide(choice);
  } catch (error) {
    const isTooSmall = error instanceof AppError && error.code === 'does_not_fit';
    const isOver = choice.drafter === 'mtp' ? !isLackOfMemory(error) : !isTooSmall;
    const [next, ...rest] = others;
    if (isOver || next === undefined) throw error;
    return firstThatFits([next, ...rest], decide);
  }
}

function isLackOfMemory(error: unknown): boolean {
  return error instanceof AppError && (error.code === 'insufficient_vram' || error.code === 'does_not_fit');
}

export const loadsAtOnceMax = Math.max(4, availableParallelism());
