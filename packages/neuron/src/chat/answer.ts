/** What the engine generated -> OpenAI's chat and completion answers, whole and in chunks. Pure. */
import type { ChatEvent } from 'cortex-core/wire/chat-events';
import type {
  FinishReason,
  GenerateResult,
  InferenceUsage,
  StepEvent,
  TokenLogprob,
} from 'cortex-core/wire/inference';
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
import type { ChatFormat } from './format/chat-format.ts';
import { type ChatParser, createChatParser } from './format/chat-parser.ts';
import type { OfferedTool } from './format/offered-tools.ts';

export interface AnswerIdentity {
  /** `chatcmpl-...` or `cmpl-...`. */
  readonly id: string;
  /** Seconds since the epoch. */
  readonly created: number;
  readonly model: string;
}

export interface ChatAnswerOptions {
  /** Of the model; see `detectFormat`. */
  readonly format: ChatFormat;
  /** What calls are looked for: the tools of the request, none for `tool_choice: "none"`. */
  readonly tools: readonly OfferedTool[];
  /** The prompt left a reasoning block open; see `startsInReasoning`. */
  readonly startsInReasoning: boolean;
  /** `parallel_tool_calls`; false = the answer ends where a second call begins. */
  readonly parallel: boolean;
  /** The request's own `stop` texts. */
  readonly stops: readonly string[];
  /** To be told with the first chunk (`stream_options.include_prompt_usage`); null = not. */
  readonly promptTokens: number | null;
  /** At least 24 characters of [a-z0-9], others each time: for ids of calls. */
  readonly randomText: () => string;
}

type ChoiceEnd = Pick<ChatChunk['choices'][number], 'finish_reason' | 'stop_reason'>;

/** Turns steps into chat chunks and, from the same state, into the whole answer: the two cannot differ. */
export class ChatAnswer {
  readonly #identity: AnswerIdentity;
  readonly #parser: ChatParser;
  readonly #calls: { readonly id: string; readonly name: string; arguments: string }[] = [];
  #content = '';
  #reasoning = '';
  #reasoningTokens = 0;
  readonly #logprobs: WireLogprob[] = [];
  #withLogprobs = false;
  readonly #stops: readonly string[];
  readonly #promptTokens: number | null;
  /** Whether the last call is; behind the last step, whether it was when the text ended. */
  #isCallOpen = false;

  constructor(identity: AnswerIdentity, options: ChatAnswerOptions) {
    this.#identity = identity;
    const { format, tools, startsInReasoning, parallel, randomText } = options;
    this.#stops = options.stops;
    this.#promptTokens = options.promptTokens;
    this.#parser = createChatParser(format, { tools, startsInReasoning, parallel, randomText });
  }

  /** The rest of the turn will not be part of the answer: generation may end. */
  get isOver(): boolean {
    return this.#parser.isOver;
  }

  /** `cachedTokens`: of the prompt. */
  begin(cachedTokens = 0): ChatChunk {
    const chunk = this.#chunk({ role: 'assistant', content: '' });
    const promptTokens = this.#promptTokens;
    if (promptTokens === null) return chunk;
    return { ...chunk, usage: usageOf({ promptTokens, cachedTokens, completionTokens: 0 }) };
  }

  step(event: StepEvent): ChatChunk[] {
    const logprobs = event.logprobs?.map(toWireLogprob);
    if (logprobs !== undefined) {
      this.#withLogprobs = true;
      this.#logprobs.push(...logprobs);
    }
    const wasReasoning = this.#parser.isReasoning;
    const chunks = this.#parser.push(event.text).map((each) => this.#take(each));
    // The markers of a block are part of what thinking costs.
    if (wasReasoning || this.#parser.isReasoning) this.#reasoningTokens += event.tokens.length;
    if (logprobs === undefined || logprobs.length === 0) return chunks.flat();
    const [first = this.#chunk({ content: '' }), ...rest] = chunks.flat();
    return [withLogprobs(first, logprobs), ...rest];
  }

  /** The chunks after the last step: what was held back, then the one with the finish reason. */
  finish(result: GenerateResult): ChatChunk[] {
    const isCallOpen = this.#isCallOpen;
    const chunks = this.#parser.finish().flatMap((each) => this.#take(each));
    this.#isCallOpen = isCallOpen; // the parser closes what is open
    return [...chunks, this.#chunk({}, this.#end(result))];
  }

  usageChunk(result: GenerateResult, timings: ChatTimings): ChatChunk {
    return { ...head(this.#identity), choices: [], usage: this.#usage(result), timings };
  }

  /** After `finish`. */
  whole(result: GenerateResult, timings: ChatTimings): ChatCompletion {
    const calls = this.#calls.map(({ id, name, arguments: given }): WireToolCall => {
      return { id, type: 'function', function: { name, arguments: given } };
    });
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
            ...(this.#reasoning === '' ? {} : { reasoning_content: this.#reasoning }),
            ...(calls.length === 0 ? {} : { tool_calls: calls }),
          },
          logprobs: this.#withLogprobs ? { content: this.#logprobs } : null,
          ...this.#end(result),
        },
      ],
      usage: this.#usage(result),
      timings,
    };
  }

  #take(event: ChatEvent): ChatChunk[] {
    switch (event.kind) {
      case 'content':
        this.#content += event.text;
        return [this.#chunk({ content: event.text })];
      case 'reasoning':
        this.#reasoning += event.text;
        return [this.#chunk({ reasoning_content: event.text })];
      case 'call_start': {
        const { index, id, name } = event;
        this.#calls.push({ id, name, arguments: '' });
        this.#isCallOpen = true;
        return [
          this.#chunk({ tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] }),
        ];
      }
      case 'call_arguments': {
        const call = this.#calls[event.index];
        if (call !== undefined) call.arguments += event.text;
        return [this.#chunk({ tool_calls: [{ index: event.index, function: { arguments: event.text } }] })];
      }
      case 'call_end':
        this.#isCallOpen = false;
        return [];
      default:
        return event satisfies never;
    }
  }

  #usage(result: GenerateResult): ChatUsage {
    // The engine does not count the token that ends a generation; steps show it to nobody, but to be sure.
    const reasoning = Math.min(this.#reasoningTokens, result.usage.completionTokens);
    return { ...toUsage(result), completion_tokens_details: { reasoning_tokens: reasoning } };
  }

  /** Why the choice ended. A call that the client's own stop cut off is none to be made. */
  #end({ finishReason, stopText }: GenerateResult): ChoiceEnd & { finish_reason: ChatFinishReason } {
    const own = finishReason === 'stop' && stopText !== null && this.#stops.includes(stopText);
    const isCut = own && this.#isCallOpen;
    const isCall = finishReason === 'stop' && this.#calls.length > 0 && !isCut;
    return {
      finish_reason: isCall ? 'tool_calls' : toFinishReason(finishReason),
      ...(own ? { stop_reason: stopText } : {}),
      ...(finishReason === 'context_full' ? { stop_reason: 'context_full' } : {}),
    };
  }

  #chunk(delta: ChatDelta, end: ChoiceEnd = { finish_reason: null }): ChatChunk {
    return { ...head(this.#identity), choices: [{ index: 0, delta, logprobs: null, ...end }] };
  }
}

export function toUsage(result: GenerateResult): ChatUsage {
  return usageOf(result.usage);
}

function usageOf({ promptTokens, cachedTokens, completionTokens }: InferenceUsage): ChatUsage {
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
