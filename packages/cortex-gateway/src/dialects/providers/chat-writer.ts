/** Events -> a chat answer, streamed or whole, in the form that neurons give. */
import { AppError } from 'cortex-core/wire/errors';
import { encodeSse } from 'cortex-core/wire/sse';
import type { AnswerEvent, AnswerUsage, StopReason } from '../inner/answer-event.ts';
import type { JsonObject } from '../request-body.ts';

export interface ChatWriterOptions {
  /** As the request named it. */
  readonly model: string;
  /** Unix seconds. */
  readonly createdSecs: number;
  /** The client asked for a chunk with usage; else it stands in the last chunk, for the gateway to count. */
  readonly tellsUsage: boolean;
}

export class ChatStreamWriter {
  readonly #options: ChatWriterOptions;
  #id = 'chatcmpl-provider';
  #stop: Extract<AnswerEvent, { readonly type: 'stop' }> | null = null;
  #usage: AnswerUsage | null = null;
  #isOver = false;

  constructor(options: ChatWriterOptions) {
    this.#options = options;
  }

  /** SSE text. Throws the error of an `error` event. */
  write(events: readonly AnswerEvent[]): string {
    return events.map((event) => this.#take(event)).join('');
  }

  /** The end of a complete answer; nothing twice. */
  end(): string {
    if (this.#isOver) return '';
    if (this.#stop === null) throw new AppError('upstream_malformed_response', 'the answer has no end');
    this.#isOver = true;
    const usage = this.#usage === null ? null : toChatUsage(this.#usage);
    const { tellsUsage } = this.#options;
    const last = this.#chunk({}, finishOf(this.#stop), usage === null || tellsUsage ? {} : { usage });
    const told = usage === null || !tellsUsage ? '' : this.#frame({ choices: [], usage });
    return `${last}${told}${encodeSse('[DONE]')}`;
  }

  #take(event: AnswerEvent): string {
    switch (event.type) {
      case 'start': {
        this.#id = toChatId(event.id);
        const prompt = event.promptTokens;
        const usage = { promptTokens: prompt ?? 0, cachedTokens: event.cachedTokens ?? 0 };
        const told = toChatUsage({ ...usage, completionTokens: 0, reasoningTokens: 0 });
        const isTold = prompt !== null && this.#options.tellsUsage;
        return this.#chunk({ role: 'assistant', content: '' }, null, isTold ? { usage: told } : {});
      }
      case 'text':
        return this.#chunk({ content: event.text });
      case 'reasoning':
        return this.#chunk({ reasoning_content: event.text });
      case 'call_start': {
        const { index, id, name } = event;
        return this.#chunk({
          tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }],
        });
      }
      case 'call_arguments':
        return this.#chunk({ tool_calls: [{ index: event.index, function: { arguments: event.text } }] });
      case 'call_stop':
        return '';
      case 'usage':
        this.#usage = event.usage;
        return '';
      case 'stop':
        this.#stop = event;
        return '';
      case 'error':
        throw event.error;
      default:
        return event satisfies never;
    }
  }

  #chunk(delta: JsonObject, finish: JsonObject | null = null, more: JsonObject = {}): string {
    return this.#frame({ choices: [{ index: 0, delta, ...(finish ?? { finish_reason: null }) }], ...more });
  }

  #frame(fields: JsonObject): string {
    const { model, createdSecs } = this.#options;
    const head = { id: this.#id, object: 'chat.completion.chunk', created: createdSecs, model };
    return encodeSse({ ...head, ...fields });
  }
}

/** Throws the error of an `error` event. */
export function toChatCompletion(
  events: readonly AnswerEvent[],
  { model, createdSecs }: Omit<ChatWriterOptions, 'tellsUsage'>,
): JsonObject {
  let [id, text, reasoning] = [toChatId(null), '', ''];
  let finish: JsonObject = { finish_reason: 'stop' };
  let usage: AnswerUsage | null = null;
  const calls: { id: string; type: 'function'; function: { name: string; arguments: string } }[] = [];
  for (const event of events) {
    if (event.type === 'error') throw event.error;
    if (event.type === 'start') id = toChatId(event.id);
    else if (event.type === 'text') text += event.text;
    else if (event.type === 'reasoning') reasoning += event.text;
    else if (event.type === 'usage') usage = event.usage;
    else if (event.type === 'stop') finish = finishOf(event);
    else if (event.type === 'call_start') {
      calls[event.index] = { id: event.id, type: 'function', function: { name: event.name, arguments: '' } };
    } else if (event.type === 'call_arguments') {
      const call = calls[event.index];
      if (call !== undefined) call.function.arguments += event.text;
    }
  }
  const message = {
    role: 'assistant',
    content: text === '' && calls.length > 0 ? null : text,
    ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
  const choices = [{ index: 0, message, ...finish }];
  const head = { id, object: 'chat.completion', created: createdSecs, model, choices };
  return { ...head, ...(usage === null ? {} : { usage: toChatUsage(usage) }) };
}

const finishes: Readonly<Record<StopReason, string>> = {
  end: 'stop',
  length: 'length',
  context_full: 'length',
  stop_text: 'stop',
  calls: 'tool_calls',
  refusal: 'content_filter',
};

function finishOf({ reason, stopText }: Extract<AnswerEvent, { readonly type: 'stop' }>): JsonObject {
  const said = reason === 'context_full' ? 'context_full' : stopText;
  return { finish_reason: finishes[reason], ...(said === null ? {} : { stop_reason: said }) };
}

function toChatUsage({ promptTokens, cachedTokens, completionTokens, reasoningTokens }: AnswerUsage) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    completion_tokens_details: { reasoning_tokens: reasoningTokens },
  };
}

function toChatId(id: string | null): string {
  return `chatcmpl-${(id ?? 'provider').replace(/^msg_/, '').replace(/[^\w-]/g, '')}`;
}
