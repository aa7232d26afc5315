/**
 * A file's own layers for multi-token prediction, which engine/mtp-draft.ts drafts with. Pure.
 *
 * Counted are only those that the pinned libllama can compute apart from the model: its graph for them stops
 * the whole process where a tensor is missing, and of architectures that are not listed here it has none, or
 * one whose context would hold the keys of every layer of the model again (src/llama-model.cpp,
 * create_memory).
 */
import type { CheckedModel } from './preflight.ts';

interface PredictionRule {
  /** Layers that its graph knows how to compute. */
  readonly most: number;
  /** Tensors without which its graph stops, besides those of every architecture. */
  readonly needs: readonly string[];
}

/** src/models/<name>.cpp, graph_mtp. */
const rules: Readonly<Record<string, PredictionRule>> = {
  hy_v3: { most: 8, needs: [] },
  step35: { most: 8, needs: ['attn_q.weight'] },
  qwen35: { most: 1, needs: ['attn_q.weight'] },
  qwen35moe: { most: 1, needs: ['attn_q.weight', 'ffn_gate_inp.weight'] },
};
const neededOfAll = ['attn_norm.weight', 'nextn.eh_proj.weight', 'nextn.enorm.weight', 'nextn.hnorm.weight'];

/** How many of the file's layers, the last ones, are for prediction and can be used; 0 = none. */
export function countPredictionLayers({ header, tensors }: CheckedModel): number {
  const architecture = String(header.metadata.get('general.architecture') ?? '');
  const [declared, layers] = ['nextn_predict_layers', 'block_count'].map((key) =>
    Number(header.metadata.get(`${architecture}.${key}`) ?? 0),
  ) as [number, number];
  const rule = Object.hasOwn(rules, architecture) ? rules[architecture] : undefined;
  if (rule === undefined || !Number.isInteger(declared) || !Number.isInteger(layers)) return 0;
  if (declared < 1 || declared > rule.most || declared >= layers) return 0;
  const names = new Set(tensors.map(({ name }) => name));
  for (let layer = layers - declared; layer < layers; layer++) {
    const needed = [...neededOfAll, ...rule.needs];
    if (!needed.every((name) => names.has(`blk.${layer}.${name}`))) return 0;
  }
  return declared;
}
