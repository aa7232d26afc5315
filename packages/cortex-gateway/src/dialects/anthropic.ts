/** Anthropic's POST /v1/messages: a chat request for the neuron, and the answer's events as a message. */
import { toMessage } from './anthropic-answer.ts';
import { nativeMessages } from './anthropic-native.ts';
import { type MessagesRequest, parseMessagesRequest } from './anthropic-request.ts';
import { AnthropicStream } from './anthropic-stream.ts';
import type { Dialect, ParseOptions } from './dialect.ts';
import { readChatAnswer } from './inner/chat-answer-reader.ts';
import { toChatBody } from './inner/chat-body.ts';
import { estimateToolTokens, estimateTurnTokens } from './inner/estimate-tokens.ts';
import type { InnerRequest } from './inner/inner-request.ts';
import { normalizeTurns } from './prefix-hygiene.ts';
import { promptKeyOfTurns } from './prompt-key.ts';
import { AnthropicGrammar } from './wire-grammar/anthropic-grammar.ts';

export const anthropicMessages: Dialect = {
  name: 'messages',
  wireGrammar: () => new AnthropicGrammar(),
  fieldNames: [
    [/^response_format\.json_schema\b/, 'output_config.format'],
    [/^stop\b/, 'stop_sequences'],
  ],
  parse: (body, options) => {
    const { inner, display, changed } = read(body, options);
    const { model } = inner;
    const promptTokensEstimate = estimateTurnTokens(inner.turns);
    const inputTokensEstimate = promptTokensEstimate + estimateToolTokens(inner.tools);
    // while an answer runs its request is kept as bytes: who sends it once more reads them once more
    let unsent: InnerRequest | null = inner;
    return {
      model,
      stream: inner.stream,
      promptTokensEstimate,
      inputTokensEstimate,
      choices: 1,
      maxTokens: inner.maxTokens,
      promptKey: promptKeyOfTurns(inner.turns, { metadata: { user_id: inner.sampling.user } }),
      upstreamPath: '/v1/chat/completions',
      isPrefixNormalized: changed,
      forwardsHeaders: false,
      toUpstream: (target) => {
        const request = unsent ?? read(body, options).inner;
        unsent = null;
        return Buffer.from(JSON.stringify(toChatBody(request, target)));
      },
      streamOut: (requestId) => new AnthropicStream({ model, display, inputTokensEstimate, requestId }),
      native: nativeMessages(body),
      wholeOut: (answer) => Buffer.from(JSON.stringify(toMessage(readChatAnswer(answer), model, display))),
    };
  },
};

function read(
  body: Uint8Array,
  options: ParseOptions | undefined,
): MessagesRequest & { readonly changed: boolean } {
  const { inner, display } = parseMessagesRequest(body);
  if (options?.prefixHygiene !== true) return { inner, display, changed: false };
  const { turns, changed } = normalizeTurns(inner.turns);
  return { inner: { ...inner, turns }, display, changed };
}
