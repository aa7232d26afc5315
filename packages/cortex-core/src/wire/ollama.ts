/**
 * Ollama's API, as its clients use it (docs/api.md of ollama). Unknown fields are ignored, null is absent.
 * Answers are plain objects: dialects/ollama makes those.
 */
import { z } from 'zod';

const number = z.number().nullish();
const whole = z.number().int().nullish();

/** What has no meaning here (num_ctx, num_gpu, mirostat, ...) is not read. */
const optionsSchema = z.looseObject({
  num_predict: whole,
  temperature: number,
  top_p: number,
  top_k: whole,
  min_p: number,
  typical_p: number,
  seed: whole,
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  repeat_penalty: number,
  repeat_last_n: whole,
  presence_penalty: number,
  frequency_penalty: number,
});
export type OllamaOptions = z.output<typeof optionsSchema>;

const callSchema = z.looseObject({
  id: z.string().nullish(),
  function: z.looseObject({
    name: z.string().min(1),
    arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
  }),
});

const messageSchema = z.looseObject({
  role: z.enum(['system', 'user', 'assistant', 'tool']),
  content: z.string().nullish(),
  thinking: z.string().nullish(),
  /** Base64, without a type. */
  images: z.array(z.string()).nullish(),
  tool_calls: z.array(callSchema).nullish(),
  tool_call_id: z.string().nullish(),
  tool_name: z.string().nullish(),
  name: z.string().nullish(),
});
export type OllamaMessage = z.output<typeof messageSchema>;

const toolSchema = z.looseObject({
  type: z.literal('function').nullish(),
  function: z.looseObject({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
  }),
});

const common = {
  model: z.string().min(1).max(512),
  stream: z.boolean().nullish(),
  format: z.union([z.literal(''), z.literal('json'), z.record(z.string(), z.unknown())]).nullish(),
  think: z.union([z.boolean(), z.enum(['low', 'medium', 'high', 'max'])]).nullish(),
  options: optionsSchema.nullish(),
  /** Seconds, or a duration as `5m`; -1 = for ever. */
  keep_alive: z.union([z.number(), z.string()]).nullish(),
};

export const ollamaChatSchema = z.looseObject({
  ...common,
  messages: z.array(messageSchema).nullish(),
  tools: z.array(toolSchema).max(1024).nullish(),
});
export type OllamaChat = z.output<typeof ollamaChatSchema>;

export const ollamaGenerateSchema = z.looseObject({
  ...common,
  prompt: z.string().nullish(),
  suffix: z.string().nullish(),
  system: z.string().nullish(),
  template: z.string().nullish(),
  raw: z.boolean().nullish(),
  images: z.array(z.string()).nullish(),
  context: z.array(z.number()).nullish(),
});
export type OllamaGenerate = z.output<typeof ollamaGenerateSchema>;

export const ollamaEmbedSchema = z.looseObject({
  model: z.string().min(1).max(512),
  input: z.union([z.string(), z.array(z.string())]).nullish(),
  dimensions: z.number().int().min(1).nullish(),
  keep_alive: common.keep_alive,
});

/** The older form: one text. */
export const ollamaEmbeddingsSchema = z.looseObject({
  model: z.string().min(1).max(512),
  prompt: z.string().nullish(),
  keep_alive: common.keep_alive,
});

export const ollamaShowSchema = z.looseObject({
  model: z.string().min(1).max(512),
});

export type OllamaDoneReason = 'stop' | 'length' | 'load' | 'unload';
