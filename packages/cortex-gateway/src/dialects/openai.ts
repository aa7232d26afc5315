/**
 * OpenAI chat and completions: the bytes that arrived go on, and the answer's bytes come back. Only `model`
 * is replaced, where the neuron knows it by another name.
 */
import { AppError, toOpenAiEnvelope } from 'cortex-core/wire/errors';
import { encodeSse, sseKeepAlive } from 'cortex-core/wire/sse';
import { AnswerProbe } from './answer-probe.ts';
import type { Dialect, InferenceRequest, StreamOut } from './dialect.ts';
import { spliceTopLevelString } from './json-splice.ts';
import {
  estimateChatTokens,
  type JsonObject,
  modelOf,
  parseObject,
  positiveIntOrNull,
} from './request-body.ts';

export const openAiChat: Dialect = {
  name: 'chat',
  parse: (body) => {
    const json = parseObject(body);
    const model = modelOf(json);
    if (!Array.isArray(json.messages)) {
      throw new AppError('invalid_request', '"messages" must be an array of messages', { param: 'messages' });
    }
    return passThrough('/v1/chat/completions', body, json, model, estimateChatTokens(json.messages));
  },
};

export const openAiCompletions: Dialect = {
  name: 'completions',
  parse: (body) => {
    const json = parseObject(body);
    const model = modelOf(json);
    const { prompt } = json;
    const chars = typeof prompt === 'string' ? prompt.length : body.length;
    return passThrough('/v1/completions', body, json, model, Math.max(1, Math.ceil(chars / 4)));
  },
};

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
  const request = passThrough(path, body, json, modelOf(json), 1);
  return { ...request, stream: false, maxTokens: Math.max(1, Math.ceil(body.length / 4)) };
}

function passThrough(
  upstreamPath: string,
  body: Uint8Array,
  json: JsonObject,
  model: string,
  promptTokensEstimate: number,
): InferenceRequest {
  return {
    model,
    stream: json.stream === true,
    promptTokensEstimate,
    maxTokens: positiveIntOrNull(json.max_completion_tokens) ?? positiveIntOrNull(json.max_tokens),
    upstreamPath,
    forwardsHeaders: true,
    toUpstream: (wireId) => (wireId === model ? body : spliceTopLevelString(body, 'model', wireId)),
    streamOut: () => new VerbatimStream(),
    wholeOut: null,
  };
}

const nothing = new Uint8Array(0);
/** An event longer than this is passed on in pieces rather than held. */
const heldBytesMax = 1024 * 1024;

/**
 * Passes whole events and holds the rest of the last one, so that an error event or a keep-alive never
 * lands in the middle of one. The bytes over all are those of upstream.
 */
class VerbatimStream implements StreamOut {
  readonly pingsDuringAnswer = false;
  readonly #probe = new AnswerProbe();
  #held: Buffer = Buffer.alloc(0);

  push(chunk: Uint8Array): Uint8Array {
    this.#probe.push(chunk, 0);
    const all = this.#held.length === 0 ? asBuffer(chunk) : Buffer.concat([this.#held, chunk]);
    const cut = all.length > heldBytesMax ? all.length : boundaryOf(all);
    this.#held = all.subarray(cut);
    return all.subarray(0, cut);
  }

  end(): Uint8Array {
    const rest = this.#held;
    this.#held = Buffer.alloc(0);
    if (this.#probe.finished) return rest;
    throw new AppError('upstream_connection_error', 'the answer broke off before it was complete; try again');
  }

  error(error: AppError): Uint8Array {
    this.#held = Buffer.alloc(0);
    return Buffer.from(encodeSse(toOpenAiEnvelope(error)));
  }

  keepAlive(): Uint8Array {
    return this.#held.length === 0 ? Buffer.from(sseKeepAlive) : nothing;
  }
}

/** Offset behind the last empty line. */
function boundaryOf(bytes: Buffer): number {
  const lf = bytes.lastIndexOf('\n\n');
  const crlf = bytes.lastIndexOf('\r\n\r\n');
  const cr = bytes.lastIndexOf('\r\r');
  return Math.max(lf === -1 ? 0 : lf + 2, crlf === -1 ? 0 : crlf + 4, cr === -1 ? 0 : cr + 2);
}

function asBuffer(chunk: Uint8Array): Buffer {
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}
