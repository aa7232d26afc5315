/**
 * The events of an answer -> Anthropic's stream: message_start, one block after the other, message_delta,
 * message_stop.
 *
 * Problem: blocks may not interleave, calls of an engine may. Clients take message_start for the beginning
 * of an answer and message_stop for its whole.
 * Design: one block is open at a time; a call that begins while another is open waits, and goes out when
 * that one is closed. message_start goes out with upstream's first event. An answer that breaks off ends in
 * an error event: everything that was read before the fault has been sent by then, because a `push` that has
 * something to return returns it, and only the next call throws.
 */
import { AppError, toAnthropicEnvelope } from 'cortex-core/wire/errors';
import { encodeSse } from 'cortex-core/wire/sse';
import { messageId, toInputUsage, toStopReason, toUsage } from './anthropic-answer.ts';
import type { ThinkingDisplay } from './anthropic-request.ts';
import { toSignature } from './anthropic-signature.ts';
import type { StreamOut } from './dialect.ts';
import type { AnswerEvent, AnswerUsage } from './inner/answer-event.ts';
import { ChatAnswerReader } from './inner/chat-answer-reader.ts';

export interface AnthropicStreamOptions {
  readonly model: string;
  readonly display: ThinkingDisplay;
  /** Where upstream does not tell before it generates. */
  readonly inputTokensEstimate: number;
  readonly requestId: string;
}

export class AnthropicStream implements StreamOut {
  readonly pingsDuringAnswer = true;
  readonly #reader = new ChatAnswerReader();
  readonly #blocks: AnthropicBlocks;
  readonly #options: AnthropicStreamOptions;
  #out: string[] = [];
  #failure: AppError | null = null;
  #isOver = false;
  #input = { promptTokens: 0, cachedTokens: 0 };
  #usage: AnswerUsage | null = null;
  #stop: Extract<AnswerEvent, { readonly type: 'stop' }> | null = null;

  constructor(options: AnthropicStreamOptions) {
    this.#options = options;
    this.#blocks = new AnthropicBlocks(options.display, (event) => this.#frame(event));
  }

  push(chunk: Uint8Array): Uint8Array {
    if (this.#failure !== null) throw this.#failure;
    if (this.#isOver) return new Uint8Array(0);
    for (const event of this.#reader.push(chunk)) this.#take(event);
    const bytes = this.#flush();
    if (this.#failure !== null && bytes.length === 0) throw this.#failure;
    return bytes;
  }

  end(): Uint8Array {
    if (this.#isOver) return new Uint8Array(0);
    for (const event of this.#reader.end()) this.#take(event);
    if (this.#failure !== null) throw this.#failure;
    if (this.#stop === null) throw new AppError('upstream_malformed_response', 'the answer has no end');
    this.#isOver = true;
    const { reason, stopText } = this.#stop;
    const usage = this.#usage ?? {
      ...this.#input,
      completionTokens: this.#blocks.pieces,
      reasoningTokens: 0,
    };
    const delta = { stop_reason: toStopReason(reason), stop_sequence: stopText };
    this.#frame({ type: 'message_delta', delta, usage: toUsage(usage) });
    this.#frame({ type: 'message_stop' });
    return this.#flush();
  }

  error(error: AppError): Uint8Array {
    this.#isOver = true;
    return Buffer.from(encodeSse(toAnthropicEnvelope(error, this.#options.requestId), 'error'));
  }

  keepAlive(): Uint8Array {
    return Buffer.from(encodeSse({ type: 'ping' }, 'ping'));
  }

  #take(event: AnswerEvent): void {
    switch (event.type) {
      case 'start':
        this.#start(event);
        break;
      case 'usage':
        this.#usage = event.usage;
        break;
      case 'stop':
        this.#blocks.close();
        this.#stop = event;
        break;
      case 'error':
        this.#failure = event.error;
        break;
      default:
        this.#blocks.take(event);
    }
  }

  #start({ id, promptTokens, cachedTokens }: Extract<AnswerEvent, { readonly type: 'start' }>): void {
    const { model, inputTokensEstimate } = this.#options;
    this.#input = { promptTokens: promptTokens ?? inputTokensEstimate, cachedTokens: cachedTokens ?? 0 };
    const usage = { ...toInputUsage(this.#input.promptTokens, this.#input.cachedTokens), output_tokens: 1 };
    const message = {
      ...{ id: messageId(id), type: 'message', role: 'assistant', model, content: [] },
      ...{ stop_reason: null, stop_sequence: null, usage },
    };
    this.#frame({ type: 'message_start', message });
  }

  #frame(event: AnthropicFrame): void {
    this.#out.push(encodeSse(event, event.type));
  }

  #flush(): Uint8Array {
    const bytes = Buffer.from(this.#out.join(''));
    this.#out = [];
    return bytes;
  }
}

type AnthropicFrame = { readonly type: string } & Readonly<Record<string, unknown>>;
type BlockEvent = Exclude<AnswerEvent, { readonly type: 'start' | 'usage' | 'stop' | 'error' }>;

interface WaitingCall {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  text: string;
  stopped: boolean;
}

/** Opens every block once and closes it, one at a time, with indexes from 0. */
class AnthropicBlocks {
  /** Deltas so far: what an answer without usage is said to have cost. */
  pieces = 0;
  readonly #display: ThinkingDisplay;
  readonly #send: (event: AnthropicFrame) => void;
  #index = -1;
  #open: { readonly kind: 'text' | 'thinking' } | { readonly kind: 'call'; readonly call: number } | null =
    null;
  #hidden = '';
  #waiting: readonly WaitingCall[] = [];

  constructor(display: ThinkingDisplay, send: (event: AnthropicFrame) => void) {
    this.#display = display;
    this.#send = send;
  }

  take(event: BlockEvent): void {
    switch (event.type) {
      case 'reasoning':
        this.#reasoning(event.text);
        break;
      case 'text':
        this.#switchTo('text', { type: 'text', text: '' });
        this.#delta({ type: 'text_delta', text: event.text });
        break;
      case 'call_start': {
        const call = { index: event.index, id: event.id, name: event.name, text: '', stopped: false };
        if (this.#open?.kind === 'call') this.#waiting = [...this.#waiting, call];
        else this.#openCall(call);
        break;
      }
      case 'call_arguments': {
        const waiting = this.#waiting.find(({ index }) => index === event.index);
        if (waiting === undefined) this.#delta({ type: 'input_json_delta', partial_json: event.text });
        else waiting.text += event.text;
        break;
      }
      case 'call_stop':
        this.#stopCall(event.index);
        break;
      default:
        event satisfies never;
    }
  }

  close(): void {
    if (this.#open === null) return;
    if (this.#open.kind === 'thinking') {
      this.#delta({ type: 'signature_delta', signature: toSignature(this.#hidden) });
      this.#hidden = '';
    }
    this.#send({ type: 'content_block_stop', index: this.#index });
    this.#open = null;
  }

  #reasoning(text: string): void {
    if (this.#display === 'none') return;
    this.#switchTo('thinking', { type: 'thinking', thinking: '', signature: '' });
    if (this.#display === 'omitted') this.#hidden += text;
    else this.#delta({ type: 'thinking_delta', thinking: text });
  }

  #switchTo(kind: 'text' | 'thinking', block: AnthropicFrame): void {
    if (this.#open?.kind === kind) return;
    this.#openBlock(block);
    this.#open = { kind };
  }

  #openBlock(block: AnthropicFrame): void {
    this.close();
    this.#index++;
    this.#send({ type: 'content_block_start', index: this.#index, content_block: block });
  }

  #openCall(call: WaitingCall): void {
    this.#openBlock({ type: 'tool_use', id: call.id, name: call.name, input: {} });
    this.#open = { kind: 'call', call: call.index };
    this.#delta({ type: 'input_json_delta', partial_json: '' });
    if (call.text !== '') this.#delta({ type: 'input_json_delta', partial_json: call.text });
  }

  #stopCall(index: number): void {
    const waiting = this.#waiting.find((call) => call.index === index);
    if (waiting !== undefined) {
      waiting.stopped = true;
      return;
    }
    this.close();
    while (this.#open === null) {
      const [next, ...rest] = this.#waiting;
      if (next === undefined) return;
      this.#waiting = rest;
      this.#openCall(next);
      if (next.stopped) this.close();
    }
  }

  #delta(delta: AnthropicFrame): void {
    this.pieces++;
    this.#send({ type: 'content_block_delta', index: this.#index, delta });
  }
}
