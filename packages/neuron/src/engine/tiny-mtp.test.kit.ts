/**
 * Writes a model with multi-token-prediction layers whose guesses are right by construction, or wrong where a
 * test wants them wrong.
 *
 * Text: after token x comes `next(x)`, all words in one cycle, so that an answer repeats nothing and n-grams
 * find nothing. The hidden state of x is its own direction. The layers for prediction see the token x and the
 * hidden state of the one before it; their head asks both, and the hidden state counts more: with the state
 * of another row the guess is another one.
 *
 * A state is one of four quarters long: the token, the state that came with it, and, for heads that follow
 * one another, nothing more.
 */
import {
  createRandom,
  floatEntry,
  numberEntry,
  numbersEntry,
  TensorMap,
  textEntry,
  writeGguf,
} from './tiny-gguf.test.kit.ts';

export interface TinyMtp {
  /** Layers for prediction; with two, only the second one understands a state of the first. */
  readonly heads?: 1 | 2;
  /** `qwen35` and `qwen35moe`: one of the two other layers is recurrent; `step35`: a sliding window. */
  readonly architecture?: 'hy_v3' | 'step35' | 'qwen35' | 'qwen35moe';
  /** Every so many words the guess is wrong; 0 = never. */
  readonly wrongEvery?: number;
  readonly seed?: number;
}

const wordCount = 123;
const words = Array.from({ length: wordCount }, (_, at) => `w${at}`);
const specials = 5;
const vocabulary = specials + wordCount;
/** Floats of a hidden state. */
export const stateWidth = 2 * vocabulary;
const width = stateWidth;
const heads = 2;
const headLength = 16;
const inner = heads * headLength;
const kernel = 4;
const experts = 4;
const feedForward = 32;
const trunkLayers = 2;

/** The token that follows `token`: a walk over all words with a step that meets each once. */
export function next(token: number): number {
  return specials + ((Math.max(0, token - specials) + 47) % wordCount);
}

export function writeTinyMtp(
  file: string,
  { heads: own = 1, architecture: name = 'hy_v3', wrongEvery = 0, seed = 1 }: TinyMtp = {},
): void {
  const isHybrid = name === 'qwen35' || name === 'qwen35moe';
  const random = createRandom(seed);
  const tensors = new TensorMap();
  const matrix = (
    path: string,
    inputs: number,
    outputs: number,
    at: (i: number, o: number) => number,
    count = 1,
  ): void => {
    let index = 0;
    tensors.add(path, count > 1 ? [inputs, outputs, count] : [inputs, outputs], () => {
      const value = at(index % inputs, Math.floor(index / inputs));
      index++;
      return value;
    });
  };
  const norm = (name: string, length = width): void => tensors.add(name, [length], () => 1);
  const noise = (size: number) => (): number => random() * size;
  matrix('token_embd.weight', width, vocabulary, (i, o) => (i === o ? 1 : 0));
  norm('output_norm.weight');
  // The second best is near enough to be drawn at a temperature.
  const following = (from: number, to: number): number =>
    to === next(from) ? 1 : to === next(next(next(from))) ? 0.9 : 0;
  matrix('output.weight', width, vocabulary, (i, o) => (i < vocabulary ? following(i, o) : 0));
  for (let layer = 0; layer < trunkLayers + own; layer++) {
    const at = `blk.${layer}`;
    // What the cells hold shows a little in the logits.
    const said = layer < trunkLayers ? 0.0004 : 0;
    const isRecurrent = isHybrid && layer === 0;
    norm(`${at}.attn_norm.weight`);
    if (isRecurrent) {
      matrix(`${at}.attn_qkv.weight`, width, 3 * inner, noise(0.3));
      matrix(`${at}.attn_gate.weight`, width, inner, noise(0.3));
      matrix(`${at}.ssm_conv1d.weight`, kernel, 3 * inner, noise(1));
      tensors.add(`${at}.ssm_dt.bias`, [heads], noise(1));
      tensors.add(`${at}.ssm_a`, [heads], () => -0.1);
      matrix(`${at}.ssm_alpha.weight`, width, heads, noise(0.1));
      matrix(`${at}.ssm_beta.weight`, width, heads, noise(0.1));
      norm(`${at}.ssm_norm.weight`, headLength);
      matrix(`${at}.ssm_out.weight`, inner, width, noise(10 * said));
    } else {
      matrix(`${at}.attn_q.weight`, width, (isHybrid ? 2 : 1) * inner, noise(0.1));
      matrix(`${at}.attn_k.weight`, width, inner, noise(0.1));
      matrix(`${at}.attn_v.weight`, width, inner, noise(0.5));
      matrix(`${at}.attn_output.weight`, inner, width, noise(said));
      norm(`${at}.attn_q_norm.weight`, headLength);
      norm(`${at}.attn_k_norm.weight`, headLength);
    }
    norm(`${at}.${isHybrid ? 'post_attention_norm' : 'ffn_norm'}.weight`);
    const kinds = name === 'qwen35moe' ? ['_exps', '_shexp'] : [''];
    for (const kind of kinds) {
      const count = kind === '_exps' ? experts : 1;
      matrix(`${at}.ffn_gate${kind}.weight`, width, feedForward, noise(0.1), count);
      matrix(`${at}.ffn_up${kind}.weight`, width, feedForward, noise(0.1), count);
      matrix(`${at}.ffn_down${kind}.weight`, feedForward, width, noise(said), count);
    }
    if (kinds.length > 1) {
      matrix(`${at}.ffn_gate_inp.weight`, width, experts, noise(0.3));
      tensors.add(`${at}.ffn_gate_inp_shexp.weight`, [width], noise(0.1));
    }
    if (layer < trunkLayers) continue;
    const isLast = layer === trunkLayers + own - 1;
    norm(`${at}.nextn.enorm.weight`);
    norm(`${at}.nextn.hnorm.weight`);
    norm(`${at}.nextn.shared_head_norm.weight`);
    // Input: token, then hidden state. Output: the token's direction, and the state's in the second half.
    matrix(`${at}.nextn.eh_proj.weight`, 2 * width, width, (i, o) => {
      if (i < width) return i === o && i < vocabulary ? 1 : 0;
      const state = i - width;
      if (state < vocabulary) return o === vocabulary + state ? 1 : 0;
      // What a state of another head carries beside: to all but the last it is another word's.
      if (isLast && own > 1) return 0;
      return own > 1 && o === vocabulary + ((state + 7) % vocabulary) ? 5 : 0;
    });
    const isWrong = (token: number): boolean => wrongEvery > 0 && token % wrongEvery === 0;
    const guess = (token: number): number => (isWrong(token) ? next(next(token)) : next(token));
    matrix(`${at}.nextn.shared_head_head.weight`, width, vocabulary, (i, o) => {
      if (i < vocabulary) return o === guess(i) ? 1 : 0;
      return o === guess(next(i - vocabulary)) ? 1.5 : 0;
    });
  }
  const number = (key: string, value: number): Buffer => numberEntry(`${name}.${key}`, value);
  const recurrent = [
    number('full_attention_interval', 2),
    number('ssm.conv_kernel', kernel),
    number('ssm.inner_size', inner),
    number('ssm.state_size', headLength),
    number('ssm.time_step_rank', heads),
    number('ssm.group_count', heads),
    numbersEntry(`${name}.rope.dimension_sections`, [2, 2, 2, 2]),
  ];
  const windowed = [
    number('attention.sliding_window', 32),
    numbersEntry(`${name}.attention.sliding_window_pattern`, [
      1,
      ...Array.from({ length: own + 1 }, () => 0),
    ]),
  ];
  writeGguf(
    file,
    [
      textEntry('general.architecture', name),
      number('context_length', 4096),
      number('embedding_length', width),
      number('feed_forward_length', feedForward),
      number('expert_feed_forward_length', feedForward),
      number('block_count', trunkLayers + own),
      number('nextn_predict_layers', own),
      number('attention.head_count', heads),
      number('attention.head_count_kv', heads),
      number('attention.key_length', headLength),
      number('attention.value_length', headLength),
      number('rope.dimension_count', headLength),
      floatEntry(`${name}.attention.layer_norm_rms_epsilon`, 1e-5),
      ...(isHybrid ? recurrent : []),
      ...(name === 'qwen35moe' ? [number('expert_count', experts), number('expert_used_count', 2)] : []),
      ...(name === 'step35' ? windowed : []),
    ],
    tensors,
    words,
  );
}
