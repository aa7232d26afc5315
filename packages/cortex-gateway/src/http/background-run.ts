/**
 * One response that is made without its client: it reads the answer in the client's place, and keeps the
 * events in a log for whoever asks for them. Why it ended is in the response and in the last event.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { type AppError, toAppError } from 'cortex-core/wire/errors';
import type { ResponseObject } from 'cortex-core/wire/responses';
import type { InferenceRequest, StreamOut } from '../dialects/dialect.ts';
import { type BackgroundResponse, responsesWire } from '../dialects/responses/responses.ts';
import type { ResponsesStream } from '../dialects/responses/responses-stream.ts';
import type { StoredResponse } from '../dialects/responses/store-face.ts';
import type { Principal } from '../quota/principals.ts';
import { type AnswerReader, AnswerSink } from './answer-sink.ts';
import { EventLog } from './event-log.ts';
import { InferenceCall } from './inference.ts';
import type { InferenceDeps } from './inference-deps.ts';
import type { CallerShelf } from './response-store.ts';

export interface BackgroundRequest {
  /** Who asked; nobody listens there once it runs. */
  readonly exchange: Exchange;
  readonly principal: Principal;
  /** Whose it is, and where it is kept when it has ended. */
  readonly owner: string;
  readonly shelf: CallerShelf;
  readonly background: BackgroundResponse;
  readonly request: InferenceRequest;
  /** What another sending of this request has too; null = it stands for itself. */
  readonly sentAs: string | null;
  /** The request as it may go better after that error; null = it would not. */
  readonly again: (error: AppError) => InferenceRequest | null;
}

const cancelled = Symbol('cancelled');
const nothing = new Uint8Array(0);

export class BackgroundRun {
  readonly log: EventLog;
  readonly #deps: InferenceDeps;
  readonly #asked: BackgroundRequest;
  readonly #stop = new AbortController();
  readonly #stream: ResponsesStream;
  readonly #out: StreamOut;
  #response: ResponseObject;
  #route: string | null = null;
  /** `waits`: whoever asked is told what refuses it. */
  #state: 'waits' | 'runs' | 'forgotten' = 'waits';
  #refusal: unknown = null;
  #ended: Promise<void> | null = null;

  constructor(deps: InferenceDeps, asked: BackgroundRequest, eventCharsMax: number) {
    const { background, request, exchange } = asked;
    this.#deps = deps;
    this.#asked = asked;
    this.log = new EventLog(eventCharsMax);
    this.#response = background.queued;
    const note = (response: ResponseObject): void => {
      this.#response = response;
    };
    const stream = background.toStream({ onStart: note, onEnd: note });
    const out: StreamOut = {
      push: (chunk) => stream.push(chunk),
      end: () => stream.end(),
      error: (error) => stream.error(error),
      // whoever reads the log is kept alive there
      keepAlive: () => nothing,
      pingsDuringAnswer: false,
    };
    const dialect = { ...responsesWire, parse: () => request };
    this.#stream = stream;
    this.#out = deps.streamChecks.begin(dialect, exchange.requestId)(out);
  }

  get owner(): string {
    return this.#asked.owner;
  }

  get sentAs(): string | null {
    return this.#asked.sentAs;
  }

  /** Nothing refused it at once, and nobody has deleted it. */
  get isAccepted(): boolean {
    return this.#state === 'runs';
  }

  get isStreamed(): boolean {
    return this.#asked.background.isStreamed;
  }

  get isForgotten(): boolean {
    return this.#state === 'forgotten';
  }

  /** As it is now. */
  get stored(): StoredResponse {
    return { response: this.#response, input: this.#asked.background.input };
  }

  /** Where it went and why, as far as that is known. */
  get route(): string | null {
    return this.#route;
  }

  /** Resolves when it has ended, however it did. */
  run(): Promise<void> {
    this.#ended ??= this.#run();
    return this.#ended;
  }

  /** From here on what fails is a failed response. Throws what has refused it. */
  accept(): void {
    if (this.#refusal !== null) throw this.#refusal;
    this.#state = 'runs';
  }

  /** Ends it with the response as far as it came; resolves when that is kept. */
  cancel(): Promise<void> {
    this.#stop.abort(cancelled);
    return this.run();
  }

  /** Ends it and keeps nothing of it. */
  forget(): void {
    this.#state = 'forgotten';
    this.#stop.abort(cancelled);
  }

  fail(error: AppError): Promise<void> {
    this.#stop.abort(error);
    return this.run();
  }

  async #run(): Promise<void> {
    // created and queued
    this.#tell(this.#out.push(nothing));
    for (let request: InferenceRequest | null = this.#asked.request; request !== null; ) {
      const failure = await this.#once(request);
      request = failure === null ? null : this.#after(failure);
    }
    this.#keep();
    this.log.end();
  }

  /** Null when the answer has ended, with an error or not; else why it never began, or was stopped. */
  async #once(request: InferenceRequest): Promise<unknown> {
    const { exchange, principal } = this.#asked;
    const reader = this.#reader();
    const sink = new AnswerSink(this.#deps.clock, reader, null);
    const parts = {
      ...{ exchange, principal, sink },
      // it is checked here, over all tries
      dialect: { name: responsesWire.name, parse: () => request },
      request: { ...request, streamOut: () => this.#out },
    };
    try {
      const call = new InferenceCall(this.#deps, parts);
      const read = sink.read(reader);
      void call.run().catch((thrown: unknown) => sink.fail(thrown));
      await read;
      return null;
    } catch (thrown) {
      return thrown;
    }
  }

  /** The next try; null = there is none, and the failure is told. */
  #after(failure: unknown): InferenceRequest | null {
    if (this.#stop.signal.aborted && this.#stop.signal.reason === cancelled) {
      this.#tell(this.#stream.cancel());
      return null;
    }
    const error = toAppError(failure);
    const isNew = this.#response.status === 'queued' && !this.#stop.signal.aborted;
    try {
      const again = isNew ? this.#asked.again(error) : null;
      if (again !== null) return again;
      this.#refuse(failure);
    } catch (thrown) {
      // what it goes on from was deleted meanwhile
      this.#refuse(thrown);
    }
    return null;
  }

  #refuse(cause: unknown): void {
    if (this.#state === 'waits') this.#refusal = cause;
    this.#tell(this.#out.error(toAppError(cause)));
  }

  /** Events that nobody may read are not kept. */
  #tell(events: Uint8Array): void {
    if (this.isStreamed) this.log.add(events);
  }

  #keep(): void {
    if (this.#refusal !== null || this.#state === 'forgotten') return;
    this.#asked.shelf.put(this.stored, this.isStreamed ? this.log.from(0) : null);
  }

  /** Takes everything at once. */
  #reader(): AnswerReader {
    return {
      signal: this.#stop.signal,
      response: {
        writableLength: 0,
        writableNeedDrain: false,
        setHeader: (name, value) => {
          if (name === 'x-cortex-route') this.#route = value;
        },
        writeHead: () => {},
        flushHeaders: () => {},
        write: (bytes) => {
          this.#tell(bytes);
          return true;
        },
        end: (bytes = nothing) => this.#tell(bytes),
        destroy: () => {},
        once: () => {},
        off: () => {},
      },
    };
  }
}
