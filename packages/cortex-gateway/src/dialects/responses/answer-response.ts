/** The events of an answer -> its response, whole or while it comes. */
import { AppError } from 'cortex-core/wire/errors';
import type { ResponseObject } from 'cortex-core/wire/responses';
import type { AnswerEvent, AnswerUsage } from '../inner/answer-event.ts';
import type { SendEvent } from './item-writer.ts';
import { type OutputOptions, OutputWriter } from './output-writer.ts';
import {
  cancelledResponse,
  cutBy,
  failedResponse,
  queuedResponse,
  type ResponseHead,
  startedResponse,
  stoppedResponse,
  toResponseUsage,
} from './response-object.ts';

export interface AnswerResponseOptions extends OutputOptions {
  readonly head: ResponseHead;
  /** Seconds since the epoch. */
  readonly nowSecs: () => number;
  /** Where upstream tells no usage. */
  readonly inputTokensEstimate: number;
}

export class AnswerResponse {
  readonly #options: AnswerResponseOptions;
  readonly #output: OutputWriter;
  #failure: AppError | null = null;
  #stop: Extract<AnswerEvent, { readonly type: 'stop' }> | null = null;
  #usage: AnswerUsage | null = null;
  #items: ResponseObject['output'] | null = null;

  constructor(options: AnswerResponseOptions, send: SendEvent) {
    this.#options = options;
    this.#output = new OutputWriter(options, send);
  }

  get started(): ResponseObject {
    return startedResponse(this.#options.head);
  }

  get queued(): ResponseObject {
    return queuedResponse(this.#options.head);
  }

  /** Why the answer broke off; null = it did not so far. */
  get failure(): AppError | null {
    return this.#failure;
  }

  take(event: AnswerEvent): void {
    switch (event.type) {
      case 'start':
        this.#usage = {
          promptTokens: event.promptTokens ?? this.#options.inputTokensEstimate,
          cachedTokens: event.cachedTokens ?? 0,
          ...{ completionTokens: 0, reasoningTokens: 0 },
        };
        break;
      case 'usage':
        this.#usage = event.usage;
        break;
      case 'stop':
        this.#stop = event;
        this.#items = this.#output.close(cutBy(event.reason) !== null);
        break;
      case 'error':
        this.#failure = event.error;
        break;
      default:
        this.#output.take(event);
    }
  }

  /** Throws why there is no whole answer. */
  end(): ResponseObject {
    if (this.#failure !== null) throw this.#failure;
    if (this.#stop === null || this.#items === null) {
      throw new AppError(
        'upstream_malformed_response',
        'the neuron sent an answer without an end; try again',
      );
    }
    const { head, nowSecs } = this.#options;
    const end = { output: this.#items, usage: this.#usageSoFar(), completedAt: nowSecs() };
    return stoppedResponse(head, this.#stop.reason, end);
  }

  failed(error: AppError): ResponseObject {
    const output = this.#items ?? this.#output.broken();
    return failedResponse(this.#options.head, error, { output, usage: this.#usageSoFar() });
  }

  cancelled(): ResponseObject {
    const output = this.#items ?? this.#output.broken();
    return cancelledResponse(this.#options.head, { output, usage: this.#usageSoFar() });
  }

  #usageSoFar(): ResponseObject['usage'] {
    if (this.#usage === null) return null;
    const completionTokens = this.#usage.completionTokens || this.#output.pieces;
    return toResponseUsage({ ...this.#usage, completionTokens });
  }
}
