/** One load as the books and the engine need it: what it takes at which context, and its LoadSpec. Pure. */
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { AppError } from 'cortex-core/wire/errors';
import {
  draftRowsMax,
  type KvCacheType,
  kvCacheTypes,
  type LoadSpec,
  type ModelFacts,
  recurrentTakeBackMax,
} from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { Target } from './choose-target.ts';
import type { DraftFile } from './draft-file.ts';
import { estimateMemory, type LoadShape, type MemoryEstimate } from './memory.ts';
import { checkFits, largestContext, type MemoryNeed, resolveContext } from './memory-budget.ts';
import { type ModelShape, toModelShape } from './model-shape.ts';
import type { Budgets, Reservation, Wanted } from './placement.ts';
import { countPredictionLayers } from './prediction-layers.ts';
import type { CheckedModel } from './preflight.ts';
import { placeWeights, weightBytes } from './weights.ts';

export type EngineConfig = NeuronConfig['engine'];

/** Who drafts: another model, the model's own prediction layers, or nobody but its text. */
export type Drafter = DraftFile | 'mtp' | null;

export interface LoadChoice {
  readonly slots: number;
  readonly drafter: Drafter;
}

export type LoadChoices = readonly [LoadChoice, ...LoadChoice[]];

export interface LoadPlan {
  readonly isCpu: boolean;
  readonly speculation: LoadSpec['speculation'];
  readonly trainContext: number;
  /** Of the headers alone, MiB on the device; of a model that drafts too. */
  estimateAt(context: number): MemoryEstimate;
  /**
   * MiB of layers that stay on the host, for a load on a GPU; they grow with the context as the others do.
   */
  hostMbAt(context: number): number;
  /** Names the kind of load: all that decides its memory but for the context. */
  readonly key: string;
}

/** What was decided with the books open. */
export interface Decision extends Wanted {
  readonly context: number;
  readonly slots: number;
  readonly estimate: MemoryEstimate;
  readonly prefixCacheMb: number;
}

/** Raised when estimates change, so that what was remembered against older ones is not applied. */
const formula = 2;
const cpuOverheadMb = 12;
/** A guess to be corrected by the first load: CUDA's workspaces and kernels were not measured. */
const gpuOverheadMb = 128;
/** Of what a load leaves free, the most that its prefix cache takes without being asked for. */
const prefixShareMax = 0.25;
/** As engine/mtp-draft.ts keeps. */
const waitingStates = 66;
const nothing: MemoryEstimate = { weightsMb: 0, cacheMb: 0, computeMb: 0, totalMb: 0 };

/** What "auto" tries, the most first. */
const slotsAuto = [4, 3, 2, 1] as const;

export type ShapeSpec = Pick<ModelSpec, 'slots' | 'cache_type_k' | 'cache_type_v' | 'speculation'>;

/** How many slots a load may get, the most first. */
export function slotChoices(
  spec: Pick<ModelSpec, 'slots'>,
  engine: Pick<EngineConfig, 'slots'>,
): readonly [number, ...number[]] {
  const slots = spec.slots ?? engine.slots;
  return slots === 'auto' ? slotsAuto : [slots];
}

/** Errors: `invalid_request` for a cache type that there is not. */
export function toLoadShape(
  spec: ShapeSpec,
  engine: EngineConfig,
  kind: string,
  deviceCount: number,
): LoadShape {
  const cacheTypeV = spec.cache_type_v ? toCacheType(spec.cache_type_v, 'cache_type_v') : engine.cache_type_v;
  const isCpu = kind === 'cpu';
  const [slots] = slotChoices(spec, engine);
  return {
    slots,
    // As engine/open-model.ts reserves: one of each sequence, and what is drafted.
    outputs: slots + 1 + ((spec.speculation ?? engine.speculation) === 'off' ? 0 : draftRowsMax),
    ubatch: Math.min(engine.ubatch, engine.batch),
    cacheTypeK: spec.cache_type_k ? toCacheType(spec.cache_type_k, 'cache_type_k') : engine.cache_type_k,
    cacheTypeV,
    // Left open, libllama decides, and it is on.
    flashAttention: engine.flash_attention ?? true,
    fullWindow: true,
    deviceCount,
    overheadMb: isCpu ? cpuOverheadMb : gpuOverheadMb,
  };
}

export function planLoad(
  checked: CheckedModel,
  spec: ShapeSpec & Pick<ModelSpec, 'gpu_layers' | 'lora'>,
  engine: EngineConfig,
  target: Pick<Target, 'id' | 'splitMode'> & { readonly members: readonly { readonly kind: string }[] },
  identity: string,
  drafter: Drafter = null,
): LoadPlan {
  const kind = target.members[0]?.kind ?? 'cpu';
  const load = toLoadShape(spec, engine, kind, target.members.length);
  const gpuLayers = spec.gpu_layers ?? null;
  const isCpu = kind === 'cpu';
  const isOff = (spec.speculation ?? engine.speculation) === 'off';
  const parts = toParts(checked, load, { isCpu, gpuLayers, batch: engine.batch, drafter });
  const adapters = (spec.lora ?? []).map(({ file }) => file);
  return {
    isCpu,
    speculation: isOff ? 'off' : drafter === 'mtp' ? 'mtp' : 'ngram',
    trainContext: toModelShape(checked.header).trainContext,
    estimateAt: (context) => parts.map((part) => part.estimateAt(context)).reduce(add),
    hostMbAt: (context) => parts.reduce((sum, part) => sum + part.hostMbAt(context), 0),
    key: JSON.stringify([
      formula,
      identity,
      load,
      target.splitMode,
      gpuLayers,
      adapters,
      checked.loraBytes,
      target.id,
      ...(drafter === null ? [] : [drafter === 'mtp' ? drafter : drafter.identity]),
    ]),
  };
}

/**
 * How a load may be made, in the order of the tries. Who drafts is `draft`; without one the file's own
 * prediction layers, where they leave room for all the slots, and else nobody.
 */
export function loadChoices(
  checked: CheckedModel,
  spec: Pick<ModelSpec, 'slots' | 'speculation'>,
  engine: EngineConfig,
  target: Pick<Target, 'splitMode'>,
  draft: DraftFile | null,
): LoadChoices {
  const [most, ...fewer] = slotChoices(spec, engine);
  const rest = fewer.map((slots) => ({ slots, drafter: draft }));
  const plain: LoadChoices = [{ slots: most, drafter: draft }, ...rest];
  const isOwn = draft === null && usesPredictionLayers(checked, spec, engine, target);
  return isOwn ? [{ slots: most, drafter: 'mtp' }, ...plain] : plain;
}

function usesPredictionLayers(
  checked: CheckedModel,
  spec: Pick<ModelSpec, 'speculation'>,
  engine: EngineConfig,
  { splitMode }: Pick<Target, 'splitMode'>,
): boolean {
  if ((spec.speculation ?? engine.speculation) !== 'auto') return false;
  // libllama makes their context for whole layers.
  if (splitMode === 'row' || splitMode === 'tensor') return false;
  const ubatch = Math.min(engine.ubatch, engine.batch);
  return ubatch > recurrentTakeBackMax + 1 && countPredictionLayers(checked) > 0;
}

interface PartRules {
  readonly isCpu: boolean;
  readonly gpuLayers: number | null;
  readonly batch: number;
  readonly drafter: Drafter;
}

type Part = Pick<LoadPlan, 'estimateAt' | 'hostMbAt'>;

/** What each context takes: that of the model, and that of who drafts. */
function toParts(checked: CheckedModel, load: LoadShape, rules: PartRules): readonly Part[] {
  const { drafter } = rules;
  const layers = countPredictionLayers(checked);
  const model = toModelShape(checked.header, layers);
  const trunk = layers === 0 ? model : { ...model, layers: model.layers.slice(0, -layers) };
  const trunkLoad = drafter === 'mtp' ? { ...load, statesBefore: recurrentTakeBackMax } : load;
  // All weights in any case: some of the layers' tensors are read even where nothing drafts with them.
  const own = planPart(checked, trunk, model.layers.length, trunkLoad, rules);
  if (drafter === null) return [own];
  if (drafter === 'mtp') return [own, planPrediction(model, load, rules)];
  // As engine/draft-model.ts opens it: like the model itself, but nothing is drafted for it.
  const draftShape = { ...load, outputs: load.slots + 1 };
  const draft = toModelShape(drafter.checked.header);
  return [own, planPart(drafter.checked, draft, draft.layers.length, draftShape, rules)];
}

/** One file: `layerCount` of all its layers, of which `model` may have less. */
function planPart(
  { tensors, fileBytes, loraBytes }: CheckedModel,
  model: ModelShape,
  layerCount: number,
  load: LoadShape,
  { isCpu, gpuLayers }: PartRules,
): Part {
  const places = placeWeights(tensors, layerCount, gpuLayers);
  const onDevice = isCpu ? model : { ...model, layers: model.layers.slice(places.firstLayer) };
  const onHost = { ...model, layers: model.layers.slice(0, places.firstLayer) };
  const deviceBytes = (isCpu ? weightBytes(tensors, fileBytes) : places.deviceBytes) + loraBytes;
  const hostShape = { ...load, overheadMb: cpuOverheadMb };
  return {
    estimateAt: (context) => estimateMemory(onDevice, deviceBytes, load, context),
    hostMbAt: (context) =>
      isCpu || onHost.layers.length === 0
        ? 0
        : Math.ceil(estimateMemory(onHost, places.hostBytes, hostShape, context).totalMb),
  };
}

/**
 * The context of the prediction layers, as engine/mtp-context.ts makes it: the slots alone, and a hidden
 * state of every token of a batch, of a graph, and of those that wait in each slot. On the device, where the
 * last layers are unless all of them stay on the host: of `gpu_layers` the first is the output's.
 */
function planPrediction(model: ModelShape, load: LoadShape, { isCpu, gpuLayers, batch }: PartRules): Part {
  const shape = { ...model, layers: model.layers.slice(-model.predictionLayers) };
  const outputs = Math.max(load.slots, model.predictionLayers);
  const own = { ...load, slots: load.slots - 1, outputs, overheadMb: 0, isSecond: true };
  const states = batch + load.ubatch + load.slots * waitingStates;
  const statesMb = (states * model.embedding * 4) / 1024 ** 2;
  const at = (context: number): MemoryEstimate => {
    const estimate = estimateMemory(shape, 0, own, context);
    const { computeMb, totalMb } = estimate;
    return { ...estimate, computeMb: computeMb + statesMb, totalMb: totalMb + statesMb };
  };
  const isOnHost = !isCpu && gpuLayers !== null && gpuLayers <= 1;
  return {
    estimateAt: isOnHost ? () => nothing : at,
    hostMbAt: isOnHost ? (context) => Math.ceil(at(context).totalMb) : () => 0,
  };
}

function add(a: MemoryEstimate, b: MemoryEstimate): MemoryEstimate {
  return {
    weightsMb: a.weightsMb + b.weightsMb,
    cacheMb: a.cacheMb + b.cacheMb,
    computeMb: a.computeMb + b.computeMb,
    totalMb: a.totalMb + b.totalMb,
  };
}

/** Context, memory and prefix cache of a load, or the error that says why there is no room. */
export function decideLoad(
  spec: Pick<ModelSpec, 'model_id' | 'context' | 'prefix_cache_mb'> & { readonly slots: number },
  engine: EngineConfig,
  plan: Omit<LoadPlan, 'key'>,
  predict: (context: number, estimateMb: number) => number,
  { device, host, isShared }: Budgets,
): Omit<Decision, 'slots'> {
  const firmMb = spec.prefix_cache_mb ?? 0;
  const { isCpu } = plan;
  const needAt = (context: number): MemoryNeed & { readonly estimate: MemoryEstimate } => {
    const estimate = plan.estimateAt(context);
    const prefixCacheMb = isCpu ? firmMb : 0;
    return { mb: Math.ceil(predict(context, estimate.totalMb)) + prefixCacheMb, prefixCacheMb, estimate };
  };
  const context = resolveContext(spec.model_id, spec.context, engine.context, plan.trainContext, () =>
    largestContext(needAt, plan.trainContext, device.freeMb),
  );
  const need = needAt(context);
  const isAuto = (spec.context ?? engine.context) === 'auto';
  checkFits(spec.model_id, { ...need, canShrink: { context: !isAuto, slots: spec.slots > 1 } }, device);
  const hostMb = plan.hostMbAt(context);
  const besideMb = hostMb + (isShared ? need.mb : 0);
  if (host !== null && hostMb + firmMb > 0) {
    checkFits(spec.model_id, { mb: besideMb + firmMb, estimate: null }, host);
  }
  const hostFreeMb = isCpu ? device.freeMb - need.mb : (host?.freeMb ?? Number.POSITIVE_INFINITY) - besideMb;
  const prefixCacheMb = choosePrefixCache(spec, engine, hostFreeMb);
  return {
    context,
    estimate: need.estimate,
    prefixCacheMb,
    mb: isCpu ? need.mb - firmMb + prefixCacheMb : need.mb,
    hostMb: isCpu ? 0 : hostMb + prefixCacheMb,
  };
}

export function toLoadSpec(
  spec: ModelSpec,
  {
    first,
    draft,
    speculation,
  }: Pick<LoadPlan, 'speculation'> & {
    readonly first: string;
    readonly draft: DraftFile | null;
  },
  engine: EngineConfig,
  decision: Decision,
  target: Target,
  reservation: Pick<Reservation, 'shares'>,
): LoadSpec {
  const isCpu = target.members[0]?.kind === 'cpu';
  const load = toLoadShape(spec, engine, isCpu ? 'cpu' : 'gpu', target.members.length);
  return {
    modelId: spec.model_id,
    file: first,
    context: decision.context,
    slots: decision.slots,
    devices: [],
    splitMode: target.splitMode,
    gpuLayers: isCpu ? 0 : (spec.gpu_layers ?? null),
    cacheTypeK: load.cacheTypeK,
    cacheTypeV: load.cacheTypeV,
    batch: engine.batch,
    ubatch: load.ubatch,
    threads: engine.threads ?? null,
    flashAttention: engine.flash_attention ?? null,
    lora: spec.lora ?? [],
    embeddings: false,
    prefixCacheMb: decision.prefixCacheMb,
    speculation,
    draftFile: draft?.file ?? null,
    ...(reservation.shares === null ? {} : { tensorSplit: reservation.shares }),
  };
}

/**
 * MiB that the load took, prefix cache aside. A GPU's owner tells from the device's own figure. On the CPU
 * the owner knows the weights and how much grew when the context was made; compute buffers, which become
 * resident with the first large prompt only, are those of the estimate. Growth far below the cache means
 * that freed memory was used again, which says nothing.
 */
export function toActualMb(facts: ModelFacts, estimate: MemoryEstimate): number {
  const parts = facts.memoryParts;
  if (parts === undefined) return facts.memoryMb;
  const cacheMb = parts.contextMb >= 0.5 * estimate.cacheMb ? parts.contextMb : estimate.cacheMb;
  return parts.weightsMb + cacheMb + estimate.computeMb;
}

/** As much as is configured, but by default it yields: later models need room too. */
function choosePrefixCache(
  spec: Pick<ModelSpec, 'prefix_cache_mb'>,
  engine: EngineConfig,
  hostFreeMb: number,
): number {
  if (spec.prefix_cache_mb !== null && spec.prefix_cache_mb !== undefined) return spec.prefix_cache_mb;
  return Math.max(0, Math.min(engine.prefix_cache_mb, Math.floor(hostFreeMb * prefixShareMax)));
}

function toCacheType(text: string, param: string): KvCacheType {
  const known = kvCacheTypes.find((type) => type === text);
  if (known !== undefined) return known;
  throw new AppError(
    'invalid_request',
    `"${param}" is "${text.slice(0, 40)}"; use ${kvCacheTypes.join(', ')}`,
    {
      param,
    },
  );
}
