/**
 * What a load will take, from the header alone. Pure.
 *
 *     weights   the tensors as they lie in the file
 *     cache     keys and values: per sequence the context, in whole blocks of 256 cells, times the layers
 *               (those with a sliding window only the window, where the engine keeps no more); recurrent
 *               layers: a state per sequence instead
 *     compute   the largest moment of one pass over `ubatch` tokens: attention over the full cache, or the
 *               feed-forward block; with flash attention the scores are never whole in memory
 *
 * The engine keeps one sequence more than there are slots (engine/open-model.ts), and KV is split per
 * sequence: everything "per sequence" counts slots + 1.
 * Compared with libllama's own measure (loading with no_alloc) in memory.test.ts.
 */
import { type KvCacheType, wholeInputsAtOnce } from 'cortex-core/wire/inference';
import type { LayerShape, ModelShape } from './model-shape.ts';

/** How the engine will open the model; what is left open here it decides alike. */
export interface LoadShape {
  readonly slots: number;
  readonly ubatch: number;
  /** Rows of logits that one step may make. */
  readonly outputs: number;
  readonly cacheTypeK: KvCacheType;
  readonly cacheTypeV: KvCacheType;
  readonly flashAttention: boolean;
  /** Whether layers with a sliding window keep the whole context all the same. */
  readonly fullWindow: boolean;
  /** Devices that the layers are spread over: each has compute buffers of its own. */
  readonly deviceCount: number;
  /** MiB of each device that no buffer explains: work buffers of its backend, pools, kernels. */
  readonly overheadMb: number;
  /** Recurrent states kept of each sequence besides the last one. */
  readonly statesBefore?: number | undefined;
  /** A second context of a model: the vocabulary's tables are there already. */
  readonly isSecond?: boolean | undefined;
}

/** MiB. */
export interface MemoryEstimate {
  readonly weightsMb: number;
  readonly cacheMb: number;
  /** Compute buffers, outputs, and what the library keeps beside. */
  readonly computeMb: number;
  readonly totalMb: number;
}

/** Bytes per element, block scales included. */
const cacheBytes: Readonly<Record<KvCacheType, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  q8_0: 34 / 32,
  q5_1: 24 / 32,
  q5_0: 22 / 32,
  q4_1: 20 / 32,
  q4_0: 18 / 32,
  iq4_nl: 18 / 32,
};

const mib = 1024 * 1024;
/** Of one token's text in the library's tables: 16.6 MiB for the 49,152 of SmolLM2. */
const vocabularyBytes = 340;
const cellBlock = 256;

/** `weightBytes`: of the part that lies on the device. */
export function estimateMemory(
  model: ModelShape,
  weightBytes: number,
  asked: LoadShape,
  context: number,
): MemoryEstimate {
  const load = model.readsWhole ? toWholeInputs(asked, context) : asked;
  const sequences = load.slots + 1;
  const cells = Math.ceil(context / cellBlock) * cellBlock;
  const cacheMb = cacheBytesOf(model, load, cells, sequences) / mib;
  const outputs = Math.max(sequences, load.outputs);
  const tables = load.isSecond ? 0 : model.vocabulary * vocabularyBytes;
  const fixed = outputs * model.vocabulary * 4 + tables;
  const perDevice = computeBytesOf(model, load, cells, sequences) / mib + load.overheadMb;
  const computeMb = perDevice * load.deviceCount + fixed / mib;
  const weightsMb = weightBytes / mib;
  return { weightsMb, cacheMb, computeMb, totalMb: weightsMb + cacheMb + computeMb };
}

/** Models that make vectors: the whole input in one pass, several inputs at once, always flash attention. */
function toWholeInputs(load: LoadShape, context: number): LoadShape {
  const ubatch = Math.ceil(Math.max(context, load.ubatch) / wholeInputsAtOnce) * wholeInputsAtOnce;
  return { ...load, slots: wholeInputsAtOnce - 1, ubatch, flashAttention: true };
}

function cacheBytesOf(model: ModelShape, load: LoadShape, cells: number, sequences: number): number {
  const windowCells = windowCellsOf(model, load, cells);
  // Without flash attention values lie transposed and every layer has the width of the widest.
  const widest = Math.max(0, ...model.layers.map((layer) => layer.valueLength));
  const bytesOf = (layer: LayerShape): number => {
    const { keyLength, valueLength, isWindowed, stateLength } = layer;
    const value = load.flashAttention || valueLength === 0 ? valueLength : widest;
    const perCell = keyLength * cacheBytes[load.cacheTypeK] + value * cacheBytes[load.cacheTypeV];
    return perCell * (isWindowed ? windowCells : cells) + stateLength * 4 * (1 + (load.statesBefore ?? 0));
  };
  return model.layers.reduce((sum, layer) => sum + bytesOf(layer), 0) * sequences;
}

function windowCellsOf(model: ModelShape, load: LoadShape, cells: number): number {
  if (load.fullWindow) return cells;
  return Math.ceil(Math.min(cells, model.slidingWindow + load.ubatch) / cellBlock) * cellBlock;
}

/** One pass: tokens are dealt evenly to the sequences, so their number is a multiple of it. */
function computeBytesOf(model: ModelShape, load: LoadShape, cells: number, sequences: number): number {
  const tokens = Math.ceil(Math.min(load.ubatch, cells * sequences) / sequences) * sequences;
  const attention = model.layers.reduce((most, layer) => Math.max(most, layer.keyLength), 0);
  const keysAndValues = model.layers.reduce(
    (most, layer) => Math.max(most, layer.keyLength + layer.valueLength),
    0,
  );
  const isWindowed = model.layers.some((layer) => layer.isWindowed);
  const cached = cells + (isWindowed ? windowCellsOf(model, load, cells) : 0);
  // Without a cache the tokens of a pass attend to each other.
  const maskCells = attention > 0 ? cached : model.readsWhole ? tokens : 0;
  const maskBytes = tokens * maskCells * (load.flashAttention ? 2 : 4);
  const scores = load.flashAttention || attention === 0 ? 0 : model.heads * cells;
  const queries = (model.isLatent ? 3 : 2) * model.queryLength;
  const attentionBytes = tokens * 4 * (scores + 3 * model.embedding + queries + keysAndValues);
  // Latent attention without flash: the values of every cell are copied out of the keys first.
  const copied = model.isLatent && !load.flashAttention ? cells * sequences * attention * 2 : 0;
  const state = model.layers.reduce((most, layer) => Math.max(most, layer.stateLength), 0);
  const mixerBytes = tokens * 4 * model.mixer + sequences * state * 4;
  const forwardBytes = tokens * 4 * (model.feedForward + keysAndValues);
  const outputBytes = load.outputs * 4 * (model.vocabulary + model.embedding) + tokens * 4 * model.embedding;
  const largest = Math.max(attentionBytes + copied, mixerBytes, forwardBytes, outputBytes);
  return maskBytes + largest;
}
