/** One load from spec to handle: find or fetch files, check them, take the memory, call the owner. */
import { availableParallelism } from 'node:os';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { AppError } from 'cortex-core/wire/errors';
import type { KvCacheType, LoadedArch, LoadSpec } from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { LoadMeter } from './load-meter.ts';
import { checkFits, estimateCosts, type LoadShape, requiredMb, resolveContext } from './memory.ts';
import type { DeviceSlot, Placement, Reservation } from './placement.ts';
import { checkModelFiles } from './preflight.ts';
import type { ModelSources } from './sources.ts';

export interface LoadedModel {
  readonly slot: DeviceSlot;
  readonly arch: LoadedArch;
  readonly reservation: Reservation;
  readonly digest: string | null;
}

type EngineConfig = NeuronConfig['engine'];

const measuredMax = 256;

const cacheTypes: readonly KvCacheType[] = [
  'f32',
  'f16',
  'bf16',
  'q8_0',
  'q5_1',
  'q5_0',
  'q4_1',
  'q4_0',
  'iq4_nl',
];

export class ModelLoader {
  readonly #sources: ModelSources;
  readonly #placement: Placement;
  readonly #engine: EngineConfig;
  /** MiB really taken, by all that decides it: the next load of it is planned with that. */
  readonly #measured = new Map<string, number>();

  constructor(sources: ModelSources, placement: Placement, engine: EngineConfig) {
    this.#sources = sources;
    this.#placement = placement;
    this.#engine = engine;
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
    const shape = this.#shapeOf(spec);
    this.#placement.assertPossible(spec);
    const request = { modelId: spec.model_id, quant: spec.quant ?? null, file };
    const onFetch = (done: number, total: number): void => meter.report('fetching', done, total);
    const { files, digest } = await this.#sources.resolve(request, onFetch, signal);
    const { header, fileBytes } = await checkModelFiles(files);
    signal.throwIfAborted();
    const costs = estimateCosts(header, fileBytes, shape);
    const slot = await this.#placement.choose(spec);
    const first = files[0] ?? '';
    let context = 0;
    const toKey = (): string => measureKey({ file: first, fileBytes, context, shape, spec, slot });
    const reservation = await this.#placement.reserve(slot, (budget) => {
      context = resolveContext(spec.model_id, spec.context, this.#engine.context, costs, budget.freeMb);
      const known = this.#measured.get(toKey());
      const mb = known ?? requiredMb(costs, context);
      checkFits(spec.model_id, mb, budget);
      return mb;
    });
    try {
      meter.report('loading', 0, fileBytes);
      const onLoad = ({ fraction }: { fraction: number }): void =>
        meter.report('loading', Math.round(fraction * fileBytes), fileBytes);
      const arch = await slot.device.load(
        this.#toLoadSpec(spec, first, context, shape, slot),
        onLoad,
        signal,
      );
      const actual = Math.ceil(arch.facts.memoryMb);
      if (actual > 0) {
        this.#remember(toKey(), actual);
        reservation.settle(actual);
      } else {
        reservation.settle(reservation.mb);
      }
      return { slot, arch, reservation, digest };
    } catch (error) {
      reservation.release();
      throw error;
    }
  }

  /** MiB that a load with the configured defaults would take; null when the file cannot be read. */
  async estimateMb(files: readonly string[]): Promise<number | null> {
    try {
      const { header, fileBytes } = await checkModelFiles(files);
      const costs = estimateCosts(header, fileBytes, this.#shapeOf({}));
      const trained = costs.trainContext > 0 ? costs.trainContext : 4096;
      const { context } = this.#engine;
      return requiredMb(costs, context === 'auto' ? trained : Math.min(context, trained));
    } catch {
      return null;
    }
  }

  #remember(key: string, mb: number): void {
    const [oldest] = this.#measured.keys();
    if (this.#measured.size >= measuredMax && oldest !== undefined) this.#measured.delete(oldest);
    this.#measured.set(key, mb);
  }

  #shapeOf(spec: Pick<ModelSpec, 'slots' | 'cache_type_k' | 'cache_type_v'>): LoadShape {
    const { slots, ubatch, cache_type_k, cache_type_v } = this.#engine;
    return {
      slots: spec.slots ?? slots,
      ubatch,
      cacheTypeK: spec.cache_type_k ? toCacheType(spec.cache_type_k, 'cache_type_k') : cache_type_k,
      cacheTypeV: spec.cache_type_v ? toCacheType(spec.cache_type_v, 'cache_type_v') : cache_type_v,
    };
  }

  #toLoadSpec(spec: ModelSpec, file: string, context: number, shape: LoadShape, slot: DeviceSlot): LoadSpec {
    const engine = this.#engine;
    return {
      modelId: spec.model_id,
      file,
      context,
      slots: shape.slots,
      devices: [],
      splitMode: spec.split_mode ?? (slot.indices.length > 1 ? 'layer' : 'none'),
      gpuLayers: slot.kind === 'cpu' ? 0 : (spec.gpu_layers ?? null),
      cacheTypeK: shape.cacheTypeK,
      cacheTypeV: shape.cacheTypeV,
      batch: engine.batch,
      ubatch: Math.min(engine.ubatch, engine.batch),
      threads: engine.threads ?? null,
      flashAttention: engine.flash_attention ?? null,
      lora: [],
      embeddings: false,
      prefixCacheMb: 0,
      speculation: 'off',
    };
  }
}

export const loadsAtOnceMax = Math.max(4, availableParallelism());

function toCacheType(text: string, param: string): KvCacheType {
  const known = cacheTypes.find((type) => type === text);
  if (known !== undefined) return known;
  throw new AppError(
    'invalid_request',
    `"${param}" is "${text.slice(0, 40)}"; use ${cacheTypes.join(', ')}`,
    {
      param,
    },
  );
}

function measureKey(load: {
  readonly file: string;
  readonly fileBytes: number;
  readonly context: number;
  readonly shape: LoadShape;
  readonly spec: ModelSpec;
  readonly slot: DeviceSlot;
}): string {
  const { file, fileBytes, context, shape, spec, slot } = load;
  const { split_mode, gpu_layers } = spec;
  return JSON.stringify([file, fileBytes, context, shape, split_mode, gpu_layers, slot.device.id]);
}
