/**
 * OpenAI chat and completions: the bytes that arrived go on, and the answer's bytes come back. Only `model`
 * is replaced, where the neuron knows it by another name, and `messages` where prefix hygiene changed them.
 */
import { AppError, toOpenAiEnvelope } from 'cortex-core/wire/errors';
import { encodeSse, sseKeepAlive } from 'cortex-core/wire/sse';
import { AnswerProbe } from './answer-probe.ts';
import type { Dialect, InferenceRequest } from './dialect.ts';
import { setTopLevelFields } from './json-splice.ts';
import { mayNeedHygiene, normalizeChatMessages } from './prefix-hygiene.ts';
import { promptKeyOf } from './prompt-key.ts';
import {
  estimateChatTokens,
  type JsonObject,
  modelOf,
  parseObject,
  positiveIntOrNull,
  unsaid,
} from './request-body.ts';
import { type OwnEvents, VerbatimStream } from './verbatim-stream.ts';
import { OpenAiGrammar } from './wire-grammar/openai-grammar.ts';

export const openAiChat: Dialect = {
  name: 'chat',
  wireGrammar: () => new OpenAiGrammar('chat'),
  parse: (body, options) => {
    const json = parseObject(body);
    const model = modelOf(json);
    if (!Array.isArray(json.messages)) {
      throw new AppError('invalid_request', '"messages" must be an array of messages', { param: 'messages' });
    }
    const estimate = estimateChatTokens(json.messages);
    const choices = choicesOf(json, 1);
    const isClean = options?.prefixHygiene !== true || !mayNeedHygiene(body);
    const messages = isClean ? null : normalizeChatMessages(json.messages);
    const size = {
      ...{ model, promptTokensEstimate: estimate, inputTokensEstimate: estimate, choices },
      maxTokens: positiveIntOrNull(json.max_completion_tokens) ?? positiveIntOrNull(json.max_tokens),
    };
    return {
      ...passThrough('/v1/chat/completions', body, json, size, messages === null ? {} : { messages }),
      isPrefixNormalized: messages !== null,
    };
  },
};

export const openAiCompletions: Dialect = {
  name: 'completions',
  wireGrammar: () => new OpenAiGrammar('completions'),
  parse: (body) => {
    const json = parseObject(body);
    const model = modelOf(json);
    const sizes = promptsOf(json.prompt).map(estimateTokens);
    return passThrough('/v1/completions', body, json, {
      model,
      promptTokensEstimate: sizes.reduce((most, size) => Math.max(most, size), 1),
      inputTokensEstimate: sizes.reduce((sum, size) => sum + size, 0),
      choices: choicesOf(json, sizes.length),
      maxTokens: positiveIntOrNull(json.max_tokens) ?? completionTokensDefault,
    });
  },
};

/** What a neuron makes of a raw completion that names no number, as OpenAI does. */
const completionTokensDefault = 16;
/** What a neuron takes; it refuses more, and no quota should be asked about those. */
const choicesMax = 128;

function choicesOf(json: JsonObject, prompts: number): number {
  return Math.min(choicesMax, (positiveIntOrNull(json.n) ?? 1) * Math.max(1, prompts));
}

/** One prompt as a text or as token ids, or a list of either. What is none of these the neuron refuses. */
function promptsOf(prompt: unknown): readonly unknown[] {
  return Array.isArray(prompt) && typeof prompt[0] !== 'number' ? prompt : [prompt];
}

/** Ids count themselves. */
function estimateTokens(prompt: unknown): number {
  if (Array.isArray(prompt)) return Math.max(1, prompt.length);
  return typeof prompt === 'string' ? Math.max(1, Math.ceil(prompt.length / 4)) : 1;
}

/** Nothing is generated: the quota reserves for the input alone. */
export const openAiEmbeddings: Dialect = {
  name: 'embeddings',
  parse: (body) => withoutOutput('/v1/embeddings', body),
};

export const rerank: Dialect = {
  name: 'rerank',
  parse: (body) => withoutOutput('/v1/rerank', body),
};

/** Inputs are read one by one, so that their sum says nothing about the context: no estimate refuses them. */
function withoutOutput(path: string, body: Uint8Array): InferenceRequest {
  const json = parseObject(body);
  const inputTokensEstimate = Math.max(1, Math.ceil(body.length / 4));
  const input = { model: modelOf(json), promptTokensEstimate: 1, inputTokensEstimate };
  return { ...passThrough(path, body, json, { ...input, choices: 0, maxTokens: null }), stream: false };
}

function passThrough(
  upstreamPath: string,
  body: Uint8Array,
  json: JsonObject,
  size: Pick<
    InferenceRequest,
    'model' | 'promptTokensEstimate' | 'inputTokensEstimate' | 'choices' | 'maxTokens'
  >,
  changes: JsonObject = {},
): InferenceRequest {
  const { model, choices } = size;
  // kept as long as the answer runs: bytes, and never the objects that were read from them
  const kept = setTopLevelFields(body, changes);
  const said = Object.fromEntries(
    Object.keys(json).map((key) => [key, (json[key] ?? null) !== null || null]),
  );
  return {
    ...size,
    stream: json.stream === true,
    promptKey: promptKeyOf({ ...json, ...changes }),
    upstreamPath,
    forwardsHeaders: true,
    toUpstream: ({ wireId, defaults, overrides }) =>
      setTopLevelFields(kept, {
        ...unsaid(said, defaults),
        ...overrides,
        ...(wireId === model ? {} : { model: wireId }),
      }),
    streamOut: () => new VerbatimStream(new AnswerProbe(choices), ownEvents),
    wholeOut: null,
  };
}

const ownEvents: OwnEvents = {
  error: (error) => encodeSse(toOpenAiEnvelope(error)),
  keepAlive: sseKeepAlive,
  last: encodeSse('[DONE]'),
};
