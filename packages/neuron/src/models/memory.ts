/**
 * What a load will take, from the header alone. Pure.
 *
 * weights (the files' size) + KV cells (context x slots x bytes per token over all layers) + compute buffers
 * (logits and activations of one physical batch). Layers with a sliding window are counted in full, so the
 * figure errs to the safe side.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { KvCacheType } from 'cortex-core/wire/inference';
import type { GgufHeader } from './gguf-header.ts';

export interface LoadShape {
  readonly slots: number;
  readonly ubatch: number;
  readonly cacheTypeK: KvCacheType;
  readonly cacheTypeV: KvCacheType;
}

export interface MemoryCosts {
  readonly fixedMb: number;
  /** Of one context token in all slots. */
  readonly mbPerContextToken: number;
  /** 0 = unknown. */
  readonly trainContext: number;
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
const overheadMb = 16;
const contextStep = 256;

export function estimateCosts(header: GgufHeader, fileBytes: number, shape: LoadShape): MemoryCosts {
  const architecture = String(header.metadata.get('general.architecture') ?? '');
  const number = (key: string): number | null => {
    const value = header.metadata.get(`${architecture}.${key}`);
    return typeof value === 'number' && Number.isFinite(value) ? value : null;
  };
  const layers = number('block_count') ?? 0;
  const embedding = number('embedding_length') ?? 0;
  const heads = Math.max(1, number('attention.head_count') ?? 1);
  const keyLength = number('attention.key_length') ?? embedding / heads;
  const valueLength = number('attention.value_length') ?? embedding / heads;
  const perLayer = header.numberArrays.get(`${architecture}.attention.head_count_kv`);
  const kvHeads =
    perLayer?.reduce((sum, each) => sum + each, 0) ?? layers * (number('attention.head_count_kv') ?? heads);
  const perToken =
    kvHeads * (keyLength * cacheBytes[shape.cacheTypeK] + valueLength * cacheBytes[shape.cacheTypeV]);
  const vocab = header.arrayLengths.get('tokenizer.ggml.tokens') ?? number('vocab_size') ?? 0;
  const feedForward = number('feed_forward_length') ?? embedding * 4;
  const compute = shape.ubatch * 4 * (vocab + 8 * embedding + 2 * feedForward);
  return {
    fixedMb: (fileBytes + compute) / mib + overheadMb,
    mbPerContextToken: (perToken * shape.slots) / mib,
    trainContext: number('context_length') ?? 0,
  };
}

export function requiredMb(costs: MemoryCosts, context: number): number {
  return Math.ceil(costs.fixedMb + costs.mbPerContextToken * context);
}

/** The largest context for `freeMb`, a multiple of 256, at most the training context; 0 = nothing fits. */
export function largestContext(costs: MemoryCosts, freeMb: number): number {
  const spare = freeMb - costs.fixedMb;
  if (spare <= 0) return 0;
  const trained = costs.trainContext > 0 ? costs.trainContext : 4096;
  if (costs.mbPerContextToken <= 0) return trained;
  const fits = Math.floor(spare / costs.mbPerContextToken);
  if (fits >= trained) return trained;
  return Math.floor(fits / contextStep) * contextStep;
}

/**
 * Tokens per sequence: what the load asks for, else the configured default but never more than the model was
 * trained on, else (`auto`) the largest that fits.
 */
export function resolveContext(
  modelId: string,
  asked: number | 'auto' | null | undefined,
  configured: number | 'auto',
  costs: MemoryCosts,
  freeMb: number,
): number {
  const trained = costs.trainContext > 0 ? costs.trainContext : Number.POSITIVE_INFINITY;
  if (typeof asked === 'number') {
    if (asked <= trained) return asked;
    throw new AppError(
      'invalid_request',
      `model "${modelId}" was trained on ${trained} tokens; load it with a context of at most that`,
      { param: 'context' },
    );
  }
  if (asked !== 'auto' && configured !== 'auto') return Math.min(configured, trained);
  return Math.max(contextStep, largestContext(costs, freeMb));
}

export interface MemoryBudget {
  /** e.g. `cpu`, `cuda:0`. */
  readonly deviceId: string;
  readonly freeMb: number;
  readonly totalMb: number;
}

/** Throws `does_not_fit` when even an empty device is too small, `insufficient_vram` when it is only full. */
export function checkFits(modelId: string, neededMb: number, budget: MemoryBudget): void {
  if (neededMb <= budget.freeMb) return;
  const extras = {
    model_id: modelId,
    required_mb: neededMb,
    free_mb: budget.freeMb,
    total_mb: budget.totalMb,
  };
  const need = `model "${modelId}" needs ${neededMb} MiB on ${budget.deviceId}`;
  const free = `${budget.freeMb} MiB free of ${budget.totalMb} MiB budget`;
  if (neededMb > budget.totalMb) {
    throw new AppError(
      'does_not_fit',
      `${need}, ${free}; choose a smaller quantisation, a smaller context or fewer slots`,
      { extras },
    );
  }
  throw new AppError('insufficient_vram', `${need}, ${free}; unload a model first`, {
    extras,
    retryAfterSecs: 5,
  });
}
