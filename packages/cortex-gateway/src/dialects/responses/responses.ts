/** OpenAI's Responses API: a chat request for the neuron, the answer as a response, and both stored. */
import type { ResponseObject } from 'cortex-core/wire/responses';
import type { Dialect, InferenceRequest, ParseOptions } from '../dialect.ts';
import { readChatAnswer } from '../inner/chat-answer-reader.ts';
import { toChatBody } from '../inner/chat-body.ts';
import { estimateToolTokens, estimateTurnTokens } from '../inner/estimate-tokens.ts';
import type { InnerRequest } from '../inner/inner-request.ts';
import { normalizeTurns } from '../prefix-hygiene.ts';
import { promptKeyOfTurns } from '../prompt-key.ts';
import { type JsonObject, parseObject } from '../request-body.ts';
import { ResponsesGrammar } from '../wire-grammar/responses-grammar.ts';
import { AnswerResponse, type AnswerResponseOptions } from './answer-response.ts';
import { compactionAsk, toCompacted } from './compaction.ts';
import { type RequestDeps, type ResponsesRequest, readResponsesRequest } from './request.ts';
import { queuedResponse } from './response-object.ts';
import { ResponsesStream, type ResponsesStreamOptions } from './responses-stream.ts';

export interface ResponsesDeps extends RequestDeps {
  /** Seconds since the epoch. */
  readonly nowSecs: () => number;
}

export const responsesWire: Pick<Dialect, 'name' | 'wireGrammar'> = {
  name: 'responses',
  wireGrammar: () => new ResponsesGrammar(),
};

export interface ReadResponse {
  readonly request: InferenceRequest;
  /** Null = its client waits for it. */
  readonly background: BackgroundResponse | null;
}

/** A response that is made without its client; its request is a stream, whatever the client reads. */
export interface BackgroundResponse {
  /** The client reads its events. */
  readonly isStreamed: boolean;
  readonly input: readonly JsonObject[];
  readonly queued: ResponseObject;
  readonly toStream: (events: Pick<ResponsesStreamOptions, 'onStart' | 'onEnd'>) => ResponsesStream;
}

/** POST /v1/responses for one caller: `deps.store` holds what is theirs. */
export function readResponse(body: Uint8Array, deps: ResponsesDeps, options?: ParseOptions): ReadResponse {
  const request = readResponsesRequest(parseObject(body), deps);
  const { inner, echo, input } = request;
  const hygiene = options?.prefixHygiene === true;
  if (!echo.background) return { request: toInference(request, inner, deps, hygiene), background: null };
  const inference = toInference(request, { ...inner, stream: true }, deps, hygiene);
  const answer = toAnswerOptions(request, deps, inference.inputTokensEstimate);
  return {
    request: inference,
    background: {
      isStreamed: inner.stream,
      input,
      queued: queuedResponse(answer.head),
      toStream: (events) => new ResponsesStream({ ...answer, ...events, isQueued: true }),
    },
  };
}

/** POST /v1/responses/compact: never streamed, never stored. */
export function compactionDialect(deps: ResponsesDeps): Dialect {
  return {
    name: 'responses',
    parse: (body, options) => {
      const json = { ...parseObject(body), stream: false, store: false, background: false };
      const request = readResponsesRequest(json, deps);
      const turns = [...request.inner.turns, compactionAsk];
      const inner: InnerRequest = { ...request.inner, turns, tools: [], toolChoice: null, format: null };
      return {
        ...toInference(request, inner, deps, options?.prefixHygiene === true),
        wholeOut: (answer) => Buffer.from(JSON.stringify(toCompacted(readChatAnswer(answer), deps))),
      };
    },
  };
}

/** POST /v1/responses/input_tokens: what the request would be, to be counted where the model is. */
export function responsesCount(deps: ResponsesDeps): {
  readonly parse: (
    body: Uint8Array,
    options?: ParseOptions,
  ) => Pick<InferenceRequest, 'model' | 'toUpstream'>;
  readonly toAnswer: (inputTokens: number) => unknown;
} {
  return {
    parse: (body, options) => {
      const json = { ...parseObject(body), stream: false };
      const request = readResponsesRequest(json, deps);
      return toInference(request, request.inner, deps, options?.prefixHygiene === true);
    },
    toAnswer: (inputTokens) => ({ object: 'response.input_tokens', input_tokens: inputTokens }),
  };
}

/** `given`: what the model is asked, which may be another thing than the request itself. */
function toInference(
  request: ResponsesRequest,
  given: InnerRequest,
  deps: ResponsesDeps,
  hygiene: boolean,
): InferenceRequest {
  const { echo, input } = request;
  const { turns, changed } = hygiene ? normalizeTurns(given.turns) : { turns: given.turns, changed: false };
  const inner = { ...given, turns };
  const promptTokensEstimate = estimateTurnTokens(turns);
  const inputTokensEstimate = promptTokensEstimate + estimateToolTokens(inner.tools);
  const keep = (response: ResponseObject): void => {
    if (echo.store) deps.store.put({ response, input });
  };
  const answerOptions = () => toAnswerOptions(request, deps, inputTokensEstimate);
  return {
    ...{ model: inner.model, stream: inner.stream, promptTokensEstimate, inputTokensEstimate },
    choices: 1,
    maxTokens: inner.maxTokens,
    promptKey: promptKeyOfTurns(turns, { prompt_cache_key: echo.prompt_cache_key }),
    upstreamPath: '/v1/chat/completions',
    isPrefixNormalized: changed,
    forwardsHeaders: false,
    toUpstream: (target) => Buffer.from(JSON.stringify(toChatBody(inner, target))),
    streamOut: () => new ResponsesStream({ ...answerOptions(), onEnd: keep }),
    wholeOut: (answer) => {
      const whole = new AnswerResponse(answerOptions(), () => {});
      for (const event of readChatAnswer(answer)) whole.take(event);
      const response = whole.end();
      keep(response);
      return Buffer.from(JSON.stringify(response));
    },
  };
}

/** Of one answer: its id is new. */
function toAnswerOptions(
  request: ResponsesRequest,
  deps: ResponsesDeps,
  inputTokensEstimate: number,
): AnswerResponseOptions {
  const { tools, summarises, carriesReasoning, echo } = request;
  const { newId, nowSecs } = deps;
  const head = { id: newId('resp'), createdAt: nowSecs(), echo };
  return { tools, summarises, carriesReasoning, newId, nowSecs, head, inputTokensEstimate };
}
