/**
 * Ollama's chat, generate and embed as dialects. `resolve` gives the fleet's name of a model for Ollama's
 * (`cortex-tiny:latest`); answers carry the client's.
 */
import { AppError } from 'cortex-core/wire/errors';
import {
  type OllamaGenerate,
  ollamaChatSchema,
  ollamaEmbeddingsSchema,
  ollamaEmbedSchema,
  ollamaGenerateSchema,
} from 'cortex-core/wire/ollama';
import type { Dialect, InferenceRequest } from '../dialect.ts';
import { readChatAnswer } from '../inner/chat-answer-reader.ts';
import { toChatBody } from '../inner/chat-body.ts';
import { estimateTextTokens, estimateToolTokens, estimateTurnTokens } from '../inner/estimate-tokens.ts';
import type { InnerRequest } from '../inner/inner-request.ts';
import { promptKeyOf, promptKeyOfTurns } from '../prompt-key.ts';
import { type JsonObject, unsaid } from '../request-body.ts';
import { type OllamaShape, OllamaStream, toWholeAnswer } from './ollama-answer.ts';
import { fieldNames, parseOllama, toMaxTokens, toSampling, toStops } from './ollama-body.ts';
import { OllamaGrammar } from './ollama-grammar.ts';
import { chatToInner, generateToInner } from './ollama-request.ts';

export type ResolveName = (name: string) => string;

export function ollamaChat(resolve: ResolveName): Dialect {
  return {
    name: 'ollama',
    fieldNames,
    wireGrammar: () => new OllamaGrammar('chat'),
    parse: (body) => {
      const request = parseOllama(ollamaChatSchema, body);
      return fromInner(chatToInner(request, resolve(request.model)), request.model, 'chat');
    },
  };
}

export function ollamaGenerate(resolve: ResolveName): Dialect {
  return {
    name: 'ollama',
    fieldNames,
    wireGrammar: () => new OllamaGrammar('generate'),
    parse: (body) => {
      const request = parseOllama(ollamaGenerateSchema, body);
      refuseUnread(request);
      const model = resolve(request.model);
      if (request.raw || request.suffix) return fromText(request, model);
      return fromInner(generateToInner(request, model), request.model, 'generate');
    },
  };
}

export function ollamaEmbed(resolve: ResolveName): Dialect {
  return {
    name: 'ollama',
    parse: (body) => {
      const { model, input, dimensions } = parseOllama(ollamaEmbedSchema, body);
      const more = dimensions ? { dimensions } : {};
      return toEmbedding(resolve(model), { input: input ?? '', ...more }, (vectors, tokens) => ({
        model,
        embeddings: vectors,
        prompt_eval_count: tokens,
      }));
    },
  };
}

export function ollamaEmbeddings(resolve: ResolveName): Dialect {
  return {
    name: 'ollama',
    parse: (body) => {
      const { model, prompt } = parseOllama(ollamaEmbeddingsSchema, body);
      return toEmbedding(resolve(model), { input: prompt ?? '' }, ([vector]) => ({ embedding: vector }));
    },
  };
}

function fromInner(inner: InnerRequest, spelled: string, shape: OllamaShape): InferenceRequest {
  const promptTokensEstimate = estimateTurnTokens(inner.turns);
  return {
    model: inner.model,
    stream: inner.stream,
    promptTokensEstimate,
    inputTokensEstimate: promptTokensEstimate + estimateToolTokens(inner.tools),
    choices: 1,
    maxTokens: inner.maxTokens,
    promptKey: promptKeyOfTurns(inner.turns),
    upstreamPath: '/v1/chat/completions',
    forwardsHeaders: false,
    toUpstream: (target) => Buffer.from(JSON.stringify(toChatBody(inner, target))),
    streamOut: () => new OllamaStream(spelled, shape),
    wholeOut: (answer) => toWhole(spelled, shape, answer),
  };
}

/** A raw prompt, or one with a text behind the gap: completions without a template. */
function fromText(request: OllamaGenerate, model: string): InferenceRequest {
  const { prompt, suffix, options, model: spelled } = request;
  const stream = request.stream ?? true;
  const maxTokens = toMaxTokens(options);
  const stops = toStops(options);
  const estimate = estimateTextTokens([prompt ?? '', suffix ?? '']);
  const body: JsonObject = {
    prompt: prompt ?? '',
    ...(suffix ? { suffix } : {}),
    ...(stream ? { stream, stream_options: { include_usage: true } } : {}),
    // a completion that names no number has 16, Ollama's has none
    max_tokens: maxTokens ?? rawTokensMax,
    ...(stops.length === 0 ? {} : { stop: stops }),
    ...toSampling(options),
  };
  return {
    ...{
      model,
      stream,
      promptTokensEstimate: estimate,
      inputTokensEstimate: estimate,
      choices: 1,
      maxTokens,
      promptKey: promptKeyOf({ prompt }),
    },
    upstreamPath: '/v1/completions',
    forwardsHeaders: false,
    toUpstream: ({ wireId, defaults, overrides }) =>
      Buffer.from(JSON.stringify({ model: wireId, ...body, ...unsaid(body, defaults), ...overrides })),
    streamOut: () => new OllamaStream(spelled, 'generate'),
    wholeOut: (answer) => toWhole(spelled, 'generate', answer),
  };
}

const rawTokensMax = 4096;

function toWhole(model: string, shape: OllamaShape, answer: Uint8Array): Uint8Array {
  const data = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength).toString('utf8');
  return Buffer.from(JSON.stringify(toWholeAnswer(model, shape, data, readChatAnswer(answer))));
}

function toEmbedding(
  model: string,
  fields: JsonObject,
  toAnswer: (vectors: readonly (readonly number[])[], promptTokens: number) => JsonObject,
): InferenceRequest {
  const inputs = [fields.input].flat() as readonly string[];
  const body = { ...fields, encoding_format: 'float' };
  return {
    ...{ model, stream: false, promptTokensEstimate: 1, choices: 0, maxTokens: null },
    inputTokensEstimate: estimateTextTokens(inputs),
    upstreamPath: '/v1/embeddings',
    forwardsHeaders: false,
    toUpstream: ({ wireId, defaults, overrides }) =>
      Buffer.from(JSON.stringify({ model: wireId, ...body, ...unsaid(body, defaults), ...overrides })),
    streamOut: () => new OllamaStream(model, 'generate'),
    wholeOut: (answer) => {
      const { vectors, tokens } = readVectors(answer);
      return Buffer.from(JSON.stringify(toAnswer(vectors, tokens)));
    },
  };
}

function readVectors(answer: Uint8Array): {
  readonly vectors: readonly (readonly number[])[];
  readonly tokens: number;
} {
  try {
    const json = JSON.parse(Buffer.from(answer).toString('utf8')) as {
      readonly data: readonly { readonly embedding: readonly number[] }[];
      readonly usage?: { readonly prompt_tokens?: number };
    };
    return {
      vectors: json.data.map(({ embedding }) => embedding),
      tokens: json.usage?.prompt_tokens ?? 0,
    };
  } catch (cause) {
    throw new AppError('upstream_malformed_response', 'the neuron sent no embeddings; try again', { cause });
  }
}

/** What would change the answer and is not read here. */
function refuseUnread({ template, context, suffix, raw, images, format }: OllamaGenerate): void {
  if (template)
    throw unsupported('template', "the model's own is used; or send the whole text with raw: true");
  if (context && context.length > 0) {
    throw unsupported('context', 'tokens of an earlier answer are not kept; send the messages to /api/chat');
  }
  if (!raw && !suffix) return;
  if (images && images.length > 0) throw unsupported('images', 'cannot go into a raw prompt; use /api/chat');
  if (format) throw unsupported('format', 'does not go with raw or suffix; leave one out');
}

function unsupported(param: string, why: string): AppError {
  return new AppError('unsupported_parameter', `${param}: ${why}`, { param });
}
