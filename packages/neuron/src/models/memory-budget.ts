/** A device's memory against what a load needs: what fits, and what is said when it does not. Pure. */
import { AppError } from 'cortex-core/wire/errors';
import type { MemoryEstimate } from './memory.ts';

export interface MemoryBudget {
  /** e.g. `cpu`, `cuda:0`, `cuda:0+1`. */
  readonly deviceId: string;
  readonly freeMb: number;
  readonly totalMb: number;
}

/** What a load needs at a context. Never falls with a larger one. */
export type NeedAt = (context: number) => MemoryNeed;

export interface MemoryNeed {
  readonly mb: number;
  /** What it is made of, as the header says. */
  readonly estimate: MemoryEstimate;
}

const contextStep = 256;
/** Of a model whose header does not say what it was trained on. */
const trainContextDefault = 4096;

/**
 * The largest context that needs at most `freeMb`: whole steps of 256, at most the training context; 0 =
 * none.
 */
export function largestContext(needAt: NeedAt, trainContext: number, freeMb: number): number {
  const trained = trainContext > 0 ? trainContext : trainContextDefault;
  if (needAt(trained).mb <= freeMb) return trained;
  let fits = 0;
  let tooLarge = Math.ceil(trained / contextStep);
  while (tooLarge - fits > 1) {
    const middle = Math.floor((fits + tooLarge) / 2);
    if (needAt(middle * contextStep).mb <= freeMb) fits = middle;
    else tooLarge = middle;
  }
  return fits * contextStep;
}

/**
 * Tokens per sequence: what the load asks for, else the configured default but never more than the model was
 * trained on, else (`auto`) the largest that fits.
 */
export function resolveContext(
  modelId: string,
  asked: number | 'auto' | null | undefined,
  configured: number | 'auto',
  trainContext: number,
  largest: () => number,
): number {
  const trained = trainContext > 0 ? trainContext : Number.POSITIVE_INFINITY;
  if (typeof asked === 'number') {
    if (asked <= trained) return asked;
    throw new AppError(
      'invalid_request',
      `model "${modelId}" was trained on ${trained} tokens; load it with a context of at most that`,
      { param: 'context' },
    );
  }
  if (asked !== 'auto' && configured !== 'auto') return Math.min(configured, trained);
  return Math.min(Math.max(contextStep, largest()), trained);
}

/** Throws `does_not_fit` when even an empty device is too small, `insufficient_vram` when it is only full. */
export function checkFits(modelId: string, need: MemoryNeed, budget: MemoryBudget): void {
  const { mb, estimate } = need;
  if (mb <= budget.freeMb) return;
  const extras = { model_id: modelId, required_mb: mb, free_mb: budget.freeMb, total_mb: budget.totalMb };
  const { weightsMb, cacheMb, computeMb, totalMb } = estimate;
  const parts = [
    `weights ${Math.ceil(weightsMb)}`,
    `KV ${Math.ceil(cacheMb)}`,
    `compute ${Math.ceil(computeMb)}`,
  ];
  const beyond = Math.round(mb - totalMb);
  if (beyond > 1) parts.push(`${beyond} more as earlier loads showed, or asked for its prefix cache`);
  const need1 = `model "${modelId}" needs ${mb} MiB on ${budget.deviceId}`;
  const free = `${budget.freeMb} MiB free of ${budget.totalMb} MiB budget (${parts.join(' + ')})`;
  if (mb > budget.totalMb) {
    throw new AppError(
      'does_not_fit',
      `${need1}, ${free}; choose a smaller quantisation, a smaller context or fewer slots`,
      { extras },
    );
  }
  throw new AppError('insufficient_vram', `${need1}, ${free}; unload a model first`, {
    extras,
    retryAfterSecs: 5,
  });
}
