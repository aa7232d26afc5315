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
  /** Of it, what the load asked for beside what the model takes. */
  readonly prefixCacheMb?: number;
  /** What it is made of, as the header says; null = not known. */
  readonly estimate: MemoryEstimate | null;
  /** What could still be less: the context, unless it is the least already, and the slots. */
  readonly canShrink?: { readonly context: boolean; readonly slots: boolean };
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
  const { mb } = need;
  if (mb <= budget.freeMb) return;
  const extras = { model_id: modelId, required_mb: mb, free_mb: budget.freeMb, total_mb: budget.totalMb };
  const needed = `model "${modelId}" needs ${mb} MiB on ${budget.deviceId}`;
  const free = `${budget.freeMb} MiB free of ${budget.totalMb} MiB budget${describe(need)}`;
  if (mb > budget.totalMb) {
    throw new AppError('does_not_fit', `${needed}, ${free}; ${advise(need, budget)}`, { extras });
  }
  throw new AppError('insufficient_vram', `${needed}, ${free}; unload a model first`, {
    extras,
    retryAfterSecs: 5,
  });
}

function advise({ mb, prefixCacheMb = 0, canShrink }: MemoryNeed, { totalMb }: MemoryBudget): string {
  if (mb - prefixCacheMb <= totalMb) return 'ask for less "prefix_cache_mb"';
  const smaller = [
    'a smaller quantisation',
    ...(canShrink?.context === false ? [] : ['a smaller context']),
    ...(canShrink?.slots === false ? [] : ['fewer slots']),
  ];
  const last = smaller.pop();
  return `choose ${smaller.length === 0 ? last : `${smaller.join(', ')} or ${last}`}`;
}

function describe({ mb, estimate, prefixCacheMb = 0 }: MemoryNeed): string {
  if (estimate === null) return '';
  const { weightsMb, cacheMb, computeMb, totalMb } = estimate;
  const parts = [
    `weights ${Math.ceil(weightsMb)}`,
    `KV ${Math.ceil(cacheMb)}`,
    `compute ${Math.ceil(computeMb)}`,
  ];
  if (prefixCacheMb > 0) parts.push(`prefix cache ${prefixCacheMb}`);
  const beyond = Math.floor(mb - prefixCacheMb - totalMb);
  if (beyond > 0) parts.push(`${beyond} that earlier loads took beyond their estimate`);
  return ` (${parts.join(' + ')})`;
}
