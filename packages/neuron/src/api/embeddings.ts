/**
 * POST /v1/embeddings. Vectors are pooled as the model's file says and come back with length 1, because that
 * is what clients of this endpoint compare by dot product.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { embeddingsRequestSchema } from 'cortex-core/wire/embeddings';
import { AppError } from 'cortex-core/wire/errors';
import { parseBody } from 'cortex-core/wire/openai';
import { toEmbeddingPieces, toUnitVector } from '../chat/embedding-answer.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { ApiDeps } from './api-deps.ts';
import { checkInput, readOnModel, withPermit } from './generation.ts';
import { checkTokens, refuseOversized } from './prompt-size.ts';
import { sendPieces } from './send-pieces.ts';

/** Inputs that go to the device at once; between batches a client that left is noticed. */
const batchInputs = 64;

export async function serveEmbeddings(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(embeddingsRequestSchema, await exchange.json());
  const format = request.encoding_format ?? 'float';
  if (format !== 'float' && format !== 'base64') {
    throw invalid('encoding_format', `is "${format.slice(0, 40)}"; use float or base64`);
  }
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  const { facts } = model;
  if (facts.pooling === 'none' || facts.pooling === 'rank') {
    const suggestion = facts.pooling === 'rank' ? 'use /v1/rerank' : 'load an embedding model';
    throw new AppError('wrong_modality', `model "${model.id}" makes no embeddings; ${suggestion}`, {
      param: 'model',
      extras: { model_id: model.id, suggestion },
    });
  }
  const dimensions = request.dimensions ?? facts.embeddingLength;
  if (dimensions > facts.embeddingLength) {
    throw invalid('dimensions', `is ${dimensions}; model "${model.id}" has ${facts.embeddingLength}`);
  }
  const inputs = await readOnModel(deps, model, () => readInputs(request.input, model, exchange.signal));
  const vectors: Float32Array[] = [];
  let promptTokens = 0;
  await withPermit(deps, exchange, model, async (serving) => {
    const signal = AbortSignal.any([exchange.signal, serving.cut]);
    for (let at = 0; at < inputs.length; at += batchInputs) {
      const batch = inputs.slice(at, at + batchInputs);
      const result = await serving.device.embed(serving.handle, batch, signal);
      promptTokens += result.promptTokens;
      for (const vector of result.vectors) vectors.push(toUnitVector(vector, dimensions));
    }
  });
  // a slow reader holds no permit
  const answer = { vectors, format, model: request.model, promptTokens } as const;
  await sendPieces(exchange, toEmbeddingPieces(answer), deps.clock);
}

async function readInputs(
  input: string | readonly unknown[],
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array[]> {
  const isOne = typeof input === 'string' || typeof input[0] === 'number';
  const all = (isOne ? [input] : input) as readonly (string | readonly number[])[];
  const read: Int32Array[] = [];
  for (const [at, each] of all.entries()) {
    const param = isOne ? 'input' : `input.${at}`;
    if (each.length === 0) throw invalid(param, 'is empty; send text or tokens');
    if (typeof each === 'string') refuseOversized(each, param, model.facts);
    const tokens =
      typeof each === 'string'
        ? await model.device.tokenize(model.handle, each, { addSpecial: true, parseSpecial: false }, signal)
        : checkTokens(each, param, model.facts);
    checkInput(tokens.length, param, model);
    read.push(tokens);
  }
  return read;
}

function invalid(param: string, why: string): AppError {
  return new AppError('invalid_request', `"${param}" ${why}`, { param });
}
