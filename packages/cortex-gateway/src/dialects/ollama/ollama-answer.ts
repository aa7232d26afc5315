/**
 * Events of an answer -> Ollama's lines of JSON, for chat and for generate, streamed and whole.
 *
 * Calls come whole, when their arguments are. `done: true` comes once, behind everything else, and only when
 * the answer stopped; one that fails ends in a line `{"error": ...}`.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { OllamaDoneReason } from 'cortex-core/wire/ollama';
import type { StreamOut } from '../dialect.ts';
import type { AnswerEvent, AnswerUsage, StopReason } from '../inner/answer-event.ts';
import { ChatAnswerReader } from '../inner/chat-answer-reader.ts';
import { malformed } from '../inner/chat-piece.ts';
import { readArguments } from '../partial-json.ts';
import type { JsonObject } from '../request-body.ts';
import { AnswerFacts } from './answer-facts.ts';

export type OllamaShape = 'chat' | 'generate';

interface Call {
  readonly id: string;
  readonly name: string;
  text: string;
}

export const ndjsonHeaders = {
  'content-type': 'application/x-ndjson',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
} as const;

/** What an answer has said so far, and its frames. */
class Answer {
  readonly #model: string;
  readonly #shape: OllamaShape;
  readonly facts = new AnswerFacts();
  readonly #calls = new Map<number, Call>();
  /** Of calls: clients count from 0 what they get. */
  #shown = 0;
  /** The name of a call whose arguments are no object; null = there was none. */
  #unread: string | null = null;
  #usage: AnswerUsage | null = null;
  #stop: StopReason | null = null;

  constructor(model: string, shape: OllamaShape) {
    this.#model = model;
    this.#shape = shape;
  }

  /** The frame that the event completes; null = none. Throws what an `error` event carries. */
  take(event: AnswerEvent): JsonObject | null {
    switch (event.type) {
      case 'start':
        return null;
      case 'text':
        return this.part({ text: event.text });
      case 'reasoning':
        return this.part({ thinking: event.text });
      case 'call_start':
        this.#calls.set(event.index, { id: event.id, name: event.name, text: '' });
        return null;
      case 'call_arguments': {
        const call = this.#calls.get(event.index);
        if (call !== undefined) call.text += event.text;
        return null;
      }
      case 'call_stop':
        return this.#callFrame(event.index);
      case 'usage':
        this.#usage = event.usage;
        return null;
      case 'stop':
        this.#stop = event.reason;
        return null;
      case 'error':
        throw event.error;
      default:
        return event satisfies never;
    }
  }

  part({ text = '', thinking, calls }: Part): JsonObject {
    return { ...this.#head(), ...this.#body({ text, thinking, calls }), done: false };
  }

  /** Throws when the answer has not stopped, or is not all here though nothing cut it. */
  last(part: Part = {}): JsonObject {
    if (this.#stop === null) {
      throw new AppError(
        'upstream_connection_error',
        'the answer broke off before it was complete; try again',
      );
    }
    if (this.#stop === 'calls' && this.#unread !== null) {
      throw malformed(`a call of "${this.#unread}" whose arguments are no JSON object`);
    }
    const usage = this.#usage;
    return {
      ...this.#head(),
      ...this.#body(part),
      done: true,
      done_reason: doneReasonOf(this.#stop),
      ...this.facts.durations,
      ...(usage === null
        ? {}
        : { prompt_eval_count: usage.promptTokens, eval_count: usage.completionTokens }),
    };
  }

  #head(): JsonObject {
    return { model: this.#model, created_at: this.facts.createdAt };
  }

  #body({ text = '', thinking, calls }: Part): JsonObject {
    const more = {
      ...(thinking === undefined || thinking === '' ? {} : { thinking }),
      ...(calls === undefined || calls.length === 0 ? {} : { tool_calls: calls }),
    };
    if (this.#shape === 'generate') return { response: text, ...more };
    return { message: { role: 'assistant', content: text, ...more } };
  }

  #callFrame(index: number): JsonObject | null {
    const call = this.#calls.get(index);
    const made = call === undefined ? null : toCall(call, this.#shown);
    if (made === null) {
      this.#unread ??= call?.name ?? null;
      return null;
    }
    this.#shown++;
    return this.part({ calls: [made] });
  }
}

interface Part {
  readonly text?: string | undefined;
  readonly thinking?: string | undefined;
  readonly calls?: readonly JsonObject[] | undefined;
}

export class OllamaStream implements StreamOut {
  readonly pingsDuringAnswer = true;
  readonly headers = ndjsonHeaders;
  readonly #reader = new ChatAnswerReader();
  readonly #answer: Answer;
  #failure: AppError | null = null;
  #over = false;

  /** `model`: as the client spelled it. */
  constructor(model: string, shape: OllamaShape) {
    this.#answer = new Answer(model, shape);
  }

  push(chunk: Uint8Array): Uint8Array {
    if (this.#over) return new Uint8Array(0);
    if (this.#failure !== null) throw this.#failure;
    this.#answer.facts.push(chunk);
    const bytes = this.#write(this.#reader.push(chunk));
    if (this.#failure !== null && bytes.length === 0) throw this.#failure;
    return bytes;
  }

  end(): Uint8Array {
    if (this.#over) return new Uint8Array(0);
    const rest = this.#write(this.#reader.end());
    if (this.#failure !== null) throw this.#failure;
    const last = toLine(this.#answer.last());
    this.#over = true;
    return Buffer.concat([rest, last]);
  }

  error(error: AppError): Uint8Array {
    this.#over = true;
    return toLine({ error: error.message });
  }

  /** A part without text: every client adds it to what it has. Lines that are empty break some. */
  keepAlive(): Uint8Array {
    return this.#over ? new Uint8Array(0) : toLine(this.#answer.part({}));
  }

  /** What stands before a fault goes out; the next call throws it. */
  #write(events: readonly AnswerEvent[]): Uint8Array {
    const lines = events.flatMap((event) => {
      if (event.type === 'error') {
        this.#failure = event.error;
        return [];
      }
      const frame = this.#answer.take(event);
      return frame === null ? [] : [toLine(frame)];
    });
    return Buffer.concat(lines);
  }
}

/** One object for a whole answer; `data` is its JSON, of which the times are read. */
export function toWholeAnswer(
  model: string,
  shape: OllamaShape,
  data: string,
  events: readonly AnswerEvent[],
): JsonObject {
  const answer = new Answer(model, shape);
  answer.facts.take(data);
  const texts: string[] = [];
  const thoughts: string[] = [];
  const calls: JsonObject[] = [];
  for (const event of events) {
    const frame = answer.take(event);
    if (event.type === 'text') texts.push(event.text);
    else if (event.type === 'reasoning') thoughts.push(event.text);
    else if (frame !== null) calls.push(...callsOf(frame));
  }
  return answer.last({ text: texts.join(''), thinking: thoughts.join(''), calls });
}

function callsOf(frame: JsonObject): readonly JsonObject[] {
  const holder = (frame.message ?? frame) as { readonly tool_calls?: readonly JsonObject[] };
  return holder.tool_calls ?? [];
}

export function toLine(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

/** Null where the arguments are no object: Ollama's are one, and half of one is none. */
function toCall({ id, name, text }: Call, index: number): JsonObject | null {
  const given = readArguments(text);
  return given === null ? null : { id, function: { index, name, arguments: given } };
}

function doneReasonOf(reason: StopReason): OllamaDoneReason {
  return reason === 'length' || reason === 'context_full' ? 'length' : 'stop';
}
