/** A client's wire format: how its request becomes OpenAI chat for a neuron, and how the answer goes back. */
import type { AppError } from 'cortex-core/wire/errors';
import type { TokenUsage } from './answer-probe.ts';
import type { FieldNames } from './field-names.ts';
import type { PromptKey } from './prompt-key.ts';
import type { JsonObject } from './request-body.ts';
import type { WireGrammar } from './wire-grammar/wire-grammar.ts';

export interface Dialect {
  readonly name: 'chat' | 'completions' | 'embeddings' | 'rerank' | 'messages' | 'responses' | 'ollama';
  /** Throws an AppError that names the field at fault. */
  readonly parse: (body: Uint8Array, options?: ParseOptions) => InferenceRequest;
  /** What it calls the fields that a neuron refuses; absent = as chat does, or said elsewhere. */
  readonly fieldNames?: FieldNames;
  /** A checker of one stream as the client gets it; absent = its streams are not checked. */
  readonly wireGrammar?: () => WireGrammar;
}

export interface ParseOptions {
  /** Take out of the prompt's head what a client changes with every turn (prefix-hygiene.ts). */
  readonly prefixHygiene?: boolean;
}

export interface InferenceRequest {
  /** As the client spelled it. */
  readonly model: string;
  readonly stream: boolean;
  /** Of the longest prompt, which has to fit the context. Rough: four characters a token. */
  readonly promptTokensEstimate: number;
  /** Of all prompts together. */
  readonly inputTokensEstimate: number;
  /** Answers, over all prompts; 0 = nothing is generated. */
  readonly choices: number;
  /** What each answer may have; null = unsaid. */
  readonly maxTokens: number | null;
  /** By what the prompt's prefix is remembered; absent = it is not. */
  readonly promptKey?: PromptKey;
  /** Route on the neuron. */
  readonly upstreamPath: string;
  /** Something was taken out so that the prefix of a conversation stays the same. */
  readonly isPrefixNormalized?: boolean;
  /** Whether client headers go along, or only ours because the body is a translation. */
  readonly forwardsHeaders: boolean;
  readonly toUpstream: (target: UpstreamTarget) => Uint8Array;
  /** A fresh translator for one streamed answer. */
  readonly streamOut: (requestId: string) => StreamOut;
  /** Translates a whole 2xx answer; null = its bytes pass as they come. */
  readonly wholeOut: ((body: Uint8Array) => Uint8Array) | null;
  /** The request as it came, for an upstream that speaks the dialect itself; absent = there is none. */
  readonly native?: NativeForm;
}

/** A request and its answer without translation. */
export interface NativeForm {
  readonly wire: 'messages';
  readonly path: string;
  readonly body: Uint8Array;
  readonly streamOut: (requestId: string) => StreamOut;
  /** Of a whole answer; null = it tells none. */
  readonly usageOf: (body: Uint8Array) => TokenUsage | null;
}

/** Reads a streamed answer in passing. */
export interface StreamProbe {
  readonly finished: boolean;
  readonly usage: TokenUsage | null;
  /** The clock's time of the first and last piece of text; null before. */
  readonly firstTokenMs: number | null;
  readonly lastTokenMs: number | null;
  push(chunk: Uint8Array, nowMs: number): void;
}

/** Whom the body is for, and what the gateway itself has to say in it. */
export interface UpstreamTarget {
  /** The neuron's name of the model. */
  readonly wireId: string;
  /** Fields that hold where the request does not say them: the options of an alias. */
  readonly defaults?: JsonObject;
  /** Fields that hold whatever the request says. */
  readonly overrides?: JsonObject;
  /** What the model does (`text`, `tools`, `vision`, ...); null or absent = not known. */
  readonly capabilities?: readonly string[] | null;
}

/** Upstream's SSE bytes in, the client's out. Everything it returns ends at an event's boundary. */
export interface StreamOut {
  /** What was read before a fault is returned; the next call throws the fault. `nowMs`: for its probe. */
  push(chunk: Uint8Array, nowMs?: number): Uint8Array;
  /** Upstream ended. Throws an AppError where the answer was not complete. */
  end(): Uint8Array;
  /** The dialect's error event. Nothing may follow it. */
  error(error: AppError): Uint8Array;
  keepAlive(): Uint8Array;
  /** Keep-alives are needed while upstream is silent too: the translation swallows upstream's own. */
  readonly pingsDuringAnswer: boolean;
  /** Reads usage and completeness of what is pushed; absent = nobody does yet. */
  readonly probe?: StreamProbe;
  /** Of the client's stream; absent = those of server-sent events. */
  readonly headers?: Readonly<Record<string, string>>;
}
