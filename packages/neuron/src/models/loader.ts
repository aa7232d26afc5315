/** One load from spec to handle: find or fetch files, check them, take the memory, call the owner. */
import { availableParallelism } from 'node:os';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadedArch } from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { OwnerDeath } from '../device/device.ts';
import type { DeviceSlot, Target } from './choose-target.ts';
import type { LoadMeter } from './load-meter.ts';
import {
  type Decision,
  decideLoad,
  type EngineConfig,
  planLoad,
  toActualMb,
  toLoadShape,
  toLoadSpec,
} from './load-plan.ts';
import { MemoryCorrections } from './memory-corrections.ts';
import type { Placement, Reservation } from './placement.ts';
import { checkModelFiles } from './preflight.ts';
import type { ModelSources } from './sources.ts';

export interface LoadedModel {
  readonly slot: DeviceSlot;
  readonly arch: LoadedArch;
  readonly reservation: Reservation;
  readonly digest: string | null;
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
    this.#placement.assertPossible(spec);
    const request = { modelId: spec.model_id, quant: spec.quant ?? null, file };
    const onFetch = (done: number, total: number): void => meter.report('fetching', done, total);
    const { files, digest } = await this.#sources.resolve(request, onFetch, signal);
    const checked = await checkModelFiles(files, spec.lora ?? []);
    signal.throwIfAborted();
    const target = await this.#placement.choose(spec);
    const first = files[0] ?? '';
    const identity = `${digest ?? first} ${checked.fileBytes}`;
    const plan = planLoad(checked, spec, this.#engine, target, identity);
    const predict = (context: number, mb: number): number => this.#corrections.predict(plan.key, context, mb);
    const { reservation, wanted: decision } = await this.#placement.reserve(target, (budgets) =>
      decideLoad(spec, this.#engine, plan, predict, budgets),
    );
    const what = { spec, first, digest, fileBytes: checked.fileBytes, target, key: plan.key };
    return this.#loadReserved(what, { decision, reservation, meter, signal });
  }

  async #loadReserved(
    what: {
      readonly spec: ModelSpec;
      readonly first: string;
      readonly digest: string | null;
      readonly fileBytes: number;
      readonly target: Target;
      readonly key: string;
    },
    how: {
      readonly decision: Decision;
      readonly reservation: Reservation;
      readonly meter: LoadMeter;
      readonly signal: AbortSignal;
    },
  ): Promise<LoadedModel> {
    const { decision, reservation, meter, signal } = how;
    const { slot } = reservation;
    try {
      meter.report('loading', 0, what.fileBytes);
      const onLoad = ({ fraction }: { fraction: number }): void =>
        meter.report('loading', Math.round(fraction * what.fileBytes), what.fileBytes);
      const loadSpec = toLoadSpec(what.spec, what.first, this.#engine, decision, what.target, reservation);
      const arch = await slot.device.load(loadSpec, onLoad, signal);
      const actualMb = toActualMb(arch.facts, decision.estimate);
      const cacheHereMb = slot.kind === 'cpu' ? decision.prefixCacheMb : 0;
      if (actualMb > 0) {
        this.#corrections.remember(what.key, decision.context, decision.estimate.totalMb, actualMb);
        reservation.settle(Math.ceil(actualMb) + cacheHereMb);
      } else {
        reservation.settle(reservation.mb);
      }
      return { slot, arch, reservation, digest: what.digest };
    } catch (error) {
      reservation.release();
      throw error;
    }
  }

  /**
   * MiB that a load with the configured defaults would take on the kind of device that it would go to; null
   * when the file cannot be read.
   */
  async estimateMb(files: readonly string[]): Promise<number | null> {
    try {
      const checked = await checkModelFiles(files);
      const slots = this.#placement.slots;
      const slot = slots.find(({ kind }) => kind !== 'cpu') ?? slots[0];
      const target = {
        id: slot?.device.id ?? 'cpu',
        splitMode: 'none',
        members: slot ? [slot] : [],
      } as const;
      const plan = planLoad(checked, {}, this.#engine, target, `${files[0] ?? ''} ${checked.fileBytes}`);
      const trained = plan.trainContext > 0 ? plan.trainContext : 4096;
      const { context } = this.#engine;
      const tokens = context === 'auto' ? trained : Math.min(context, trained);
      return Math.ceil(this.#corrections.predict(plan.key, tokens, plan.estimateAt(tokens).totalMb));
    } catch {
      return null;
    }
  }
}

export const loadsAtOnceMax = Math.max(4, availableParallelism());
