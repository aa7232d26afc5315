/**
 * The OpenAI chat and completions formats as clients really send them: null means absent for every optional
 * field, unknown fields pass, and what is read is checked. Answers are plain interfaces: we make those.
 */
import { z } from 'zod';
import { checkBodySize } from './body-size.ts';
import { AppError } from './errors.ts';
import { logitBiasSchema } from './logit-bias-field.ts';
import { promptSchema } from './prompt-field.ts';

/** Null is absent: SDKs of several languages serialise unset fields as null. */
function optional<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value) => value ?? undefined);
}

const contentPartSchema = z.looseObject({ type: z.string(), text: z.string().nullish() });
export type ContentPart = z.output<typeof contentPartSchema>;

const toolCallSchema = z.looseObject({
  id: optional(z.string()),
  type: optional(z.string()),
  function: z.looseObject({
    name: z.string(),
    arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
  }),
});

export const chatMessageSchema = z.looseObject({
  role: z.string(),
  content: z.union([z.string(), z.array(contentPartSchema)]).nullish(),
  name: optional(z.string()),
  tool_calls: optional(z.array(toolCallSchema)),
  tool_call_id: optional(z.string()),
  reasoning_content: optional(z.string()),
  /** What some servers call `reasoning_content`. */
  reasoning: optional(z.string()),
  /** The form of before `tool_calls`. */
  function_call: optional(
    z.looseObject({
      name: z.string(),
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
    }),
  ),
});
export type ChatMessage = z.output<typeof chatMessageSchema>;

const functionSchema = z.looseObject({
  name: z.string(),
  description: optional(z.string()),
  parameters: optional(z.record(z.string(), z.unknown())),
  strict: z.boolean().nullish(),
});

export const toolSchema = z.looseObject({ type: z.string(), function: optional(functionSchema) });
export type ChatTool = z.output<typeof toolSchema>;

const number = z.number();
const int = z.number().int();
const tokensMax = 2 ** 31 - 1;
const repeatPenalty = number.min(0.01).max(100);

/** Fields that chat and raw completions share. */
const samplingFields = {
  model: z.string(),
  stream: optional(z.boolean()),
  stream_options: optional(
    z.looseObject({
      include_usage: optional(z.boolean()),
      /** Ours: the size of the prompt with the first chunk, for dialects whose streams begin with it. */
      include_prompt_usage: optional(z.boolean()),
      include_obfuscation: optional(z.boolean()),
    }),
  ),
  max_tokens: optional(int.min(0).max(tokensMax)),
  temperature: optional(number.min(0)),
  top_p: optional(number.min(0).max(1)),
  top_k: optional(int),
  min_p: optional(number.min(0).max(1)),
  typical_p: optional(number.min(0).max(1)),
  top_n_sigma: optional(number),
  xtc_probability: optional(number.min(0).max(1)),
  xtc_threshold: optional(number.min(0).max(1)),
  repeat_penalty: optional(repeatPenalty),
  repetition_penalty: optional(repeatPenalty),
  repeat_last_n: optional(int.min(-1)),
  frequency_penalty: optional(number),
  presence_penalty: optional(number),
  dry_multiplier: optional(number),
  dry_base: optional(number),
  dry_allowed_length: optional(int),
  dry_penalty_last_n: optional(int),
  dry_sequence_breakers: optional(z.array(z.string()).max(16)),
  seed: optional(int),
  stop: optional(z.union([z.string(), z.array(z.string()).max(64)])),
  logit_bias: logitBiasSchema,
  n: optional(int.min(1)),
  best_of: optional(int.min(1)),
  grammar: optional(z.string().max(256 * 1024)),
  ignore_eos: optional(z.boolean()),
  user: z.unknown().optional(),
};

const samplingSchema = z.looseObject(samplingFields);
export type SamplingFields = z.output<typeof samplingSchema>;

export const chatRequestSchema = z.looseObject({
  ...samplingFields,
  messages: z.array(chatMessageSchema).min(1),
  max_completion_tokens: optional(int.min(0).max(tokensMax)),
  logprobs: optional(z.boolean()),
  top_logprobs: optional(int.min(0).max(20)),
  tools: optional(z.array(toolSchema).max(1024)),
  tool_choice: optional(z.union([z.string(), z.looseObject({ type: z.string() })])),
  parallel_tool_calls: optional(z.boolean()),
  response_format: optional(z.looseObject({ type: z.string() })),
  chat_template_kwargs: optional(z.record(z.string(), z.unknown())),
  reasoning_effort: optional(z.string()),
  modalities: optional(z.array(z.string())),
  functions: optional(z.array(functionSchema).max(1024)),
  function_call: optional(z.union([z.string(), z.looseObject({ name: z.string() })])),
  enable_thinking: optional(z.boolean()),
  verbosity: optional(z.string()),
  continue_final_message: optional(z.boolean()),
  add_generation_prompt: optional(z.boolean()),
});
export type ChatRequest = z.output<typeof chatRequestSchema>;

export const completionRequestSchema = z.looseObject({
  ...samplingFields,
  prompt: promptSchema,
  suffix: optional(z.string()),
  echo: optional(z.boolean()),
  logprobs: optional(int.min(0).max(20)),
});
export type CompletionRequest = z.output<typeof completionRequestSchema>;

/** A fault of any kind in these is one of a value: the request has its shape and asks for the impossible. */
const valueFields: ReadonlySet<unknown> = new Set([
  ...Object.keys(samplingFields).filter((name) => !/^(model|stream)/.test(name)),
  ...['max_completion_tokens', 'logprobs', 'top_logprobs', 'prompt', 'suffix', 'echo', 'tokens'],
]);

/**
 * Checks a parsed JSON body. Errors, with the path of the first fault: `invalid_request` for a value that is
 * out of its range or too large, `invalid_request_body` for a wrong shape.
 */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new AppError('invalid_request_body', 'the body must be a JSON object');
  }
  checkBodySize(body as Record<string, unknown>);
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = deepest(parsed.error.issues[0]);
  const param = issue.path.map(String).join('.');
  const where = param === '' ? 'the body' : `"${param}"`;
  const isEmptyList = issue.code === 'too_small' && param === 'messages';
  const code = isEmptyList || valueFields.has(issue.path[0]) ? 'invalid_request' : 'invalid_request_body';
  throw new AppError(code, `${where}: ${issue.message}`, { param });
}

interface Issue {
  readonly code?: string | undefined;
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Into the branch of a union that got furthest, so that the path names the field and not its container. */
function deepest(issue: z.core.$ZodIssue | undefined): Issue {
  if (issue === undefined) return { path: [], message: 'wrong shape' };
  if (issue.code !== 'invalid_union') return issue;
  let best: Issue = { path: issue.path, message: 'none of the accepted types' };
  for (const branch of issue.errors) {
    const inner = branch[0];
    if (inner === undefined) continue;
    if (inner.path.length === 0) {
      // Right in its type and wrong in its value: that says more than that no type fits.
      if (inner.code !== 'invalid_type' && best.path === issue.path) best = { ...inner, path: issue.path };
      continue;
    }
    const found = deepest(inner);
    const path = [...issue.path, ...found.path];
    if (path.length > best.path.length) best = { path, message: found.message };
  }
  return best;
}

export interface ChatUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  readonly completion_tokens_details?: { readonly reasoning_tokens: number };
}

/** Where the time of one request went, on the neuron. */
export interface ChatTimings {
  readonly queue_ms: number;
  readonly prefill_ms: number;
  readonly decode_ms: number;
  /** Tokens drafted, and of those taken, as llama-server names them; absent when nothing was drafted. */
  readonly draft_n?: number;
  readonly draft_n_accepted?: number;
}

export interface WireToolCall {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; readonly arguments: string };
}

/** A piece of a call in a stream: id, type and name come once, with the first piece. */
export interface WireToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'function';
  readonly function: { readonly name?: string; readonly arguments: string };
}

export type ChatFinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter';

export interface WireLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
  readonly top_logprobs: readonly {
    readonly token: string;
    readonly logprob: number;
    readonly bytes: readonly number[];
  }[];
}

export interface ChatCompletion {
  readonly id: string;
  readonly object: 'chat.completion';
  readonly created: number;
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly message: {
      readonly role: 'assistant';
      readonly content: string | null;
      readonly refusal: null;
      readonly reasoning_content?: string;
      readonly tool_calls?: readonly WireToolCall[];
    };
    readonly logprobs: { readonly content: readonly WireLogprob[] } | null;
    readonly finish_reason: ChatFinishReason;
    /**
     * With `stop`: the request's `stop` text that ended it, as vLLM tells; absent = none did. With `length`:
     * `context_full` where it was the context that ended it, and not `max_tokens`.
     */
    readonly stop_reason?: string;
  }[];
  readonly usage: ChatUsage;
  readonly timings?: ChatTimings;
}

export interface ChatDelta {
  readonly role?: 'assistant';
  readonly content?: string;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly WireToolCallDelta[];
}

export interface ChatChunk {
  readonly id: string;
  readonly object: 'chat.completion.chunk';
  readonly created: number;
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly delta: ChatDelta;
    readonly logprobs?: { readonly content: readonly WireLogprob[] } | null;
    readonly finish_reason: ChatFinishReason | null;
    /** As in the whole answer. */
    readonly stop_reason?: string;
  }[];
  readonly usage?: ChatUsage | null;
  readonly timings?: ChatTimings;
}
