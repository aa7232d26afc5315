/** What each dialect's token count takes and gives. A count is parsed as the request that it is about. */
import { anthropicMessages } from './anthropic.ts';
import type { InferenceRequest, NativeForm, ParseOptions } from './dialect.ts';
import { openAiChat } from './openai.ts';
import { parseObject } from './request-body.ts';

type Counted = Pick<InferenceRequest, 'model' | 'toUpstream'>;
/** With the request as it came, for an upstream that speaks the dialect itself. */
type MessagesCounted = Counted & { readonly native: Pick<NativeForm, 'path' | 'body'> };

type Parse = (body: Uint8Array, options?: ParseOptions) => Counted;

const parseMessages: Parse = anthropicMessages.parse;
const parseChat: Parse = openAiChat.parse;

/** POST /v1/messages/count_tokens: a Messages body, in which `max_tokens` may be missing. */
export const messagesCount = {
  parse: (body: Uint8Array, options?: ParseOptions): MessagesCounted => {
    const { stream: _, ...json } = parseObject(body);
    const whole = { ...json, max_tokens: json.max_tokens ?? 1 };
    const { model, toUpstream } = parseMessages(Buffer.from(JSON.stringify(whole)), options);
    return { model, toUpstream, native: { path: '/v1/messages/count_tokens', body } };
  },
  toAnswer: (inputTokens: number) => ({ input_tokens: inputTokens }),
};

/** POST /v1/chat/completions/input_tokens, in the form of a neuron's own. */
export const chatCount = {
  parse: parseChat,
  toAnswer: (inputTokens: number) => ({
    object: 'chat.completion.input_tokens',
    input_tokens: inputTokens,
  }),
};
