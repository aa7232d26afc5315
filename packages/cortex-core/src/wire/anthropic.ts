/** Anthropic's Messages API, as far as cortex has it. Unknown fields are ignored, null is absent. */
import { z } from 'zod';

const contentBlock = z.looseObject({ type: z.string() });
export type AnthropicBlock = z.output<typeof contentBlock>;

export const messagesRequestSchema = z.looseObject({
  model: z.string().min(1).max(512),
  max_tokens: z.number().int().min(1),
  messages: z
    .array(
      z.looseObject({
        role: z.enum(['user', 'assistant', 'system']),
        content: z.union([z.string(), z.array(contentBlock)]),
      }),
    )
    .min(1),
  system: z.union([z.string(), z.array(contentBlock)]).nullish(),
  stream: z.boolean().nullish(),
  stop_sequences: z.array(z.string()).nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  top_k: z.number().int().nullish(),
  tools: z.array(z.unknown()).nullish(),
});
export type MessagesRequest = z.output<typeof messagesRequestSchema>;

export type AnthropicStopReason =
  | 'end_turn'
  | 'max_tokens'
  | 'stop_sequence'
  | 'tool_use'
  | 'refusal'
  | 'model_context_window_exceeded';

export interface AnthropicUsage {
  /** Prompt tokens that were not in the cache. */
  readonly input_tokens: number;
  readonly cache_creation_input_tokens: number;
  readonly cache_read_input_tokens: number;
  readonly output_tokens: number;
}

export interface AnthropicMessage {
  readonly id: string;
  readonly type: 'message';
  readonly role: 'assistant';
  readonly model: string;
  readonly content: readonly { readonly type: 'text'; readonly text: string }[];
  readonly stop_reason: AnthropicStopReason | null;
  readonly stop_sequence: string | null;
  readonly usage: AnthropicUsage;
}
