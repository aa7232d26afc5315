/**
 * One request whose answer comes in pieces. It ends when its client leaves, or when the other side has been
 * silent for too long; how long it takes in all is not limited.
 *
 * The answer is read by hand rather than through generators: there is one of these for every open stream, and
 * a gateway holds thousands.
 */
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';

export interface Watched {
  readonly signal?: AbortSignal | undefined;
  /** Silence after which the request fails; null = it never does. */
  readonly idleMs: number | null;
  /** Asked when the silence is over: true waits on. */
  readonly stillAlive?: () => boolean;
  /** Only a line that ends breaks the silence, as in a stream of events: single bytes may be none ever. */
  readonly byLines?: boolean;
}

const lineEnd = '\n'.charCodeAt(0);

export interface CallPeer {
  readonly clock: Clock;
  readonly name: string;
  /** What a failed connection is called. */
  readonly toError: (cause: unknown) => AppError;
}

interface Reader {
  readonly resolve: (result: IteratorResult<Buffer, undefined>) => void;
  readonly reject: (reason: unknown) => void;
}

export interface CallHead {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
}

/** Its chunks can be read once. */
export class WatchedCall implements AsyncIterableIterator<Buffer, undefined, undefined> {
  readonly #peer: CallPeer;
  readonly #watched: Watched;
  #sent: ClientRequest | null = null;
  #answer: IncomingMessage | null = null;
  #onHead: { resolve(head: CallHead): void; reject(reason: unknown): void } | null = null;
  #reader: Reader | null = null;
  /** Set by `stop`, whose reason may be anything. */
  #stopped: { readonly reason: unknown } | null = null;
  #isOver = false;
  #lastMs: number;
  #timer: { cancel(): void } | null = null;
  /** The chunk that is with its reader, and since when: what comes behind it is not waited for meanwhile. */
  #held: { readonly sinceMs: number; readonly isLife: boolean } | null = null;

  /** Nothing happens before `open`. */
  constructor(peer: CallPeer, watched: Watched) {
    this.#peer = peer;
    this.#watched = watched;
    this.#lastMs = peer.clock.monotonicMs();
  }

  /**
   * Resolves when the answer begins. Rejects with an AppError, or what it was stopped with. Once.
   * `mayRepeat`: a kept connection that turns out to be closed is no failure, another one is taken.
   */
  open(send: () => ClientRequest, mayRepeat = false): Promise<CallHead> {
    const { signal, idleMs } = this.#watched;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) this.stop(signal.reason);
      if (this.#stopped !== null) return reject(this.#stopped.reason);
      this.#onHead = { resolve, reject };
      signal?.addEventListener('abort', this.#onAbort, { once: true });
      this.#touch();
      if (idleMs !== null) this.#arm(idleMs, idleMs);
      this.#send(send, mayRepeat);
    });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Rejects with an AppError when the other side breaks off, or with what it was stopped with. */
  next(): Promise<IteratorResult<Buffer, undefined>> {
    this.#release();
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
      this.#serve();
    });
  }

  /** The reader wants no more. */
  return(): Promise<IteratorResult<Buffer, undefined>> {
    this.#cut();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Ends it with that reason, if it has not ended. Idempotent. */
  stop(reason: unknown): void {
    if (this.#isOver) return;
    this.#stopped = { reason };
    this.#cut();
    this.#onHead?.reject(reason);
    this.#onHead = null;
    this.#serve();
  }

  /** The reason it was stopped with if it was, else what is said of a failed connection. */
  explain(thrown: unknown): unknown {
    return this.#stopped === null ? this.#peer.toError(thrown) : this.#stopped.reason;
  }

  readonly #onAbort = (): void => this.stop(this.#watched.signal?.reason);

  #send(send: () => ClientRequest, mayRepeat: boolean): void {
    try {
      const sent = send();
      this.#sent = sent;
      // there may be several, and some after the answer: nobody waits for those
      sent.on('error', (cause) => {
        const isStale = mayRepeat && sent.reusedSocket && this.#onHead !== null;
        if (isStale && !this.#isOver && this.#sent === sent) this.#send(send, true);
        else if (this.#sent === sent) this.#fail(cause);
      });
      sent.once('response', (answer) => this.#begin(answer));
    } catch (cause) {
      this.#fail(cause);
    }
  }

  #begin(answer: IncomingMessage): void {
    this.#answer = answer;
    this.#touch();
    const onMove = (): void => this.#serve();
    answer.on('readable', onMove);
    answer.once('end', onMove);
    answer.once('close', onMove);
    // a close follows, which is enough
    answer.on('error', ignore);
    this.#onHead?.resolve({ status: answer.statusCode ?? 0, headers: answer.headers });
    this.#onHead = null;
  }

  #fail(cause: unknown): void {
    if (this.#answer !== null || this.#onHead === null) return;
    this.#end();
    this.#onHead.reject(this.explain(cause));
    this.#onHead = null;
  }

  /** Gives the reader what there is for it: a chunk, the end, or the failure. */
  #serve(): void {
    const reader = this.#reader;
    if (reader === null) return;
    if (this.#stopped !== null) {
      this.#refuse(reader, this.#stopped.reason);
      return;
    }
    const answer = this.#answer;
    const chunk: Buffer | null = answer?.read() ?? null;
    if (chunk !== null) {
      this.#reader = null;
      const isLife = this.#watched.byLines !== true || chunk.includes(lineEnd);
      this.#held = { sinceMs: this.#peer.clock.monotonicMs(), isLife };
      reader.resolve({ done: false, value: chunk });
    } else if (answer === null || answer.readableEnded || this.#isOver) {
      this.#reader = null;
      this.#end();
      reader.resolve({ done: true, value: undefined });
    } else if (answer.closed) {
      this.#end();
      const message = `${this.#peer.name} broke off in the middle of its answer; try again`;
      this.#refuse(reader, new AppError('upstream_connection_error', message, { cause: answer.errored }));
    }
  }

  #refuse(reader: Reader, reason: unknown): void {
    this.#reader = null;
    reader.reject(reason);
  }

  #cut(): void {
    if (this.#isOver) return;
    this.#end();
    this.#sent?.destroy();
    this.#answer?.destroy();
  }

  #end(): void {
    this.#isOver = true;
    // an answer that came before the whole body was taken: nobody would watch the rest
    if (this.#sent !== null && !this.#sent.writableFinished) this.#sent.destroy();
    this.#timer?.cancel();
    this.#watched.signal?.removeEventListener('abort', this.#onAbort);
  }

  /** The reader is done with its chunk. The time that it took is not the sender's. */
  #release(): void {
    const held = this.#held;
    const nowMs = this.#peer.clock.monotonicMs();
    if (held === null || held.isLife) this.#lastMs = nowMs;
    else this.#lastMs += nowMs - held.sinceMs;
    this.#held = null;
  }

  #touch(): void {
    this.#lastMs = this.#peer.clock.monotonicMs();
  }

  #arm(ms: number, idleMs: number): void {
    const { clock, name } = this.#peer;
    this.#timer = clock.setTimer(ms, () => {
      const left = idleMs - (clock.monotonicMs() - this.#lastMs);
      if (left > 0) return this.#arm(left, idleMs);
      if (this.#held !== null || this.#watched.stillAlive?.()) return this.#arm(idleMs, idleMs);
      const secs = Math.round(idleMs / 1000);
      const what = this.#watched.byLines === true ? 'no event' : 'nothing';
      this.stop(new AppError('upstream_timeout', `${name} sent ${what} for ${secs} s; try again`));
    });
  }
}

function ignore(): void {}
