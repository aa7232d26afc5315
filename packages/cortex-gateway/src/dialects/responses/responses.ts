/** OpenAI's POST /v1/responses: a chat request for the neuron, the answer as a response, and both stored. */
import type { ResponseObject } from 'cortex-core/wire/responses';
import type { Dialect } from '../dialect.ts';
import { readChatAnswer } from '../inner/chat-answer-reader.ts';
import { toChatBody } from '../inner/chat-body.ts';
import { AnswerResponse, type AnswerResponseOptions } from './answer-response.ts';
import { type RequestDeps, readResponsesRequest } from './request.ts';
import { ResponsesStream } from './responses-stream.ts';
import { charsOfTools, charsOfTurn } from './sizes.ts';

const charsPerToken = 4;

export interface ResponsesDeps extends RequestDeps {
  /** Seconds since the epoch. */
  readonly nowSecs: () => number;
}

/** For one caller: `deps.store` holds what is theirs. */
export function responsesDialect(deps: ResponsesDeps): Dialect {
  return {
    name: 'responses',
    parse: (body) => {
      const request = readResponsesRequest(body, deps);
      const { inner, echo, input } = request;
      const promptChars = inner.turns.reduce((sum, turn) => sum + charsOfTurn(turn), 0);
      const promptTokensEstimate = Math.max(1, Math.ceil(promptChars / charsPerToken));
      const inputTokensEstimate = promptTokensEstimate + Math.ceil(charsOfTools(inner.tools) / charsPerToken);
      const keep = (response: ResponseObject): void => {
        if (echo.store) deps.store.put({ response, input });
      };
      const options = (): AnswerResponseOptions => ({
        ...{ tools: request.tools, summarises: request.summarises },
        ...{ carriesReasoning: request.carriesReasoning, newId: deps.newId, nowSecs: deps.nowSecs },
        head: { id: deps.newId('resp'), createdAt: deps.nowSecs(), echo },
        inputTokensEstimate,
      });
      return {
        ...{ model: inner.model, stream: inner.stream, promptTokensEstimate, inputTokensEstimate },
        choices: 1,
        maxTokens: inner.maxTokens,
        upstreamPath: '/v1/chat/completions',
        forwardsHeaders: false,
        toUpstream: (target) => Buffer.from(JSON.stringify(toChatBody(inner, target))),
        streamOut: () => new ResponsesStream(options(), keep),
        wholeOut: (answer) => {
          const whole = new AnswerResponse(options(), () => {});
          for (const event of readChatAnswer(answer)) whole.take(event);
          const response = whole.end();
          keep(response);
          return Buffer.from(JSON.stringify(response));
        },
      };
    },
  };
}
