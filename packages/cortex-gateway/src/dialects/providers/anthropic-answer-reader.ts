/**
 * A provider's Messages answer -> events, whole or as SSE bytes in any chunking. As `ChatAnswerReader`: what
 * comes out keeps the grammar whatever went in, and a stream that ends before `message_stop` ends in an
 * `error` event. Blocks of kinds that have no place in a chat answer (redacted thinking, tools that the
 * provider runs itself) are passed over.
 */
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import type { AnswerEvent, AnswerUsage, StopReason } from '../inner/answer-event.ts';
import { parsePiece } from '../inner/chat-piece.ts';
import type { JsonObject } from '../request-body.ts';
import { objectOf } from '../wire-grammar/wire-grammar.ts';
import { malformed, toProviderFault } from './provider-error.ts';

/** More calls than this in one answer is no answer. */
const callsMax = 4096;

type Block =
  | { readonly type: 'text' | 'reasoning' | 'other' }
  | { readonly type: 'call'; readonly call: number; readonly input: JsonObject; hasInput: boolean };

export class AnthropicAnswerReader {
  readonly #parser = new SseParser();
  readonly #answer = new MessageReader();
  #failed = false;

  /** `message_stop` was read. */
  get finished(): boolean {
    return this.#answer.finished;
  }

  /** The events that this chunk completed. After an `error` event there are none. */
  push(chunk: Uint8Array): AnswerEvent[] {
    return this.#guarded((out) => {
      for (const event of this.#parser.push(chunk)) {
        // behind the end the answer is whole, whatever still comes
        if (!this.finished) this.#answer.take(readEvent(event.data), out);
      }
    });
  }

  /** Upstream ended. An answer that has not stopped yields an `error` event. */
  end(): AnswerEvent[] {
    return this.#guarded(() => {
      if (this.finished) return;
      throw new AppError(
        'upstream_connection_error',
        'the answer broke off before it was complete; try again',
      );
    });
  }

  #guarded(read: (out: AnswerEvent[]) => void): AnswerEvent[] {
    const out: AnswerEvent[] = [];
    if (this.#failed || this.finished) return out;
    try {
      read(out);
    } catch (thrown) {
      this.#failed = true;
      const error = thrown instanceof AppError ? thrown : malformed('a stream that cannot be read');
      out.push({ type: 'error', error });
    }
    return out;
  }
}

/** The events of a whole message. Throws AppError where there is none. */
export function readAnthropicAnswer(body: Uint8Array): AnswerEvent[] {
  const message = readEvent(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  if (message.type === 'error') throw toProviderFault(message.error);
  if (!Array.isArray(message.content)) throw malformed('a message without content');
  const reader = new MessageReader();
  const out: AnswerEvent[] = [];
  reader.take({ type: 'message_start', message }, out);
  for (const [index, value] of message.content.entries()) {
    const block = objectOf(value) ?? {};
    reader.take({ type: 'content_block_start', index, content_block: block }, out);
    reader.take({ type: 'content_block_stop', index }, out);
  }
  const { stop_reason, stop_sequence, usage } = message;
  reader.take({ type: 'message_delta', delta: { stop_reason, stop_sequence }, usage }, out);
  reader.take({ type: 'message_stop' }, out);
  return out;
}

function readEvent(text: string): JsonObject {
  try {
    return parsePiece(text) as JsonObject;
  } catch {
    throw malformed('something that is not a message');
  }
}

class MessageReader {
  finished = false;
  #started = false;
  #usage: AnswerUsage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, reasoningTokens: 0 };
  #stop: Extract<AnswerEvent, { readonly type: 'stop' }> | null = null;
  #calls = 0;
  readonly #ids = new Set<string>();
  readonly #open = new Map<unknown, Block>();

  take(event: JsonObject, out: AnswerEvent[]): void {
    if (this.finished) return;
    if (event.type === 'error') throw toProviderFault(event.error);
    if (event.type === 'ping' || typeof event.type !== 'string') return;
    if (event.type === 'message_start') {
      this.#start(objectOf(event.message) ?? {}, out);
      return;
    }
    if (!this.#started) throw malformed('an answer without a beginning');
    // behind the stop reason only the end is read
    if (this.#stop !== null && event.type !== 'message_stop') return;
    switch (event.type) {
      case 'content_block_start':
        this.#openBlock(event.index, objectOf(event.content_block) ?? {}, out);
        break;
      case 'content_block_delta':
        this.#delta(event.index, objectOf(event.delta) ?? {}, out);
        break;
      case 'content_block_stop':
        this.#closeBlock(event.index, out);
        break;
      case 'message_delta':
        this.#messageDelta(event);
        break;
      case 'message_stop':
        this.#end(out);
        break;
      default:
      // a later version's event
    }
  }

  #start(message: JsonObject, out: AnswerEvent[]): void {
    if (this.#started) throw malformed('a second beginning');
    this.#started = true;
    this.#count(message.usage);
    const { promptTokens, cachedTokens } = this.#usage;
    const isTold = promptTokens > 0;
    const id = typeof message.id === 'string' ? message.id : null;
    out.push({
      type: 'start',
      id,
      promptTokens: isTold ? promptTokens : null,
      cachedTokens: isTold ? cachedTokens : null,
    });
  }

  #openBlock(index: unknown, block: JsonObject, out: AnswerEvent[]): void {
    if (this.#open.has(index)) throw malformed('a block that opens twice');
    if (block.type === 'tool_use') {
      this.#open.set(index, this.#openCall(block, out));
      return;
    }
    const type = block.type === 'text' ? 'text' : block.type === 'thinking' ? 'reasoning' : 'other';
    this.#open.set(index, { type });
    if (type !== 'other') this.#text(type, type === 'text' ? block.text : block.thinking, out);
  }

  #openCall({ id: given, name, input }: JsonObject, out: AnswerEvent[]): Block {
    if (typeof name !== 'string' || name === '') throw malformed('a call without a name');
    if (this.#calls >= callsMax) throw malformed(`more than ${callsMax} calls`);
    const call = this.#calls++;
    const isGood = typeof given === 'string' && given !== '' && !this.#ids.has(given);
    const id = isGood ? given : `call_${this.#ids.size}_${call}`;
    this.#ids.add(id);
    out.push({ type: 'call_start', index: call, id, name });
    return { type: 'call', call, input: objectOf(input) ?? {}, hasInput: false };
  }

  #delta(index: unknown, delta: JsonObject, out: AnswerEvent[]): void {
    const block = this.#open.get(index);
    if (block === undefined) throw malformed('a piece of a block that is not open');
    if (block.type === 'call') {
      if (delta.type !== 'input_json_delta' || typeof delta.partial_json !== 'string') return;
      if (delta.partial_json === '') return;
      block.hasInput = true;
      out.push({ type: 'call_arguments', index: block.call, text: delta.partial_json });
    } else if (block.type === 'text' && delta.type === 'text_delta') this.#text('text', delta.text, out);
    else if (block.type === 'reasoning' && delta.type === 'thinking_delta') {
      this.#text('reasoning', delta.thinking, out);
    }
  }

  /** Text has no place inside an open call: what interleaves is no answer of this API. */
  #text(type: 'text' | 'reasoning', text: unknown, out: AnswerEvent[]): void {
    if (typeof text !== 'string' || text === '') return;
    if ([...this.#open.values()].some((each) => each.type === 'call')) throw malformed('text inside a call');
    out.push({ type, text });
  }

  #closeBlock(index: unknown, out: AnswerEvent[]): void {
    const block = this.#open.get(index);
    if (block === undefined) throw malformed('the end of a block that is not open');
    this.#open.delete(index);
    if (block.type !== 'call') return;
    if (!block.hasInput) {
      out.push({ type: 'call_arguments', index: block.call, text: JSON.stringify(block.input) });
    }
    out.push({ type: 'call_stop', index: block.call });
  }

  #messageDelta({ delta, usage }: JsonObject): void {
    this.#count(usage);
    const { stop_reason: reason, stop_sequence: stopText } = objectOf(delta) ?? {};
    if (typeof reason !== 'string') return;
    this.#stop = {
      type: 'stop',
      reason: toStopReason(reason, this.#calls > 0),
      stopText: reason === 'stop_sequence' && typeof stopText === 'string' ? stopText : null,
    };
  }

  #end(out: AnswerEvent[]): void {
    if (this.#stop === null) throw malformed('an answer without a reason for its end');
    for (const index of [...this.#open.keys()]) this.#closeBlock(index, out);
    this.finished = true;
    out.push(this.#stop);
    if (this.#usage.promptTokens + this.#usage.completionTokens > 0) {
      out.push({ type: 'usage', usage: this.#usage });
    }
  }

  /** The counts are totals so far; what a later event leaves out stays. */
  #count(value: unknown): void {
    const usage = objectOf(value);
    if (usage === null) return;
    const { promptTokens, cachedTokens, completionTokens } = this.#usage;
    const isTold = typeof usage.input_tokens === 'number';
    const cached = count(usage.cache_read_input_tokens);
    const prompt = count(usage.input_tokens) + cached + count(usage.cache_creation_input_tokens);
    this.#usage = {
      promptTokens: isTold ? Math.max(prompt, promptTokens) : promptTokens,
      cachedTokens: isTold ? Math.max(cached, cachedTokens) : cachedTokens,
      completionTokens: Math.max(completionTokens, count(usage.output_tokens)),
      reasoningTokens: 0,
    };
  }
}

function toStopReason(reason: string, called: boolean): StopReason {
  switch (reason) {
    case 'max_tokens':
      return 'length';
    case 'model_context_window_exceeded':
      return 'context_full';
    case 'stop_sequence':
      return 'stop_text';
    case 'refusal':
      return 'refusal';
    case 'tool_use':
      return called ? 'calls' : 'end';
    default:
      return 'end';
  }
}

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? Math.floor(value) : 0;
}
