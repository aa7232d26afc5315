/** Writes BERT models: what an embedding model and a reranker are to the engine, without a download. */
import {
  createRandom,
  flagEntry,
  floatEntry,
  numberEntry,
  type Tensor,
  TensorMap,
  textEntry,
  vocabSize,
  writeGguf,
} from './tiny-gguf.test.kit.ts';

export interface TinyEncoder {
  readonly pooling: 'none' | 'mean' | 'cls' | 'rank';
  readonly seed?: number;
  readonly contextLength?: number;
}

/** What was written, for computing by hand what the engine must say. */
export interface TinyEncoderWeights {
  readonly width: number;
  readonly tensors: ReadonlyMap<string, Float32Array>;
}

const width = 32;
const layers = 2;
const feedForward = 64;
const poolingTypes = { none: 0, mean: 1, cls: 2, rank: 4 } as const;

export function writeTinyEncoder(file: string, options: TinyEncoder): TinyEncoderWeights {
  const { pooling, seed = 1, contextLength = 64 } = options;
  const tensors = makeTensors(seed, contextLength, pooling === 'rank');
  writeGguf(file, makeMetadata(contextLength, poolingTypes[pooling]), tensors);
  return { width, tensors: new Map([...tensors].map(([name, { values }]) => [name, values])) };
}

function makeTensors(seed: number, contextLength: number, isReranker: boolean): Map<string, Tensor> {
  const random = createRandom(seed);
  const tensors = new TensorMap();
  const weight = (name: string, ...dims: number[]): void => tensors.add(name, dims, () => random() * 0.6);
  const norm = (name: string): void => {
    tensors.add(`${name}.weight`, [width], () => 1 + random() * 0.2);
    tensors.add(`${name}.bias`, [width], () => random() * 0.2);
  };
  weight('token_embd.weight', width, vocabSize);
  weight('token_types.weight', width, 2);
  weight('position_embd.weight', width, contextLength);
  norm('token_embd_norm');
  for (let layer = 0; layer < layers; layer++) {
    const at = `blk.${layer}`;
    for (const name of ['attn_q', 'attn_k', 'attn_v', 'attn_output'])
      weight(`${at}.${name}.weight`, width, width);
    norm(`${at}.attn_output_norm`);
    weight(`${at}.ffn_up.weight`, width, feedForward);
    weight(`${at}.ffn_down.weight`, feedForward, width);
    norm(`${at}.layer_output_norm`);
  }
  if (isReranker) {
    weight('cls.weight', width, width);
    weight('cls.bias', width);
    weight('cls.output.weight', width, 1);
    weight('cls.output.bias', 1);
  }
  return tensors;
}

function makeMetadata(contextLength: number, poolingType: number): Buffer[] {
  return [
    textEntry('general.architecture', 'bert'),
    numberEntry('bert.context_length', contextLength),
    numberEntry('bert.embedding_length', width),
    numberEntry('bert.feed_forward_length', feedForward),
    numberEntry('bert.block_count', layers),
    numberEntry('bert.attention.head_count', 2),
    floatEntry('bert.attention.layer_norm_epsilon', 1e-6),
    flagEntry('bert.attention.causal', false),
    ...(poolingType === 0 ? [] : [numberEntry('bert.pooling_type', poolingType)]),
  ];
}
