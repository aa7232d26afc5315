/** A query and a document as a reranker was trained to read them together. Pure. */
import type { ModelFacts } from 'cortex-core/wire/inference';

/** A pair as pieces: special tokens by their text, and the two texts in between. */
export type RerankPiece =
  | { readonly kind: 'special'; readonly text: string }
  | { readonly kind: 'text'; readonly text: string };

/**
 * The model's own `rerank` template with `{query}` and `{document}` where it has one (Qwen3); else
 * `bos query sep document sep` for BERT, and `bos query eos sep document eos` for the others, of which the
 * parts are left out that the model has not.
 */
export function toRerankPieces(facts: ModelFacts, query: string, document: string): RerankPiece[] {
  const template = facts.namedTemplates.rerank;
  if (template !== undefined) return fillTemplate(template, query, document);
  const { bosToken, eosToken, sepToken } = facts;
  const isBert = facts.metadata['tokenizer.ggml.model'] === 'bert';
  const end = isBert ? (sepToken ?? eosToken) : (eosToken ?? sepToken);
  const between = isBert || eosToken === null ? [end] : [end, sepToken];
  return [
    ...special([bosToken]),
    { kind: 'text', text: query },
    ...special(between),
    { kind: 'text', text: document },
    ...special([end]),
  ];
}

function special(texts: readonly (string | null)[]): RerankPiece[] {
  return texts.flatMap((text) => (text === null || text === '' ? [] : [{ kind: 'special' as const, text }]));
}

function fillTemplate(template: string, query: string, document: string): RerankPiece[] {
  return template.split(/(\{query\}|\{document\})/).flatMap((part): RerankPiece[] => {
    if (part === '') return [];
    if (part === '{query}') return [{ kind: 'text', text: query }];
    if (part === '{document}') return [{ kind: 'text', text: document }];
    return [{ kind: 'special', text: part }];
  });
}

/**
 * As a probability: heads with one output give a logit. Qwen3's graph ends in a softmax over yes and no
 * (llama.cpp, src/llama-graph.cpp, build_pooling), so its scores are probabilities already.
 */
export function toRelevance(score: number, facts: ModelFacts): number {
  return facts.architecture.startsWith('qwen3') ? score : 1 / (1 + Math.exp(-score));
}
