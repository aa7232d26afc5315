import { toMessage } from './anthropic-answer.ts';
import { parseMessagesRequest, toChatBody, toChatTurns } from './anthropic-request.ts';
import { AnthropicStream } from './anthropic-stream.ts';
import type { Dialect } from './dialect.ts';
import { promptKeyOf } from './prompt-key.ts';
import { estimateChatTokens, unsaid } from './request-body.ts';

export const anthropicMessages: Dialect = {
  name: 'messages',
  parse: (body) => {
    const request = parseMessagesRequest(body);
    const promptTokensEstimate = estimateChatTokens(toChatTurns(request));
    return {
      model: request.model,
      stream: request.stream === true,
      promptTokensEstimate,
      inputTokensEstimate: promptTokensEstimate,
      choices: 1,
      maxTokens: request.max_tokens,
      promptKey: promptKeyOf({ ...request }),
      upstreamPath: '/v1/chat/completions',
      forwardsHeaders: false,
      toUpstream: ({ wireId, defaults, overrides }) => {
        const chat = toChatBody(request, wireId);
        return Buffer.from(JSON.stringify({ ...chat, ...unsaid(chat, defaults), ...overrides }));
      },
      streamOut: (requestId) => new AnthropicStream(request.model, promptTokensEstimate, requestId),
      wholeOut: (answer) => Buffer.from(JSON.stringify(toMessage(answer, request.model))),
    };
  },
};
