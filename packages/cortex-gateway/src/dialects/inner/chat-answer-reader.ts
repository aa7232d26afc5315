/**
 * A neuron's chat answer, or its raw completion -> events, whole or as SSE bytes in any chunking.
 *
 * Problem: chat chunks say where a call begins and never where it ends, engines may interleave calls, leave
 * out an index or an id, and a stream may end anywhere.
 * Design: a call ends where text follows, where the answer stops, or where the next call begins and its
 * arguments are one whole JSON value. A stream that ends without a finish reason ends in an `error` event,
 * and so does one whose call ends inside its arguments though nothing says that the answer was cut: readers
 * mend such JSON and run what is left of the call. Such a call is never stopped.
 * What follows the finish reason, apart from usage, is none of the answer.
 */
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import { isCutJson } from '../partial-json.ts';
import { toAnswerError } from '../upstream-error.ts';
import type { AnswerEvent } from './answer-event.ts';
import {
  type ChatPiece,
  type ChatPieceCall,
  type ChatPieceMessage,
  choiceOf,
  malformed,
  parsePiece,
  toAnswerUsage,
  toStop,
} from './chat-piece.ts';

/** More calls than this in one answer is no answer. */
const callsMax = 4096;

interface ReadCall {
  readonly id: string;
  name: string;
  arguments: string;
  /** Its name has come. */
  started: boolean;
  stopped: boolean;
}

export class ChatAnswerReader {
  readonly #parser = new SseParser();
  readonly #pieces = new PieceReader();

  /** The events that this chunk completed. After an `error` event there are none. */
  push(chunk: Uint8Array): AnswerEvent[] {
    return this.#guarded((out) => {
      for (const event of this.#parser.push(chunk)) {
        if (event.data !== '[DONE]') this.#pieces.take(parsePiece(event.data), out);
      }
    });
  }

  /** Upstream ended. An answer that has not stopped yields an `error` event. */
  end(): AnswerEvent[] {
    return this.#guarded(() => this.#pieces.end());
  }

  #guarded(read: (out: AnswerEvent[]) => void): AnswerEvent[] {
    const out: AnswerEvent[] = [];
    if (this.#pieces.failed) return out;
    try {
      read(out);
    } catch (thrown) {
      this.#pieces.failed = true;
      const error = thrown instanceof AppError ? thrown : malformed('a stream that cannot be read');
      // behind the stop the answer is whole, whatever still goes wrong
      if (!this.#pieces.stopped) out.push({ type: 'error', error });
    }
    return out;
  }
}

/** The events of a whole answer. Throws AppError where there is none. */
export function readChatAnswer(body: Uint8Array): AnswerEvent[] {
  const piece = parsePiece(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  const choice = choiceOf(piece);
  if (piece.error === undefined && choice === null) throw malformed('an answer without a choice');
  const reader = new PieceReader();
  const out: AnswerEvent[] = [];
  const calls = choice?.message?.tool_calls?.map((call, index) => ({ ...call, index }));
  const delta = { ...choice?.message, ...(calls === undefined ? {} : { tool_calls: calls }) };
  reader.take({ ...piece, choices: [{ ...choice, index: 0, delta }] }, out);
  reader.end();
  return out;
}

class PieceReader {
  failed = false;
  stopped = false;
  #started = false;
  #answerId = '';
  #refused = false;
  readonly #calls: ReadCall[] = [];
  /** Upstream's index of a call -> ours. */
  readonly #places = new Map<number, number>();

  take(piece: ChatPiece, out: AnswerEvent[]): void {
    if (piece.error !== undefined && piece.error !== null) throw toAnswerError(piece);
    const usage = piece.usage ? toAnswerUsage(piece.usage) : null;
    const isFirst = !this.#started;
    if (isFirst) {
      this.#started = true;
      const id = typeof piece.id === 'string' ? piece.id : null;
      this.#answerId = id ?? '';
      const { promptTokens = null, cachedTokens = null } = usage ?? {};
      out.push({ type: 'start', id, promptTokens, cachedTokens });
    }
    const choice = choiceOf(piece);
    if (choice !== null && !this.stopped) {
      if (choice.delta) this.#delta(choice.delta, out);
      this.#text('text', choice.text, out);
      if (typeof choice.finish_reason === 'string') {
        const told = toStop(choice, this.#calls.length > 0);
        const stop = this.#refused ? { ...told, reason: 'refusal' as const } : told;
        this.#stopCalls(out, stop.reason !== 'calls');
        out.push({ type: 'stop', ...stop });
        this.stopped = true;
      }
    }
    // the prompt's count in the first chunk is part of the start
    const isStartOnly = isFirst && !this.stopped && usage?.completionTokens === 0;
    if (usage !== null && !isStartOnly) out.push({ type: 'usage', usage });
  }

  /** Throws where the answer has not stopped. */
  end(): void {
    if (this.stopped) return;
    throw new AppError('upstream_connection_error', 'the answer broke off before it was complete; try again');
  }

  #delta(delta: ChatPieceMessage, out: AnswerEvent[]): void {
    this.#text('reasoning', delta.reasoning_content ?? delta.reasoning, out);
    this.#text('text', delta.content, out);
    if (typeof delta.refusal === 'string' && delta.refusal !== '') {
      this.#refused = true;
      this.#text('text', delta.refusal, out);
    }
    if (!Array.isArray(delta.tool_calls)) return;
    for (const call of delta.tool_calls) if (call) this.#call(call, out);
  }

  #text(type: 'reasoning' | 'text', text: unknown, out: AnswerEvent[]): void {
    if (typeof text !== 'string' || text === '') return;
    this.#stopCalls(out, false);
    out.push({ type, text });
  }

  #call(piece: ChatPieceCall, out: AnswerEvent[]): void {
    const index = this.#placeOf(piece);
    const call = this.#calls[index] ?? this.#open(index, piece, out);
    const { name, arguments: given } = piece.function ?? {};
    const text = typeof given === 'string' ? given : given ? JSON.stringify(given) : '';
    if (call.stopped) {
      if (text.trim() === '') return;
      throw malformed('more arguments for a call that had ended');
    }
    call.arguments += text;
    if (!call.started && typeof name === 'string' && name !== '') {
      call.name = name;
      call.started = true;
      out.push({ type: 'call_start', index, id: call.id, name });
      if (call.arguments !== '') out.push({ type: 'call_arguments', index, text: call.arguments });
    } else if (call.started && text !== '') out.push({ type: 'call_arguments', index, text });
  }

  /** Ours counts up. Without an index a new id begins a call; what has neither goes on with the last. */
  #placeOf(piece: ChatPieceCall): number {
    const last = this.#calls.length - 1;
    if (typeof piece.index !== 'number') {
      const known = this.#calls.findIndex(({ id }) => id === piece.id);
      if (known !== -1) return known;
      return typeof piece.id === 'string' || last === -1 ? last + 1 : last;
    }
    const place = this.#places.get(piece.index) ?? last + 1;
    this.#places.set(piece.index, place);
    return place;
  }

  #open(index: number, piece: ChatPieceCall, out: AnswerEvent[]): ReadCall {
    if (index >= callsMax) throw malformed(`more than ${callsMax} calls`);
    const before = this.#calls[index - 1];
    if (before !== undefined && !before.started) throw malformed('a call without a name');
    for (const [at, each] of this.#calls.entries()) {
      if (!each.stopped && isWholeJson(each.arguments)) this.#stopCall(at, each, out);
    }
    const given = typeof piece.id === 'string' && piece.id !== '' ? piece.id : null;
    const taken = given === null || this.#calls.some(({ id }) => id === given);
    const id = taken ? `call_${this.#answerId.replace(/\W/g, '').slice(-24)}_${index}` : given;
    const call = { id, name: '', arguments: '', started: false, stopped: false };
    this.#calls[index] = call;
    return call;
  }

  /** `mayBeCut`: the answer itself says that it ends before its end. */
  #stopCalls(out: AnswerEvent[], mayBeCut: boolean): void {
    for (const [index, call] of this.#calls.entries()) {
      if (call.stopped) continue;
      if (call.started && !mayBeCut && isCutJson(call.arguments)) {
        throw malformed(`a call of "${call.name}" that ends in the middle of its arguments`);
      }
      this.#stopCall(index, call, out);
    }
  }

  #stopCall(index: number, call: ReadCall, out: AnswerEvent[]): void {
    if (!call.started) throw malformed('a call without a name');
    call.stopped = true;
    out.push({ type: 'call_stop', index });
  }
}

function isWholeJson(text: string): boolean {
  if (!text.trimEnd().endsWith('}')) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
