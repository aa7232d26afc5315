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
  TensorMap,
  textEntry,
  writeGguf,
} from './tiny-gguf.test.kit.ts';

export interface TinyMtp {
  /** Layers for prediction; with two, only the second one understands a state of the first. */
  readonly heads?: 1 | 2;
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
const feedForward = 32;
const trunkLayers = 2;

/** The token that follows `token`: a walk over all words with a step that meets each once. */
export function next(token: number): number {
  return specials + ((Math.max(0, token - specials) + 47) % wordCount);
}

export function writeTinyMtp(file: string, { heads: own = 1, wrongEvery = 0, seed = 1 }: TinyMtp = {}): void {
  const random = createRandom(seed);
  const tensors = new TensorMap();
  const matrix = (
    name: string,
    inputs: number,
    outputs: number,
    at: (i: number, o: number) => number,
  ): void => {
    let index = 0;
    tensors.add(name, [inputs, outputs], () => {
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
    // Attention says a little, so that what the cells hold shows in the logits.
    const said = layer < trunkLayers ? 0.0004 : 0;
    norm(`${at}.attn_norm.weight`);
    matrix(`${at}.attn_q.weight`, width, heads * headLength, noise(0.1));
    matrix(`${at}.attn_k.weight`, width, heads * headLength, noise(0.1));
    matrix(`${at}.attn_v.weight`, width, heads * headLength, noise(0.5));
    matrix(`${at}.attn_output.weight`, heads * headLength, width, noise(said));
    norm(`${at}.attn_q_norm.weight`, headLength);
    norm(`${at}.attn_k_norm.weight`, headLength);
    norm(`${at}.ffn_norm.weight`);
    matrix(`${at}.ffn_gate.weight`, width, feedForward, noise(0.1));
    matrix(`${at}.ffn_up.weight`, width, feedForward, noise(0.1));
    matrix(`${at}.ffn_down.weight`, feedForward, width, noise(said));
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
  const name = 'hy_v3';
  writeGguf(
    file,
    [
      textEntry('general.architecture', name),
      numberEntry(`${name}.context_length`, 4096),
      numberEntry(`${name}.embedding_length`, width),
      numberEntry(`${name}.feed_forward_length`, feedForward),
      numberEntry(`${name}.expert_feed_forward_length`, feedForward),
      numberEntry(`${name}.block_count`, trunkLayers + own),
      numberEntry(`${name}.nextn_predict_layers`, own),
      numberEntry(`${name}.attention.head_count`, heads),
      numberEntry(`${name}.attention.head_count_kv`, heads),
      numberEntry(`${name}.attention.key_length`, headLength),
      numberEntry(`${name}.attention.value_length`, headLength),
      numberEntry(`${name}.rope.dimension_count`, headLength),
      floatEntry(`${name}.attention.layer_norm_rms_epsilon`, 1e-5),
    ],
    tensors,
    words,
  );
}
