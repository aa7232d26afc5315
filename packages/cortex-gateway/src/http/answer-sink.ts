/**
 * The clients' side of one answer: mostly one client, sometimes several that sent the same request.
 *
 * Problem: a client that loses patience sends its request again while the first still runs, and an answer
 *          that takes longer than that patience is never finished. And a client that leaves must free its
 *          slot at once.
 * Design:  a call writes to a sink; whoever reads it is a reader. One who joins later gets the answer from
 *          its beginning. `signal` aborts when the last reader has left. The call waits for the fastest
 *          reader; one that lags far behind another is cut.
 * Limits:  what is kept for those who come later (see Attachments); 4 MiB that a reader may lag behind, and
 *          what it got at once when it came, which may be all of `attach_mb`.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { sseHeaders } from 'cortex-core/wire/sse';
import { stalledMsMax } from './drained.ts';

type Headers = Readonly<Record<string, string | string[] | number>>;

/** Memory for answers that others may join. */
export interface KeepRoom {
  /** False: there is no room; nothing is taken then. */
  take(bytes: number): boolean;
  give(bytes: number): void;
}

/** A client's exchange, or what reads in a client's place. */
export interface AnswerReader {
  /** Aborts when it reads no more. */
  readonly signal: AbortSignal;
  readonly response: {
    readonly writableLength: number;
    readonly writableNeedDrain: boolean;
    setHeader(name: string, value: string): unknown;
    writeHead(status: number, headers: Headers): unknown;
    flushHeaders(): void;
    /** False: `drain` tells when it takes more. */
    write(bytes: Uint8Array): boolean;
    end(bytes?: Uint8Array): unknown;
    destroy(): unknown;
    once(event: 'drain', listener: () => void): unknown;
    off(event: 'drain', listener: () => void): unknown;
  };
}

interface Reader {
  readonly exchange: AnswerReader;
  /** Of the answer's beginning, which it got at once. */
  readonly givenBytes: number;
  readonly settle: (error: unknown) => void;
}

const lagBytesMax = 4 * 1024 * 1024;

export class AnswerSink {
  /** Aborts when nobody reads any more. */
  readonly signal: AbortSignal;
  readonly #clock: Clock;
  readonly #room: KeepRoom | null;
  /** Null where the one client's own signal says it. */
  readonly #gone: AbortController | null;
  readonly #readers = new Set<Reader>();
  #route: string | null = null;
  #head: { readonly status: number; readonly headers: Headers } | null = null;
  /** What was written so far; null when it cannot be joined any more. */
  #kept: Uint8Array[] | null;
  #keptBytes = 0;
  #isOver = false;
  /** Lets a waiting write look again at who reads. */
  #wake: () => void = () => {};
  #timer: { cancel(): void } | null = null;
  #lastMs = 0;

  /** `room`: null when nobody may join `first`. */
  constructor(clock: Clock, first: AnswerReader, room: KeepRoom | null) {
    this.#clock = clock;
    this.#room = room;
    this.#kept = room === null ? null : [];
    this.#gone = room === null ? null : new AbortController();
    this.signal = this.#gone?.signal ?? first.signal;
  }

  /** Status and headers are out. */
  get opened(): boolean {
    return this.#head !== null;
  }

  get canJoin(): boolean {
    return this.#kept !== null && !this.#isOver && !this.signal.aborted;
  }

  /**
   * Serves a client from the beginning of the answer. Resolves when it has all of it; rejects with what the
   * call failed with before it sent anything, or when the client leaves.
   */
  read(exchange: AnswerReader): Promise<void> {
    return new Promise((resolve, reject) => {
      const { signal, response } = exchange;
      const reader: Reader = {
        exchange,
        givenBytes: this.#keptBytes,
        settle: (error) => {
          signal.removeEventListener('abort', onAbort);
          this.#readers.delete(reader);
          this.#wake();
          if (error === null) resolve();
          else reject(error);
        },
      };
      const onAbort = (): void => {
        reader.settle(signal.reason);
        if (this.#readers.size === 0 && !this.#isOver) this.#gone?.abort(signal.reason);
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      this.#readers.add(reader);
      if (this.#route !== null) response.setHeader('x-cortex-route', this.#route);
      if (this.#head === null) return;
      response.writeHead(this.#head.status, this.#head.headers);
      response.flushHeaders();
      for (const bytes of this.#kept ?? []) response.write(bytes);
      this.#wake();
    });
  }

  /** Said in the headers, as long as they are not out. */
  showRoute(route: string): void {
    if (this.opened) return;
    this.#route = route;
    for (const { exchange } of this.#readers) exchange.response.setHeader('x-cortex-route', route);
  }

  /** Sends status and headers at once. */
  open(status: number, headers: Headers): void {
    if (this.opened) return;
    this.#head = { status, headers };
    for (const { exchange } of this.#readers) {
      exchange.response.writeHead(status, headers);
      exchange.response.flushHeaders();
    }
  }

  /** The whole answer. */
  respond(status: number, headers: Headers, body: Uint8Array): void {
    this.#head = { status, headers };
    for (const { exchange } of this.#readers) exchange.response.writeHead(status, headers);
    this.end(body);
  }

  /** Sends 200 and the headers of a stream at once. */
  openStream(headers: Headers = sseHeaders): void {
    this.open(200, headers);
  }

  /** What fails now can be said in it. */
  get isStream(): boolean {
    return /text\/event-stream|application\/x-ndjson/.test(String(this.#head?.headers['content-type']));
  }

  /** From now on `bytes` are sent whenever nothing else was for `everyMs`. */
  keepAlive(everyMs: number, bytes: () => Uint8Array): void {
    this.stopKeepAlive();
    this.#lastMs = this.#clock.monotonicMs();
    const arm = (ms: number): void => {
      this.#timer = this.#clock.setTimer(ms, () => {
        const left = everyMs - (this.#clock.monotonicMs() - this.#lastMs);
        if (left > 0) return arm(left);
        for (const { exchange } of this.#readers) {
          // a client that does not read gets none: they would only pile up
          if (exchange.response.writableLength === 0) exchange.response.write(bytes());
        }
        this.#lastMs = this.#clock.monotonicMs();
        arm(everyMs);
      });
    };
    arm(everyMs);
  }

  stopKeepAlive(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** Resolves when a client can take more; rejects when none is left. `bytes` end where an event does. */
  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    this.signal.throwIfAborted();
    this.#lastMs = this.#clock.monotonicMs();
    this.#keep(bytes);
    let canTakeMore = false;
    for (const { exchange } of this.#readers) if (exchange.response.write(bytes)) canTakeMore = true;
    if (this.#readers.size > 1) this.#cutLaggards();
    while (!canTakeMore) {
      await this.#drained();
      canTakeMore = [...this.#readers].some(({ exchange }) => !exchange.response.writableNeedDrain);
    }
  }

  end(last: Uint8Array = new Uint8Array(0)): void {
    this.#close();
    for (const { exchange, settle } of [...this.#readers]) {
      if (last.length > 0) exchange.response.end(last);
      else exchange.response.end();
      settle(null);
    }
  }

  /** Before anything was sent each client gets the error as its answer; after that only a cut is honest. */
  fail(error: unknown): void {
    this.#close();
    for (const { settle } of [...this.#readers]) settle(error);
  }

  #close(): void {
    this.stopKeepAlive();
    this.#isOver = true;
    this.#forget();
  }

  #keep(bytes: Uint8Array): void {
    if (this.#kept === null) return;
    if (this.#room?.take(bytes.length) !== true) {
      this.#forget();
      return;
    }
    this.#kept.push(bytes);
    this.#keptBytes += bytes.length;
  }

  #forget(): void {
    this.#kept = null;
    this.#room?.give(this.#keptBytes);
    this.#keptBytes = 0;
  }

  #cutLaggards(): void {
    const lagOf = ({ exchange }: Reader): number => exchange.response.writableLength;
    const least = Math.min(...[...this.#readers].map(lagOf));
    for (const reader of [...this.#readers]) {
      if (lagOf(reader) - least > lagBytesMax + reader.givenBytes) reader.exchange.response.destroy();
    }
  }

  async #drained(): Promise<void> {
    const responses = [...this.#readers].map(({ exchange }) => exchange.response);
    await new Promise<void>((resolve, reject) => {
      const done = (): void => {
        this.#wake = () => {};
        timer.cancel();
        for (const response of responses) response.off('drain', onDrain);
        this.signal.removeEventListener('abort', onAbort);
      };
      const onDrain = (): void => {
        done();
        resolve();
      };
      const onAbort = (): void => {
        done();
        reject(this.signal.reason);
      };
      const timer = this.#clock.setTimer(stalledMsMax, () => {
        for (const response of responses) response.destroy();
      });
      if (this.signal.aborted) return onAbort();
      this.#wake = onDrain;
      for (const response of responses) response.once('drain', onDrain);
      this.signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}
