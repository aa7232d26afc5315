/**
 * Writes BERT models of a few kilobytes with random weights: what an embedding model and a reranker are to
 * the engine, without a download. The weights come from a seed, so two files of one seed differ only in what
 * is asked to differ.
 */
import { writeFileSync } from 'node:fs';

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
const special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'];
const words = 'the a cat dog sat ran on over mat moon of is what who paris france capital blue sky sea'.split(
  ' ',
);
const poolingTypes = { none: 0, mean: 1, cls: 2, rank: 4 } as const;
const types = { u32: 4, f32: 6, bool: 7, string: 8, array: 9 } as const;

export function writeTinyEncoder(file: string, options: TinyEncoder): TinyEncoderWeights {
  const { pooling, seed = 1, contextLength = 64 } = options;
  const tensors = makeTensors(seed, contextLength, pooling === 'rank');
  const metadata = makeMetadata(contextLength, poolingTypes[pooling]);
  let offset = 0;
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  for (const [name, { dims, values }] of tensors) {
    infos.push(text(name), u32(dims.length), ...dims.map(u64), u32(0), u64(offset));
    const bytes = pad(Buffer.from(values.buffer, values.byteOffset, values.byteLength));
    data.push(bytes);
    offset += bytes.length;
  }
  const head = [Buffer.from('GGUF'), u32(3), u64(tensors.size), u64(metadata.length), ...metadata, ...infos];
  writeFileSync(file, Buffer.concat([pad(Buffer.concat(head)), ...data]));
  return { width, tensors: new Map([...tensors].map(([name, { values }]) => [name, values])) };
}

interface Tensor {
  readonly dims: readonly number[];
  readonly values: Float32Array;
}

function makeTensors(seed: number, contextLength: number, isReranker: boolean): Map<string, Tensor> {
  const random = createRandom(seed);
  const tensors = new Map<string, Tensor>();
  const add = (name: string, dims: readonly number[], fill: () => number): void => {
    const values = new Float32Array(dims.reduce((product, dim) => product * dim, 1));
    tensors.set(name, { dims, values: values.map(fill) });
  };
  const weight = (name: string, ...dims: number[]): void => add(name, dims, () => random() * 0.6);
  const norm = (name: string): void => {
    add(`${name}.weight`, [width], () => 1 + random() * 0.2);
    add(`${name}.bias`, [width], () => random() * 0.2);
  };
  weight('token_embd.weight', width, special.length + words.length);
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
  const number = (key: string, value: number): Buffer =>
    Buffer.concat([text(key), u32(types.u32), u32(value)]);
  const tokens = [...special, ...words.map((word) => `\u2581${word}`)];
  const list = [u32(types.string), u64(tokens.length), ...tokens.map(text)];
  const kinds = [
    u32(types.u32 + 1),
    u64(tokens.length),
    ...tokens.map((_, at) => u32(at < special.length ? 3 : 1)),
  ];
  return [
    Buffer.concat([text('general.architecture'), u32(types.string), text('bert')]),
    number('bert.context_length', contextLength),
    number('bert.embedding_length', width),
    number('bert.feed_forward_length', feedForward),
    number('bert.block_count', layers),
    number('bert.attention.head_count', 2),
    Buffer.concat([text('bert.attention.layer_norm_epsilon'), u32(types.f32), f32(1e-6)]),
    Buffer.concat([text('bert.attention.causal'), u32(types.bool), Buffer.of(0)]),
    ...(poolingType === 0 ? [] : [number('bert.pooling_type', poolingType)]),
    Buffer.concat([text('tokenizer.ggml.model'), u32(types.string), text('bert')]),
    Buffer.concat([text('tokenizer.ggml.tokens'), u32(types.array), ...list]),
    Buffer.concat([text('tokenizer.ggml.token_type'), u32(types.array), ...kinds]),
    number('tokenizer.ggml.token_type_count', 2),
    number('tokenizer.ggml.unknown_token_id', 1),
    number('tokenizer.ggml.bos_token_id', 2),
    number('tokenizer.ggml.eos_token_id', 3),
    number('tokenizer.ggml.cls_token_id', 2),
    number('tokenizer.ggml.seperator_token_id', 3),
    number('tokenizer.ggml.padding_token_id', 0),
    number('tokenizer.ggml.mask_token_id', 4),
  ];
}

/** mulberry32, -1..1. */
function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

function u32(value: number): Buffer {
  return Buffer.from(Uint32Array.of(value).buffer);
}

function u64(value: number): Buffer {
  return Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
}

function f32(value: number): Buffer {
  return Buffer.from(Float32Array.of(value).buffer);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function pad(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);
}
