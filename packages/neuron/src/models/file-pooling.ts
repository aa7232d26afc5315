/** How a model will make vectors, from its header alone: as engine/pooling.ts decides at the load. Pure. */
import type { ModelFacts } from 'cortex-core/wire/inference';
import type { GgufHeader } from './gguf-header.ts';

export interface FilePooling {
  readonly pooling: ModelFacts['pooling'];
  /** An input is read in one pass as a whole, for its vector alone. */
  readonly readsWhole: boolean;
}

/** Values of `pooling_type`. */
const poolings: Readonly<Record<number, ModelFacts['pooling']>> = {
  1: 'mean',
  2: 'cls',
  3: 'last',
  4: 'rank',
};
/** Not causal, though no key says so. */
const encoders = new Set(['gemma-embedding']);
/** Not causal, and no encoders: they write text (llama-arch.cpp, llm_arch_is_diffusion). */
const diffusionArchitectures = new Set(['dream', 'llada', 'llada-moe', 'rnd1']);
/** Mean and first token need the whole input; rank too, but for these. */
const lastTokenRerankers = new Set(['qwen3', 'qwen3vl']);

export function toFilePooling({ metadata }: Pick<GgufHeader, 'metadata'>): FilePooling {
  const architecture = String(metadata.get('general.architecture') ?? '');
  const declared = Number(metadata.get(`${architecture}.pooling_type`) ?? 0);
  const isDiffusion = diffusionArchitectures.has(architecture);
  const isCausal = metadata.get(`${architecture}.attention.causal`) !== false;
  const isEncoder = !isDiffusion && (!isCausal || encoders.has(architecture));
  // An encoder whose file names no pooling takes the mean.
  if (isEncoder && declared <= 0) return { pooling: 'mean', readsWhole: true };
  const pooling = poolings[declared] ?? 'none';
  const needsAll =
    pooling === 'mean' || pooling === 'cls' || (pooling === 'rank' && !lastTokenRerankers.has(architecture));
  return { pooling, readsWhole: isEncoder || (needsAll && !isDiffusion) };
}
