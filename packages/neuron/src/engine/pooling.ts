/** How a model makes one vector of an input, and what its context must be for that. */
import type { ModelFacts } from 'cortex-core/wire/inference';
import { type LlamaApi, LlamaPoolingType } from '../libllama/bindings.gen.ts';

type Pooling = ModelFacts['pooling'];

/** Without a key in the file: libllama's own graphs that are not causal (src/models/gemma-embedding.cpp). */
const encoders: readonly string[] = ['gemma-embedding'];
/** Rerankers that read the last token; all others read the first (llm_graph_input_cls). */
const lastTokenRerankers: readonly string[] = ['qwen3', 'qwen3vl'];

const names: Readonly<Record<number, Pooling>> = {
  [LlamaPoolingType.LLAMA_POOLING_TYPE_MEAN]: 'mean',
  [LlamaPoolingType.LLAMA_POOLING_TYPE_CLS]: 'cls',
  [LlamaPoolingType.LLAMA_POOLING_TYPE_LAST]: 'last',
  [LlamaPoolingType.LLAMA_POOLING_TYPE_RANK]: 'rank',
};

export interface PoolingPlan {
  /** For llama_context_params. */
  readonly poolingType: number;
  /** Whether an input must be in one compute graph as a whole; see embedder.ts. */
  readonly readsWhole: boolean;
}

/** From the file's metadata alone: the context is made with it. */
export function planPooling(api: LlamaApi, model: bigint): PoolingPlan {
  const read = (key: string): string | null => readMetadata(api, model, key);
  const architecture = read('general.architecture') ?? '';
  const declared = read(`${architecture}.pooling_type`);
  const isDiffusion = api.llama_model_is_diffusion(model);
  const isEncoder =
    !isDiffusion && (read(`${architecture}.attention.causal`) === 'false' || encoders.includes(architecture));
  // An encoder whose file names no pooling: the mean, as the libraries that train them take it.
  if (isEncoder && (declared === null || Number(declared) <= 0)) {
    return { poolingType: LlamaPoolingType.LLAMA_POOLING_TYPE_MEAN, readsWhole: true };
  }
  const pooling = names[Number(declared ?? 0)] ?? 'none';
  const needsAll =
    pooling === 'mean' ||
    pooling === 'cls' ||
    (pooling === 'rank' && !lastTokenRerankers.includes(architecture));
  return {
    poolingType: LlamaPoolingType.LLAMA_POOLING_TYPE_UNSPECIFIED,
    readsWhole: isEncoder || (needsAll && !isDiffusion),
  };
}

/** What the context really does. */
export function poolingOf(api: LlamaApi, context: bigint): Pooling {
  return names[api.llama_pooling_type(context)] ?? 'none';
}

function readMetadata(api: LlamaApi, model: bigint, key: string): string | null {
  const buffer = new Uint8Array(256);
  const length = api.llama_model_meta_val_str(model, key, buffer, buffer.length);
  return length < 0 ? null : new TextDecoder().decode(buffer.subarray(0, Math.min(length, 255)));
}
