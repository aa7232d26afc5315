/** What the engine generated -> OpenAI's chat and completion answers, whole and in chunks. Pure. */
import type { FinishReason, GenerateResult, StepEvent, TokenLogprob } from 'cortex-core/wire/inference';
import type {
  ChatChunk,
  ChatCompletion,
  ChatDelta,
  ChatFinishReason,
  ChatTimings,
  ChatUsage,
  WireLogprob,
  WireToolCall,
} from 'cortex-core/wire/openai';
import { type AnswerEvent, ToolCallParser } from './tool-calls.ts';

export interface AnswerIdentity {
  /** `chatcmpl-...` or `cmpl-...`. */
  readonly id: string;
  /** Seconds since the epoch. */
  readonly created: number;
  readonly model: string;
}

/** Turns steps into chat chunks and, from the same state, into the whole answer: the two cannot differ. */
export class ChatAnswer {
  readonly #identity: AnswerIdentity;
  readonly #parser: ToolCallParser | null;
  readonly #calls: WireToolCall[] = [];
  #content = '';
  readonly #logprobs: WireLogprob[] = [];
  #withLogprobs = false;

  /** Tool calls are looked for only when the request offered tools. */
  constructor(identity: AnswerIdentity, options: { readonly parseToolCalls: boolean }) {
    this.#identity = identity;
    this.#parser = options.parseToolCalls ? new ToolCallParser() : null;
  }

  begin(): ChatChunk {
    return this.#chunk({ role: 'assistant', content: '' });
  }

  step(event: StepEvent): ChatChunk[] {
    const logprobs = event.logprobs?.map(toWireLogprob);
    if (logprobs !== undefined) {
      this.#withLogprobs = true;
      this.#logprobs.push(...logprobs);
    }
    const events = this.#parser === null ? plain(event.text) : this.#parser.push(event.text);
    const chunks = events.map((each) => this.#take(each));
    if (logprobs === undefined || logprobs.length === 0) return chunks;
    const first = chunks[0] ?? this.#chunk({ content: '' });
    return [withLogprobs(first, logprobs), ...chunks.slice(1)];
  }

  /** The chunks after the last step: what was held back, then the one with the finish reason. */
  finish(result: GenerateResult): ChatChunk[] {
    const chunks = (this.#parser?.end() ?? []).map((each) => this.#take(each));
    return [...chunks, this.#chunk({}, this.#finishReason(result.finishReason))];
  }

  usageChunk(result: GenerateResult, timings: ChatTimings): ChatChunk {
    return { ...head(this.#identity), choices: [], usage: toUsage(result), timings };
  }

  /** After `finish`. */
  whole(result: GenerateResult, timings: ChatTimings): ChatCompletion {
    const calls = this.#calls;
    return {
      ...head(this.#identity),
      object: 'chat.completion',
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: this.#content === '' && calls.length > 0 ? null : this.#content,
            refusal: null,
            ...(calls.length === 0 ? {} : { tool_calls: calls }),
          },
          logprobs: this.#withLogprobs ? { content: this.#logprobs } : null,
          finish_reason: this.#finishReason(result.finishReason),
        },
      ],
      usage: toUsage(result),
      timings,
    };
  }

  #take(event: AnswerEvent): ChatChunk {
    if (event.kind === 'text') {
      this.#content += event.text;
      return this.#chunk({ content: event.text });
    }
    const index = this.#calls.length;
    const call: WireToolCall = {
      id: `call_${this.#identity.id.replace(/^\w+-/, '')}_${index}`,
      type: 'function',
      function: { name: event.name, arguments: event.argumentsJson },
    };
    this.#calls.push(call);
    return this.#chunk({ tool_calls: [{ index, ...call }] });
  }

  #finishReason(reason: FinishReason): ChatFinishReason {
    if (reason === 'stop' && this.#calls.length > 0) return 'tool_calls';
    return toFinishReason(reason);
  }

  #chunk(delta: ChatDelta, finishReason: ChatFinishReason | null = null): ChatChunk {
    return {
      ...head(this.#identity),
      choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }],
    };
  }
}

export function toUsage(result: GenerateResult): ChatUsage {
  const { promptTokens, cachedTokens, completionTokens } = result.usage;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** `cancelled` is never sent: its client is gone. */
export function toFinishReason(reason: FinishReason): 'stop' | 'length' {
  switch (reason) {
    case 'stop':
    case 'cancelled':
      return 'stop';
    case 'length':
    case 'context_full':
      return 'length';
    default:
      return reason satisfies never;
  }
}

function plain(text: string): AnswerEvent[] {
  return text === '' ? [] : [{ kind: 'text', text }];
}

function withLogprobs(chunk: ChatChunk, content: readonly WireLogprob[]): ChatChunk {
  return { ...chunk, choices: chunk.choices.map((choice) => ({ ...choice, logprobs: { content } })) };
}

function toWireLogprob(each: TokenLogprob): WireLogprob {
  return {
    token: each.text,
    logprob: each.logprob,
    bytes: each.bytes,
    top_logprobs: each.top.map((alt) => ({ token: alt.text, logprob: alt.logprob, bytes: alt.bytes })),
  };
}

function head(identity: AnswerIdentity) {
  return {
    id: identity.id,
    object: 'chat.completion.chunk' as const,
    created: identity.created,
    model: identity.model,
  };
}
