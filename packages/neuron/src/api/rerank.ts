/** POST /v1/rerank: the shape that Jina's and Cohere's clients share. Scores between 0 and 1, best first. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { rerankRequestSchema } from 'cortex-core/wire/embeddings';
import { AppError } from 'cortex-core/wire/errors';
import { parseBody } from 'cortex-core/wire/openai';
import { toRelevance, toRerankPieces } from '../chat/rerank-input.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { ApiDeps } from './api-deps.ts';
import { checkInput, newIdentity, readOnModel, withPermit } from './generation.ts';
import { refuseOversized } from './prompt-size.ts';

/** Pairs that go to the device at once; between batches a client that left is noticed. */
const batchPairs = 64;

export async function serveRerank(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(rerankRequestSchema, await exchange.json());
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  if (model.facts.pooling !== 'rank') {
    throw new AppError('wrong_modality', `model "${model.id}" is no reranker; load one`, {
      param: 'model',
      extras: { model_id: model.id },
    });
  }
  const query = textOf(request.query);
  const documents = request.documents.map(textOf);
  const pairs = await readOnModel(deps, model, () => readPairs(query, documents, model, exchange.signal));
  await withPermit(deps, exchange, model, async (serving) => {
    const signal = AbortSignal.any([exchange.signal, serving.cut]);
    const results: { index: number; relevance_score: number; document?: { text: string } }[] = [];
    let promptTokens = 0;
    for (let at = 0; at < pairs.length; at += batchPairs) {
      const ranked = await serving.device.rank(serving.handle, pairs.slice(at, at + batchPairs), signal);
      promptTokens += ranked.promptTokens;
      for (const score of ranked.scores) {
        const index = results.length;
        const document =
          request.return_documents === true ? { document: { text: documents[index] ?? '' } } : {};
        results.push({ index, relevance_score: toRelevance(score, model.facts), ...document });
      }
    }
    results.sort((a, b) => b.relevance_score - a.relevance_score || a.index - b.index);
    exchange.sendJson(200, {
      id: newIdentity('rerank', request.model, deps).id,
      object: 'list',
      model: request.model,
      results: results.slice(0, request.top_n ?? results.length),
      usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
    });
  });
}

function textOf(given: string | { readonly text: string }): string {
  return typeof given === 'string' ? given : given.text;
}

/** The clients' texts are text: a marker inside them must not act as one. */
async function readPairs(
  query: string,
  documents: readonly string[],
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array[]> {
  const { device, handle, facts } = model;
  const known = new Map<string, Int32Array>();
  const pairs: Int32Array[] = [];
  for (const [at, document] of documents.entries()) {
    const tokens: number[] = [];
    for (const { kind, text } of toRerankPieces(facts, query, document)) {
      if (kind === 'text') refuseOversized(text, `documents.${at}`, facts);
      const key = `${kind} ${text}`;
      const options = { addSpecial: false, parseSpecial: kind === 'special' };
      const ids = known.get(key) ?? (await device.tokenize(handle, text, options, signal));
      if (text !== document) known.set(key, ids); // all pairs share these
      for (const id of ids) tokens.push(id);
    }
    checkInput(tokens.length, `documents.${at}`, model);
    pairs.push(Int32Array.from(tokens));
  }
  return pairs;
}
