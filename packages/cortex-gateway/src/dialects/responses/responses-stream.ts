/**
 * The events of an answer -> a stream of the Responses API: created, in_progress, the items, and one of
 * completed, incomplete and failed. Every payload has its `type` and a `sequence_number` that counts from 0.
 *
 * Design: created goes out with upstream's first event, so that what fails before it can still be tried
 * elsewhere. An answer that breaks off ends in `error` and `response.failed`: OpenAI's client reads the one,
 * Codex the other. One that is made in the background is told as created and queued before anything else, and
 * ends in `response.incomplete` with the status `cancelled` when it is. What was read before a fault has been
 * sent by then: `push` returns it and the next call throws.
 */
import { type AppError, errorCatalogue } from 'cortex-core/wire/errors';
import type { ResponseObject } from 'cortex-core/wire/responses';
import { encodeSse, sseKeepAlive } from 'cortex-core/wire/sse';
import type { StreamOut } from '../dialect.ts';
import { ChatAnswerReader } from '../inner/chat-answer-reader.ts';
import { AnswerResponse, type AnswerResponseOptions } from './answer-response.ts';
import type { ResponseEvent } from './item-writer.ts';
import { inClientsWords } from './params.ts';

export interface ResponsesStreamOptions extends AnswerResponseOptions {
  /** Created and queued go out with the first push, also of no bytes. */
  readonly isQueued?: boolean;
  readonly onStart?: (response: ResponseObject) => void;
  /** Gets the response as it was sent last; not called when the client leaves before. */
  readonly onEnd: (response: ResponseObject) => void;
}

export class ResponsesStream implements StreamOut {
  readonly pingsDuringAnswer = true;
  readonly #reader = new ChatAnswerReader();
  readonly #answer: AnswerResponse;
  readonly #options: ResponsesStreamOptions;
  readonly #frames = new EventFrames();
  #isStarted = false;
  #isOver = false;

  constructor(options: ResponsesStreamOptions) {
    this.#answer = new AnswerResponse(options, (event) => this.#frames.add(event));
    this.#options = options;
    if (options.isQueued !== true) return;
    const { queued: response } = this.#answer;
    this.#frames.add({ type: 'response.created', response });
    this.#frames.add({ type: 'response.queued', response });
  }

  push(chunk: Uint8Array): Uint8Array {
    if (this.#answer.failure !== null) throw this.#answer.failure;
    if (this.#isOver) return new Uint8Array(0);
    for (const event of this.#reader.push(chunk)) {
      if (event.type === 'start') this.#start();
      this.#answer.take(event);
    }
    return this.#frames.flush();
  }

  end(): Uint8Array {
    if (this.#isOver) return new Uint8Array(0);
    for (const event of this.#reader.end()) this.#answer.take(event);
    const response = this.#answer.end();
    this.#end(response);
    return this.#frames.flush();
  }

  error(thrown: AppError): Uint8Array {
    if (this.#isOver) return new Uint8Array(0);
    this.#start();
    const error = inClientsWords(thrown);
    const { code, message, param } = error;
    const type = errorCatalogue[code].openaiType;
    // readers differ in where they look: in the event itself, or in its `error`
    this.#frames.add({ type: 'error', code, message, param, error: { type, code, message, param } });
    this.#end(this.#answer.failed(error));
    return this.#frames.flush();
  }

  /** Ends it where it is. */
  cancel(): Uint8Array {
    if (this.#isOver) return new Uint8Array(0);
    this.#start();
    this.#end(this.#answer.cancelled());
    return this.#frames.flush();
  }

  keepAlive(): Uint8Array {
    return Buffer.from(sseKeepAlive);
  }

  #start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    const { started: response } = this.#answer;
    if (this.#options.isQueued !== true) this.#frames.add({ type: 'response.created', response });
    this.#frames.add({ type: 'response.in_progress', response });
    this.#options.onStart?.(response);
  }

  #end(response: ResponseObject): void {
    this.#isOver = true;
    this.#frames.add({ type: endEventOf(response), response });
    this.#options.onEnd(response);
  }
}

/** No reader knows an event of its own for what was cancelled. */
export function endEventOf({ status }: ResponseObject): string {
  return status === 'cancelled' ? 'response.incomplete' : `response.${status}`;
}

/** Numbers events and makes bytes of them. */
export class EventFrames {
  #next = 0;
  #frames: string[] = [];

  add(event: ResponseEvent): void {
    const { type, ...rest } = event;
    this.#frames.push(encodeSse({ type, sequence_number: this.#next++, ...rest }, type));
  }

  flush(): Uint8Array {
    const bytes = Buffer.from(this.#frames.join(''));
    this.#frames = [];
    return bytes;
  }
}
