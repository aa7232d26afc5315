/**
 * Answers under way that an identical request may join instead of being run again.
 *
 * Problem: clients give up after minutes and send the same again; run twice, both are slower, and the next
 *          resend comes. But two people may ask the same thing, and someone may want two draws of one prompt.
 * Design:  joined is what has the same key, path, body and session, and shows that it is a resend: it names
 *          its session (headers of agents and SDKs), or says itself that it is a retry. One answer of several
 *          choices is never joined, and `x-cortex-attach: off` keeps a request to itself.
 * Limits:  bytes kept of one answer and of all together; beyond them an answer cannot be joined any more.
 */
import { createHash } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { AnswerSink, KeepRoom } from './answer-sink.ts';
import { sessionOf } from './session-header.ts';

export interface AttachmentsOptions {
  /** Of one answer; 0 = nothing is ever joined. */
  readonly answerBytesMax: number;
  /** Of all together. */
  readonly totalBytesMax: number;
}

/** Of SDKs: one call's, whatever session it is of. */
const onceHeader = 'idempotency-key';
/** Of OpenAI's and Anthropic's SDKs: 0 at first. */
const retryHeader = 'x-stainless-retry-count';

export interface AttachKey {
  readonly hash: string;
  /** It may be joined, but shows no sign of being a resend itself. */
  readonly isFirst: boolean;
}

export class Attachments {
  readonly #options: AttachmentsOptions;
  readonly #running = new Map<string, AnswerSink>();
  #keptBytes = 0;

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  /** Null when the request stands for itself. */
  keyOf(exchange: Exchange, body: Uint8Array): AttachKey | null {
    if (this.#options.answerBytesMax === 0 || exchange.header('x-cortex-attach') === 'off') return null;
    const session = exchange.header(onceHeader) || sessionOf((name) => exchange.header(name));
    const retries = exchange.header(retryHeader);
    if (session === null && retries === null) return null;
    const hash = createHash('sha256');
    const key = [exchange.header('authorization'), exchange.header('x-api-key')];
    hash.update(JSON.stringify([...key, exchange.path, session ?? '']));
    hash.update(body);
    return { hash: hash.digest('base64'), isFirst: session === null && !(Number(retries) > 0) };
  }

  /** The answer that such a request may join; null when there is none. */
  find({ hash, isFirst }: AttachKey): AnswerSink | null {
    const sink = isFirst ? undefined : this.#running.get(hash);
    return sink?.canJoin === true ? sink : null;
  }

  /** Until `remove`, others may join. */
  add({ hash }: AttachKey, sink: AnswerSink): void {
    this.#running.set(hash, sink);
  }

  remove({ hash }: AttachKey, sink: AnswerSink): void {
    if (this.#running.get(hash) === sink) this.#running.delete(hash);
  }

  /** What one answer may keep. */
  room(): KeepRoom {
    const { answerBytesMax, totalBytesMax } = this.#options;
    let own = 0;
    return {
      take: (bytes) => {
        if (own + bytes > answerBytesMax || this.#keptBytes + bytes > totalBytesMax) return false;
        own += bytes;
        this.#keptBytes += bytes;
        return true;
      },
      give: (bytes) => {
        own -= bytes;
        this.#keptBytes -= bytes;
      },
    };
  }
}
