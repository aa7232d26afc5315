/** Writes a Mamba model: one whose state cannot be cut, without a download. */
import {
  createRandom,
  floatEntry,
  numberEntry,
  TensorMap,
  textEntry,
  vocabSize,
  writeGguf,
} from './tiny-gguf.test.kit.ts';

const width = 32;
const inner = 2 * width;
const state = 16;
const rank = 4;
const kernel = 4;
const layers = 2;

export function writeTinyMamba(file: string, seed = 1): void {
  const random = createRandom(seed);
  const tensors = new TensorMap();
  const weight = (name: string, ...dims: number[]): void => tensors.add(name, dims, () => random() * 0.5);
  const norm = (name: string): void => tensors.add(name, [width], () => 1 + random() * 0.1);
  weight('token_embd.weight', width, vocabSize);
  norm('output_norm.weight');
  for (let layer = 0; layer < layers; layer++) {
    const at = `blk.${layer}`;
    norm(`${at}.attn_norm.weight`);
    weight(`${at}.ssm_in.weight`, width, 2 * inner);
    weight(`${at}.ssm_conv1d.weight`, kernel, inner);
    weight(`${at}.ssm_conv1d.bias`, inner);
    weight(`${at}.ssm_x.weight`, inner, rank + 2 * state);
    weight(`${at}.ssm_dt.weight`, rank, inner);
    weight(`${at}.ssm_dt.bias`, inner);
    tensors.add(`${at}.ssm_a`, [state, inner], () => -1 - Math.abs(random()));
    weight(`${at}.ssm_d`, inner);
    weight(`${at}.ssm_out.weight`, inner, width);
  }
  writeGguf(
    file,
    [
      textEntry('general.architecture', 'mamba'),
      numberEntry('mamba.context_length', 4096),
      numberEntry('mamba.embedding_length', width),
      numberEntry('mamba.feed_forward_length', 0),
      numberEntry('mamba.attention.head_count', 0),
      numberEntry('mamba.block_count', layers),
      numberEntry('mamba.ssm.conv_kernel', kernel),
      numberEntry('mamba.ssm.inner_size', inner),
      numberEntry('mamba.ssm.state_size', state),
      numberEntry('mamba.ssm.time_step_rank', rank),
      floatEntry('mamba.attention.layer_norm_rms_epsilon', 1e-5),
    ],
    tensors,
  );
}
