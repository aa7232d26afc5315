/**
 * OpenAI chat SSE -> Anthropic's event grammar: message_start, then one text block (start, deltas, stop),
 * then message_delta and message_stop. Lifecycle frames wait for upstream's first event; an answer that
 * ends without a finish reason ends with an error, never with message_stop.
 */
import type { AnthropicUsage } from 'cortex-core/wire/anthropic';
import { AppError, type ErrorCode, errorCatalogue, toAnthropicEnvelope } from 'cortex-core/wire/errors';
import { encodeSse, SseParser } from 'cortex-core/wire/sse';
import { type ChatPiece, messageId, parsePiece, toStop, toUsage } from './anthropic-answer.ts';
import type { StreamOut } from './dialect.ts';

export class AnthropicStream implements StreamOut {
  readonly pingsDuringAnswer = true;
  readonly #parser = new SseParser();
  readonly #model: string;
  readonly #inputTokensEstimate: number;
  readonly #requestId: string;
  #started = false;
  #blockOpen = false;
  #stop: ReturnType<typeof toStop> | null = null;
  #usage: AnthropicUsage | null = null;
  #deltas = 0;
  #over = false;

  constructor(model: string, inputTokensEstimate: number, requestId = '') {
    this.#model = model;
    this.#inputTokensEstimate = inputTokensEstimate;
    this.#requestId = requestId;
  }

  push(chunk: Uint8Array): Uint8Array {
    const out: string[] = [];
    for (const event of this.#parser.push(chunk)) {
      if (this.#over) break;
      if (event.data === '[DONE]') continue;
      this.#piece(parsePiece(event.data), out);
    }
    return Buffer.from(out.join(''));
  }

  end(): Uint8Array {
    if (this.#over) return new Uint8Array(0);
    if (this.#stop === null) {
      throw new AppError(
        'upstream_connection_error',
        'the answer broke off before it was complete; try again',
      );
    }
    this.#over = true;
    const out: string[] = [];
    this.#closeBlock(out);
    const usage = this.#usage ?? {
      input_tokens: this.#inputTokensEstimate,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      output_tokens: this.#deltas,
    };
    const delta = { stop_reason: this.#stop.reason, stop_sequence: this.#stop.sequence };
    out.push(frame({ type: 'message_delta', delta, usage }), frame({ type: 'message_stop' }));
    return Buffer.from(out.join(''));
  }

  error(error: AppError): Uint8Array {
    this.#over = true;
    return Buffer.from(encodeSse(toAnthropicEnvelope(error, this.#requestId), 'error'));
  }

  keepAlive(): Uint8Array {
    return Buffer.from(frame({ type: 'ping' }));
  }

  #piece(piece: ChatPiece, out: string[]): void {
    if (piece.error !== undefined && piece.error !== null) throw inStreamError(piece.error);
    if (piece.usage) this.#usage = toUsage(piece.usage);
    this.#start(piece, out);
    const choice = piece.choices?.[0];
    if (choice === undefined) return;
    const text = choice.delta?.content;
    if (typeof text === 'string' && text !== '' && this.#stop === null) {
      this.#openBlock(out);
      this.#deltas++;
      out.push(frame({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } }));
    }
    if (typeof choice.finish_reason === 'string') this.#stop ??= toStop(choice);
  }

  #start(piece: ChatPiece, out: string[]): void {
    if (this.#started) return;
    this.#started = true;
    const usage = this.#usage ?? {
      input_tokens: this.#inputTokensEstimate,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
    };
    const message = {
      id: messageId(piece.id),
      type: 'message',
      role: 'assistant',
      model: this.#model,
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { ...usage, output_tokens: 1 },
    };
    out.push(frame({ type: 'message_start', message }));
  }

  #openBlock(out: string[]): void {
    if (this.#blockOpen) return;
    this.#blockOpen = true;
    out.push(frame({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }));
  }

  #closeBlock(out: string[]): void {
    if (!this.#blockOpen) return;
    this.#blockOpen = false;
    out.push(frame({ type: 'content_block_stop', index: 0 }));
  }
}

function frame(event: { readonly type: string } & Readonly<Record<string, unknown>>): string {
  return encodeSse(event, event.type);
}

function inStreamError(value: unknown): AppError {
  const fields = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const code =
    typeof fields.code === 'string' && fields.code in errorCatalogue ? (fields.code as ErrorCode) : null;
  const message =
    typeof fields.message === 'string' ? fields.message : 'the neuron failed in the middle of its answer';
  return new AppError(code ?? 'internal_server_error', message);
}
