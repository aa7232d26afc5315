/** Anthropic's POST /v1/messages: a chat request for the neuron, and the answer's events as a message. */
import { toMessage } from './anthropic-answer.ts';
import { nativeMessages } from './anthropic-native.ts';
import { parseMessagesRequest } from './anthropic-request.ts';
import { AnthropicStream } from './anthropic-stream.ts';
import type { Dialect } from './dialect.ts';
import { readChatAnswer } from './inner/chat-answer-reader.ts';
import { toChatBody } from './inner/chat-body.ts';
import { estimateToolTokens, estimateTurnTokens } from './inner/estimate-tokens.ts';
import { normalizeTurns } from './prefix-hygiene.ts';
import { promptKeyOfTurns } from './prompt-key.ts';
import { AnthropicGrammar } from './wire-grammar/anthropic-grammar.ts';

export const anthropicMessages: Dialect = {
  name: 'messages',
  wireGrammar: () => new AnthropicGrammar(),
  fieldNames: [[/^response_format\.json_schema\b/, 'output_config.format']],
  parse: (body, options) => {
    const { inner: given, display } = parseMessagesRequest(body);
    const { turns, changed } =
      options?.prefixHygiene === true ? normalizeTurns(given.turns) : { turns: given.turns, changed: false };
    const inner = { ...given, turns };
    const { model } = inner;
    const promptTokensEstimate = estimateTurnTokens(inner.turns);
    const inputTokensEstimate = promptTokensEstimate + estimateToolTokens(inner.tools);
    return {
      model,
      stream: inner.stream,
      promptTokensEstimate,
      inputTokensEstimate,
      choices: 1,
      maxTokens: inner.maxTokens,
      promptKey: promptKeyOfTurns(turns, { metadata: { user_id: inner.sampling.user } }),
      upstreamPath: '/v1/chat/completions',
      isPrefixNormalized: changed,
      forwardsHeaders: false,
      toUpstream: (target) => Buffer.from(JSON.stringify(toChatBody(inner, target))),
      streamOut: (requestId) => new AnthropicStream({ model, display, inputTokensEstimate, requestId }),
      native: nativeMessages(body),
      wholeOut: (answer) => Buffer.from(JSON.stringify(toMessage(readChatAnswer(answer), model, display))),
    };
  },
};
