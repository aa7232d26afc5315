/**
 * OpenAI's Responses API as cortex answers it. Every field of the vendor's object is there, null where unset:
 * clients of several makers check for presence. Requests are read by the gateway's dialect, field by field.
 */

/** `queued` and `cancelled` are of responses that are made in the background. */
export type ResponseStatus = 'queued' | 'in_progress' | 'completed' | 'incomplete' | 'failed' | 'cancelled';
export type ResponseItemStatus = 'in_progress' | 'completed' | 'incomplete';

export interface ResponseOutputText {
  readonly type: 'output_text';
  readonly text: string;
  readonly annotations: readonly never[];
  readonly logprobs: readonly never[];
}

export interface ResponseMessage {
  readonly id: string;
  readonly type: 'message';
  readonly role: 'assistant';
  readonly status: ResponseItemStatus;
  readonly content: readonly ResponseOutputText[];
}

/** The text stands in `summary` where one was asked for, else in `content`. */
export interface ResponseReasoning {
  readonly id: string;
  readonly type: 'reasoning';
  readonly status: ResponseItemStatus;
  readonly summary: readonly { readonly type: 'summary_text'; readonly text: string }[];
  readonly content?: readonly { readonly type: 'reasoning_text'; readonly text: string }[];
  /** Present where `include` asks for it; null until the item is done. */
  readonly encrypted_content?: string | null;
}

export interface ResponseFunctionCall {
  readonly id: string;
  readonly type: 'function_call';
  readonly status: ResponseItemStatus;
  readonly call_id: string;
  readonly name: string;
  readonly namespace?: string;
  /** JSON text. */
  readonly arguments: string;
}

export interface ResponseCustomCall {
  readonly id: string;
  readonly type: 'custom_tool_call';
  readonly status: ResponseItemStatus;
  readonly call_id: string;
  readonly name: string;
  readonly namespace?: string;
  readonly input: string;
}

export interface ResponseToolSearchCall {
  readonly id: string;
  readonly type: 'tool_search_call';
  readonly status: ResponseItemStatus;
  readonly call_id: string;
  readonly execution: 'client';
  readonly arguments: unknown;
}

export type ResponseOutputItem =
  | ResponseMessage
  | ResponseReasoning
  | ResponseFunctionCall
  | ResponseCustomCall
  | ResponseToolSearchCall;

export interface ResponseUsage {
  readonly input_tokens: number;
  readonly input_tokens_details: { readonly cached_tokens: number; readonly cache_write_tokens: number };
  readonly output_tokens: number;
  readonly output_tokens_details: { readonly reasoning_tokens: number };
  readonly total_tokens: number;
}

/** What the request said, as the response repeats it. */
export interface ResponseEcho {
  readonly model: string;
  readonly previous_response_id: string | null;
  readonly instructions: string | null;
  readonly tools: readonly unknown[];
  readonly tool_choice: unknown;
  readonly parallel_tool_calls: boolean;
  readonly truncation: 'auto' | 'disabled';
  readonly text: Readonly<Record<string, unknown>>;
  readonly reasoning: { readonly effort: string | null; readonly summary: string | null };
  readonly temperature: number;
  readonly top_p: number;
  readonly presence_penalty: number;
  readonly frequency_penalty: number;
  readonly top_logprobs: number;
  readonly max_output_tokens: number | null;
  readonly max_tool_calls: number | null;
  readonly store: boolean;
  readonly background: boolean;
  readonly service_tier: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly user: string | null;
  readonly safety_identifier: string | null;
  readonly prompt_cache_key: string | null;
}

export interface ResponseObject extends ResponseEcho {
  readonly id: string;
  readonly object: 'response';
  /** Seconds since the epoch. */
  readonly created_at: number;
  readonly completed_at: number | null;
  readonly status: ResponseStatus;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly incomplete_details: { readonly reason: 'max_output_tokens' | 'content_filter' } | null;
  readonly output: readonly ResponseOutputItem[];
  readonly usage: ResponseUsage | null;
}
