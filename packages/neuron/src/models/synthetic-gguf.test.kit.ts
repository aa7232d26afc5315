/**
 * GGUF files with the shape of real model families and no weights: header, tensor table, and a hole of the
 * size of the data. libllama takes their measure without allocating. Not part of the product.
 */
import { open, writeFile } from 'node:fs/promises';

type Value = number | string | readonly number[];
type Tensor = readonly [name: string, shape: readonly number[]];

export interface SyntheticModel {
  readonly architecture: string;
  /** Whole numbers; keys that end in `_epsilon` are written as floats. Keys without their architecture. */
  readonly metadata: Readonly<Record<string, Value>>;
  readonly tensors: readonly Tensor[];
}

const vocab = 32_000;
const f16 = 1;
const f32 = 0;

const ssm = { conv: 4, inner: 2048, state: 128, heads: 32, groups: 1 };
const ssmMetadata = {
  'ssm.conv_kernel': ssm.conv,
  'ssm.inner_size': ssm.inner,
  'ssm.state_size': ssm.state,
  'ssm.time_step_rank': ssm.heads,
  'ssm.group_count': ssm.groups,
};

/** Names and shapes as in llama.cpp, src/models/*.cpp. */
export const families: Readonly<Record<string, SyntheticModel>> = {
  llama: dense('llama', { layers: 4, embedding: 2048, feedForward: 8192, heads: 32, kvHeads: 8 }),
  narrow: dense('llama', { layers: 3, embedding: 1536, feedForward: 8960, heads: 12, kvHeads: 2 }),
  gemma3: gemma3(),
  qwen3moe: qwen3moe(),
  deepseek2: deepseek2(),
  granitehybrid: graniteHybrid(),
  mamba2: mamba2(),
  lfm2: lfm2(),
};

/** With layers for prediction behind the others: two behind six; one behind eight, most of them recurrent. */
export const predicting: SyntheticModel = hyV3();
export const predictingHybrid: SyntheticModel = qwen35();

export async function writeSyntheticGguf(path: string, model: SyntheticModel): Promise<void> {
  const own = { vocab_size: vocab, context_length: 131_072, ...model.metadata };
  const metadata: Metadata = [
    ['general.architecture', model.architecture],
    ['tokenizer.ggml.model', 'no_vocab'],
    ...Object.entries(own).map(([key, value]): Metadata[number] => [`${model.architecture}.${key}`, value]),
  ];
  const { header, dataBytes } = encode(metadata, model.tensors);
  const file = await open(path, 'w');
  try {
    await file.write(header);
    await file.truncate(header.length + dataBytes);
  } finally {
    await file.close();
  }
}

/** A LoRA adapter of one matrix, every element of it `fill`. */
export async function writeSyntheticAdapter(
  path: string,
  architecture: string,
  matrix: { readonly name: string; readonly inputs: number; readonly outputs: number },
  fill: number,
): Promise<void> {
  const metadata: Metadata = [
    ['general.architecture', architecture],
    ['general.type', 'adapter'],
    ['adapter.type', 'lora'],
    ['adapter.lora.alpha', 1],
  ];
  const { header, dataBytes } = encode(metadata, [
    [`${matrix.name}.lora_a`, [matrix.inputs, 1]],
    [`${matrix.name}.lora_b`, [1, matrix.outputs]],
  ]);
  const data = Buffer.from(new Float32Array(dataBytes / 4).fill(fill).buffer);
  await writeFile(path, Buffer.concat([header, data]));
}

type Metadata = readonly (readonly [key: string, value: Value])[];

/** The header up to where the data begins, and the bytes that have to follow. */
function encode(metadata: Metadata, tensors: readonly Tensor[]): { header: Buffer; dataBytes: number } {
  const parts: Buffer[] = [];
  const u32 = (value: number): void => void parts.push(Buffer.from(Uint32Array.of(value).buffer));
  const u64 = (value: number): void => void parts.push(Buffer.from(BigUint64Array.of(BigInt(value)).buffer));
  const text = (value: string): void => {
    u64(Buffer.byteLength(value));
    parts.push(Buffer.from(value));
  };
  parts.push(Buffer.from('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(metadata.length);
  for (const [key, value] of metadata) {
    text(key);
    if (typeof value === 'string') {
      u32(8);
      text(value);
    } else if (typeof value === 'number' && /_epsilon$|\.alpha$/.test(key)) {
      u32(6);
      parts.push(Buffer.from(Float32Array.of(value).buffer));
    } else if (typeof value === 'number') {
      u32(4);
      u32(value);
    } else {
      u32(9);
      u32(5);
      u64(value.length);
      for (const each of value) u32(each);
    }
  }
  let dataBytes = 0;
  for (const [name, shape] of tensors) {
    const isMatrix = shape.length > 1 && /\.weight$/.test(name) && !/conv1d|ssm_norm|gate_inp/.test(name);
    text(name);
    u32(shape.length);
    for (const length of shape) u64(length);
    u32(isMatrix ? f16 : f32);
    u64(dataBytes);
    const bytes = shape.reduce((product, length) => product * length, isMatrix ? 2 : 4);
    dataBytes += Math.ceil(bytes / 32) * 32;
  }
  const end = parts.reduce((sum, part) => sum + part.length, 0);
  parts.push(Buffer.alloc(Math.ceil(end / 32) * 32 - end));
  return { header: Buffer.concat(parts), dataBytes };
}

interface DenseShape {
  readonly layers: number;
  readonly embedding: number;
  readonly feedForward: number;
  readonly heads: number;
  readonly kvHeads: number;
}

function dense(architecture: string, shape: DenseShape): SyntheticModel {
  const { embedding, heads, kvHeads } = shape;
  const tensors = perLayer(shape.layers, (at) => [
    ...attention(at, embedding, embedding, (embedding / heads) * kvHeads),
    ...feedForward(at, embedding, shape.feedForward),
  ]);
  return { architecture, metadata: toMetadata(shape), tensors: [...outer(embedding), ...tensors] };
}

function gemma3(): SyntheticModel {
  const shape = { layers: 12, embedding: 1152, feedForward: 6912, heads: 4, kvHeads: 1 };
  const { embedding } = shape;
  const tensors = perLayer(shape.layers, (at) => [
    ...attention(at, embedding, 4 * 256, 256),
    [`blk.${at}.post_attention_norm.weight`, [embedding]],
    [`blk.${at}.post_ffw_norm.weight`, [embedding]],
    [`blk.${at}.attn_k_norm.weight`, [256]],
    [`blk.${at}.attn_q_norm.weight`, [256]],
    ...feedForward(at, embedding, shape.feedForward),
  ]);
  const metadata = {
    ...toMetadata(shape),
    'attention.key_length': 256,
    'attention.value_length': 256,
    'attention.sliding_window': 512,
  };
  return { architecture: 'gemma3', metadata, tensors: [...outer(embedding), ...tensors] };
}

function qwen3moe(): SyntheticModel {
  const shape = { layers: 4, embedding: 2048, feedForward: 6144, heads: 32, kvHeads: 4 };
  const [embedding, experts, expertForward] = [2048, 16, 768];
  const tensors = perLayer(shape.layers, (at) => [
    ...attention(at, embedding, 32 * 128, 4 * 128),
    [`blk.${at}.attn_k_norm.weight`, [128]],
    [`blk.${at}.attn_q_norm.weight`, [128]],
    [`blk.${at}.ffn_norm.weight`, [embedding]],
    ...experts3(at, embedding, expertForward, experts),
  ]);
  const metadata = {
    ...toMetadata(shape),
    'attention.key_length': 128,
    'attention.value_length': 128,
    expert_count: experts,
    expert_used_count: 8,
    expert_feed_forward_length: expertForward,
  };
  return { architecture: 'qwen3moe', metadata, tensors: [...outer(embedding), ...tensors] };
}

/** MLA: one latent key head, no values. */
function deepseek2(): SyntheticModel {
  const [layers, embedding, heads, rope, nope, rank, value] = [4, 2048, 16, 64, 128, 512, 128];
  const [experts, expertForward] = [16, 1408];
  const tensors = perLayer(layers, (at) => [
    [`blk.${at}.attn_norm.weight`, [embedding]],
    [`blk.${at}.attn_q_a_norm.weight`, [768]],
    [`blk.${at}.attn_kv_a_norm.weight`, [rank]],
    [`blk.${at}.attn_q_a.weight`, [embedding, 768]],
    [`blk.${at}.attn_q_b.weight`, [768, heads * (nope + rope)]],
    [`blk.${at}.attn_kv_a_mqa.weight`, [embedding, rank + rope]],
    [`blk.${at}.attn_k_b.weight`, [nope, rank, heads]],
    [`blk.${at}.attn_v_b.weight`, [rank, value, heads]],
    [`blk.${at}.attn_output.weight`, [heads * value, embedding]],
    [`blk.${at}.ffn_norm.weight`, [embedding]],
    ...(at === 0
      ? feedForward(at, embedding, 10_944).slice(1)
      : experts3(at, embedding, expertForward, experts)),
    ...(at === 0
      ? []
      : ([
          [`blk.${at}.ffn_gate_shexp.weight`, [embedding, 2 * expertForward]],
          [`blk.${at}.ffn_up_shexp.weight`, [embedding, 2 * expertForward]],
          [`blk.${at}.ffn_down_shexp.weight`, [2 * expertForward, embedding]],
        ] as Tensor[])),
  ]);
  const metadata = {
    ...toMetadata({ layers, embedding, feedForward: 10_944, heads, kvHeads: 1 }),
    'rope.dimension_count': rope,
    'attention.key_length': rank + rope,
    'attention.value_length': rank,
    'attention.key_length_mla': nope + rope,
    'attention.value_length_mla': value,
    'attention.q_lora_rank': 768,
    'attention.kv_lora_rank': rank,
    leading_dense_block_count: 1,
    expert_count: experts,
    expert_used_count: 6,
    expert_shared_count: 2,
    expert_feed_forward_length: expertForward,
  };
  return { architecture: 'deepseek2', metadata, tensors: [...outer(embedding), ...tensors] };
}

/** Experts in every layer but the first; the last `prediction` layers are for prediction. */
function hyV3(): SyntheticModel {
  const [embedding, heads, kvHeads, length, experts, expertForward, prediction] = [
    1536, 12, 4, 128, 8, 768, 2,
  ];
  const layers = 6 + prediction;
  const tensors = perLayer(layers, (at) => [
    ...attention(at, embedding, heads * length, kvHeads * length),
    [`blk.${at}.attn_q_norm.weight`, [length]],
    [`blk.${at}.attn_k_norm.weight`, [length]],
    ...(at === 0
      ? feedForward(at, embedding, 4096)
      : ([
          [`blk.${at}.ffn_norm.weight`, [embedding]],
          ...experts3(at, embedding, expertForward, experts),
          [`blk.${at}.exp_probs_b`, [experts]],
          ...feedForward(at, embedding, expertForward)
            .slice(1)
            .map(([name, shape]): Tensor => [name.replace('.weight', '_shexp.weight'), shape]),
        ] as Tensor[])),
    ...(at < layers - prediction ? [] : prediction3(at, embedding)),
  ]);
  const metadata = {
    ...toMetadata({ layers, embedding, feedForward: 4096, heads, kvHeads }),
    nextn_predict_layers: prediction,
    'attention.key_length': length,
    'attention.value_length': length,
    'rope.dimension_count': length,
    expert_count: experts,
    expert_used_count: 2,
    expert_feed_forward_length: expertForward,
    expert_shared_feed_forward_length: expertForward,
  };
  return { architecture: 'hy_v3', metadata, tensors: [...outer(embedding), ...tensors] };
}

/** Attention in every fourth layer and in the one for prediction, a gated delta net in the others. */
function qwen35(): SyntheticModel {
  const [layers, embedding, heads, kvHeads, length, forward] = [9, 1536, 12, 4, 128, 4096];
  const [state, groups, rank] = [64, 8, 16];
  const [inner, channels] = [rank * state, rank * state + 2 * groups * state];
  const query: Tensor = ['attn_q.weight', [embedding, 2 * heads * length]];
  const tensors = perLayer(layers, (at) => [
    [`blk.${at}.attn_norm.weight`, [embedding]],
    ...(at % 4 === 3 || at === layers - 1
      ? ([
          [`blk.${at}.${query[0]}`, query[1]],
          ...attention(at, embedding, heads * length, kvHeads * length).slice(2),
          [`blk.${at}.attn_q_norm.weight`, [length]],
          [`blk.${at}.attn_k_norm.weight`, [length]],
        ] as Tensor[])
      : ([
          [`blk.${at}.attn_qkv.weight`, [embedding, channels]],
          [`blk.${at}.attn_gate.weight`, [embedding, inner]],
          [`blk.${at}.ssm_conv1d.weight`, [4, channels]],
          [`blk.${at}.ssm_dt.bias`, [rank]],
          [`blk.${at}.ssm_a`, [rank]],
          [`blk.${at}.ssm_alpha.weight`, [embedding, rank]],
          [`blk.${at}.ssm_beta.weight`, [embedding, rank]],
          [`blk.${at}.ssm_norm.weight`, [state]],
          [`blk.${at}.ssm_out.weight`, [inner, embedding]],
        ] as Tensor[])),
    [`blk.${at}.post_attention_norm.weight`, [embedding]],
    ...feedForward(at, embedding, forward).slice(1),
    ...(at < layers - 1 ? [] : prediction3(at, embedding)),
  ]);
  const metadata = {
    ...toMetadata({ layers, embedding, feedForward: forward, heads, kvHeads }),
    nextn_predict_layers: 1,
    full_attention_interval: 4,
    'attention.key_length': length,
    'attention.value_length': length,
    'rope.dimension_count': length,
    'rope.dimension_sections': [16, 16, 16, 16],
    'ssm.conv_kernel': 4,
    'ssm.inner_size': inner,
    'ssm.state_size': state,
    'ssm.time_step_rank': rank,
    'ssm.group_count': groups,
  };
  return { architecture: 'qwen35', metadata, tensors: [...outer(embedding), ...tensors] };
}

function mambaMixer(at: number, embedding: number): Tensor[] {
  const channels = ssm.inner + 2 * ssm.groups * ssm.state;
  return [
    [`blk.${at}.ssm_in.weight`, [embedding, ssm.inner + channels + ssm.heads]],
    [`blk.${at}.ssm_conv1d.weight`, [ssm.conv, channels]],
    [`blk.${at}.ssm_conv1d.bias`, [channels]],
    [`blk.${at}.ssm_dt.bias`, [ssm.heads]],
    [`blk.${at}.ssm_a`, [1, ssm.heads]],
    [`blk.${at}.ssm_d`, [1, ssm.heads]],
    [`blk.${at}.ssm_norm.weight`, [ssm.inner / ssm.groups, ssm.groups]],
    [`blk.${at}.ssm_out.weight`, [ssm.inner, embedding]],
  ];
}

/** Attention in every fourth layer, Mamba-2 in the others. */
function graniteHybrid(): SyntheticModel {
  const [layers, embedding, heads] = [8, 1024, 16];
  const kvHeads = Array.from({ length: layers }, (_, at) => (at % 4 === 3 ? 4 : 0));
  const tensors = perLayer(layers, (at) => [
    ...(kvHeads[at] === 0
      ? [[`blk.${at}.attn_norm.weight`, [embedding]] as Tensor, ...mambaMixer(at, embedding)]
      : attention(at, embedding, embedding, 4 * 64)),
    ...feedForward(at, embedding, 4096),
  ]);
  const shape = { layers, embedding, feedForward: 4096, heads, kvHeads: 0 };
  const metadata = { ...toMetadata(shape), ...ssmMetadata, 'attention.head_count_kv': kvHeads };
  return { architecture: 'granitehybrid', metadata, tensors: [...outer(embedding), ...tensors] };
}

function mamba2(): SyntheticModel {
  const [layers, embedding] = [6, 1024];
  const tensors = perLayer(layers, (at) => [
    [`blk.${at}.attn_norm.weight`, [embedding]],
    ...mambaMixer(at, embedding),
  ]);
  const shape = { layers, embedding, feedForward: 0, heads: 0, kvHeads: 0 };
  const metadata = { ...toMetadata(shape), ...ssmMetadata };
  return { architecture: 'mamba2', metadata, tensors: [...outer(embedding), ...tensors] };
}

/** Short convolutions, with attention in every third layer. */
function lfm2(): SyntheticModel {
  const [layers, embedding, heads] = [6, 1024, 16];
  const kvHeads = Array.from({ length: layers }, (_, at) => (at % 3 === 2 ? 8 : 0));
  const tensors = perLayer(layers, (at): Tensor[] => [
    ...(kvHeads[at] === 0
      ? ([
          [`blk.${at}.attn_norm.weight`, [embedding]],
          [`blk.${at}.shortconv.conv.weight`, [3, embedding]],
          [`blk.${at}.shortconv.in_proj.weight`, [embedding, 3 * embedding]],
          [`blk.${at}.shortconv.out_proj.weight`, [embedding, embedding]],
        ] as Tensor[])
      : [
          ...attention(at, embedding, embedding, 8 * 64),
          [`blk.${at}.attn_k_norm.weight`, [64]] as Tensor,
          [`blk.${at}.attn_q_norm.weight`, [64]] as Tensor,
        ]),
    ...feedForward(at, embedding, 4608),
  ]);
  const metadata = {
    ...toMetadata({ layers, embedding, feedForward: 4608, heads, kvHeads: 0 }),
    'attention.head_count_kv': kvHeads,
    'shortconv.l_cache': 3,
  };
  const named = outer(embedding).map(
    ([name, shape]): Tensor => [name.replace('output_norm', 'token_embd_norm'), shape],
  );
  return { architecture: 'lfm2', metadata, tensors: [...named, ...tensors] };
}

function toMetadata({ layers, embedding, feedForward, heads, kvHeads }: DenseShape): Record<string, Value> {
  return {
    block_count: layers,
    embedding_length: embedding,
    feed_forward_length: feedForward,
    'attention.head_count': heads,
    'attention.head_count_kv': kvHeads,
    'attention.layer_norm_rms_epsilon': 1e-5,
  };
}

function outer(embedding: number): Tensor[] {
  return [
    ['token_embd.weight', [embedding, vocab]],
    ['output_norm.weight', [embedding]],
    ['output.weight', [embedding, vocab]],
  ];
}

function perLayer(layers: number, tensorsOf: (at: number) => readonly Tensor[]): Tensor[] {
  return Array.from({ length: layers }, (_, at) => tensorsOf(at)).flat();
}

function attention(at: number, embedding: number, query: number, key: number): Tensor[] {
  return [
    [`blk.${at}.attn_norm.weight`, [embedding]],
    [`blk.${at}.attn_q.weight`, [embedding, query]],
    [`blk.${at}.attn_k.weight`, [embedding, key]],
    [`blk.${at}.attn_v.weight`, [embedding, key]],
    [`blk.${at}.attn_output.weight`, [query, embedding]],
  ];
}

function feedForward(at: number, embedding: number, length: number): Tensor[] {
  return [
    [`blk.${at}.ffn_norm.weight`, [embedding]],
    [`blk.${at}.ffn_gate.weight`, [embedding, length]],
    [`blk.${at}.ffn_up.weight`, [embedding, length]],
    [`blk.${at}.ffn_down.weight`, [length, embedding]],
  ];
}

function experts3(at: number, embedding: number, length: number, experts: number): Tensor[] {
  return [
    [`blk.${at}.ffn_gate_inp.weight`, [embedding, experts]],
    [`blk.${at}.ffn_gate_exps.weight`, [embedding, length, experts]],
    [`blk.${at}.ffn_up_exps.weight`, [embedding, length, experts]],
    [`blk.${at}.ffn_down_exps.weight`, [length, embedding, experts]],
  ];
}

/** What turns a layer into one for prediction. */
function prediction3(at: number, embedding: number): Tensor[] {
  return [
    [`blk.${at}.nextn.eh_proj.weight`, [2 * embedding, embedding]],
    [`blk.${at}.nextn.enorm.weight`, [embedding]],
    [`blk.${at}.nextn.hnorm.weight`, [embedding]],
  ];
}
