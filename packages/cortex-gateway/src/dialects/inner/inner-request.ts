/**
 * A request as every dialect means it. Each dialect maps to this form and none to another; `toChatBody` makes
 * the chat body for a neuron out of it.
 */
import type { JsonObject } from '../request-body.ts';

/** `path`: where it stands in the client's body, for a refusal. */
export type InnerPart =
  | { readonly type: 'text'; readonly text: string }
  /** `data:` or http(s) address. */
  | {
      readonly type: 'image';
      readonly url: string;
      readonly detail?: string | undefined;
      readonly path: string;
    }
  | { readonly type: 'audio'; readonly data: string; readonly format: string; readonly path: string }
  /** Bytes that are no text (a PDF), base64; a document that is text comes as text. */
  | {
      readonly type: 'document';
      readonly title: string | null;
      readonly mediaType: string;
      readonly data: string;
      readonly path: string;
    }
  | { readonly type: 'reasoning'; readonly text: string }
  /** `arguments`: JSON text. */
  | { readonly type: 'call'; readonly id: string; readonly name: string; readonly arguments: string }
  | {
      readonly type: 'result';
      readonly callId: string;
      readonly parts: readonly InnerPart[];
      readonly isError: boolean;
    };

export type InnerResult = Extract<InnerPart, { readonly type: 'result' }>;
export type InnerCall = Extract<InnerPart, { readonly type: 'call' }>;

export interface InnerTurn {
  /** `system` turns may stand anywhere; results are a user's. */
  readonly role: 'system' | 'user' | 'assistant';
  readonly parts: readonly InnerPart[];
}

export interface InnerTool {
  readonly name: string;
  readonly description: string | null;
  /** JSON Schema of the arguments. */
  readonly parameters: JsonObject;
  readonly strict: boolean | null;
}

export type InnerToolChoice = 'auto' | 'none' | 'required' | { readonly name: string };

export interface InnerReasoning {
  /** null = the model's default. */
  readonly enabled: boolean | null;
  /** none, minimal, low, medium, high, xhigh, max; goes along only where the model is known to reason. */
  readonly effort: string | null;
  /** Tokens at most; null = no limit. */
  readonly budget: number | null;
}

export interface InnerFormat {
  readonly name: string;
  /** The answer's text must match it; null = any JSON object. */
  readonly schema: JsonObject | null;
  readonly strict: boolean | null;
}

export interface InnerRequest {
  readonly model: string;
  readonly stream: boolean;
  readonly turns: readonly InnerTurn[];
  readonly tools: readonly InnerTool[];
  /** null = unsaid. */
  readonly toolChoice: InnerToolChoice | null;
  readonly parallelToolCalls: boolean | null;
  readonly maxTokens: number | null;
  readonly stops: readonly string[];
  readonly reasoning: InnerReasoning | null;
  readonly format: InnerFormat | null;
  /** The last turn is the assistant's and is to be continued. */
  readonly continuesLastTurn: boolean;
  /** Chat fields with the same name and meaning in the dialect: temperature, top_p, top_k, seed, user, ... */
  readonly sampling: JsonObject;
}
