/** A neuron's raw completion -> the events of an answer; as ChatAnswerReader does with chat. */
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import type { AnswerEvent } from '../inner/answer-event.ts';
import { type ChatPiece, choiceOf, parsePiece, toAnswerUsage, toStop } from '../inner/chat-piece.ts';
import { toAnswerError } from '../upstream-error.ts';

export class TextAnswerReader {
  readonly #parser = new SseParser();
  #started = false;
  #stopped = false;
  #failed = false;

  push(chunk: Uint8Array): AnswerEvent[] {
    return this.#guarded((out) => {
      for (const { data } of this.#parser.push(chunk)) {
        if (data !== '[DONE]') this.#take(parsePiece(data), out);
      }
    });
  }

  end(): AnswerEvent[] {
    return this.#guarded(() => {
      if (!this.#stopped) throw brokeOff();
    });
  }

  #guarded(read: (out: AnswerEvent[]) => void): AnswerEvent[] {
    const out: AnswerEvent[] = [];
    if (this.#failed) return out;
    try {
      read(out);
    } catch (thrown) {
      this.#failed = true;
      const error = thrown instanceof AppError ? thrown : brokeOff();
      if (!this.#stopped) out.push({ type: 'error', error });
    }
    return out;
  }

  #take(piece: ChatPiece, out: AnswerEvent[]): void {
    if (piece.error !== undefined && piece.error !== null) throw toAnswerError(piece);
    if (!this.#started) {
      this.#started = true;
      const id = typeof piece.id === 'string' ? piece.id : null;
      out.push({ type: 'start', id, promptTokens: null, cachedTokens: null });
    }
    const choice = choiceOf(piece);
    if (choice !== null && !this.#stopped) {
      const { text } = choice as { readonly text?: unknown };
      if (typeof text === 'string' && text !== '') out.push({ type: 'text', text });
      if (typeof choice.finish_reason === 'string') {
        this.#stopped = true;
        out.push({ type: 'stop', ...toStop(choice, false) });
      }
    }
    if (piece.usage) out.push({ type: 'usage', usage: toAnswerUsage(piece.usage) });
  }
}

/** The events of a whole one. Throws AppError where there is none. */
export function readTextAnswer(body: Uint8Array): AnswerEvent[] {
  const data = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8').trim();
  const reader = new TextAnswerReader();
  const events = [...reader.push(Buffer.from(`data: ${data}\n\n`)), ...reader.end()];
  const failed = events.find((event) => event.type === 'error');
  if (failed !== undefined) throw failed.error;
  return events;
}

function brokeOff(): AppError {
  return new AppError('upstream_connection_error', 'the answer broke off before it was complete; try again');
}
