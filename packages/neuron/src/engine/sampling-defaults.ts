import type { SamplingParams } from 'cortex-core/wire/inference';
import { isInRange } from './validate-request.ts';

/** Sampling settings that a model file recommends: those it names, where they are in range. */
export type SamplingDefaults = Partial<SamplingParams>;

/** GGUF key (llama_model_meta_key_str) -> our field. Mirostat is not offered. */
const fieldByKey = {
  'general.sampling.top_k': 'topK',
  'general.sampling.top_p': 'topP',
  'general.sampling.min_p': 'minP',
  'general.sampling.xtc_probability': 'xtcProbability',
  'general.sampling.xtc_threshold': 'xtcThreshold',
  'general.sampling.temp': 'temperature',
  'general.sampling.penalty_last_n': 'repeatLastN',
  'general.sampling.penalty_repeat': 'repeatPenalty',
} as const satisfies Record<string, keyof SamplingParams>;

export function readSamplingDefaults(metadata: Readonly<Record<string, string>>): SamplingDefaults {
  const found: Record<string, number> = {};
  for (const [key, field] of Object.entries(fieldByKey)) {
    const text = metadata[key];
    const value = text === undefined ? Number.NaN : Number(text);
    if (isInRange(field, value)) found[field] = value;
  }
  return found;
}
