/**
 * One streamed answer from whichever nodes give it to one client.
 *
 * Problem: a node may break off at any byte; the client must get the whole answer, once, or be told that it
 *          did not. And on the way of every byte there is no time to spare.
 * Design:  the neuron frames its events with the ids of their tokens (cortex-core/wire/token-frames.ts); the
 *          frame's line is cut off, its bytes go to the dialect as they are. What broke off before its first
 *          event is sent again; what broke later goes on at a node with the same weights, from the ids of
 *          what the client has. The dialect sees one stream.
 * Limits:  a stream without frames (an older neuron, several choices) and one that no other node can go on
 *          with end in the dialect's error event.
 */
import type { Continuation } from 'cortex-core/wire/continuation';
import { AppError } from 'cortex-core/wire/errors';
import { SseParser, sseKeepAlive } from 'cortex-core/wire/sse';
import { FrameReader } from 'cortex-core/wire/token-frames';
import { toInStreamError } from '../dialects/upstream-error.ts';
import type { Answered } from './send.ts';

export interface StreamRelayOptions {
  readonly signal: AbortSignal;
  /** Bytes of whole events, or of a stream without frames. Resolves when more may come. */
  readonly write: (bytes: Uint8Array) => Promise<void>;
  /** Whether what was written is a complete answer. */
  readonly isComplete: () => boolean;
  /** Sends the request again; the client has nothing of an answer. Throws `cause` when it cannot be. */
  readonly again: (broken: Answered, cause: AppError) => Promise<Answered>;
  /** Null when no node can go on. */
  readonly goOn: (broken: Answered, sofar: Continuation, cause: AppError) => Promise<Answered | null>;
  /** Seen with each piece that comes from a node. */
  readonly onBytes: (from: Answered) => void;
  readonly onBreak: (broken: Answered, outcome: 'resent' | 'continued' | 'failed', tokens: number) => void;
}

const keepAlive = Buffer.from(sseKeepAlive);

/** What the request itself is to blame for would break anywhere. */
function isNodesFault({ status, code }: AppError): boolean {
  return status >= 500 || code === 'model_not_loaded' || code === 'load_cancelled';
}

export class StreamRelay {
  readonly #options: StreamRelayOptions;
  readonly #tokens: number[] = [];
  /** The first events as the client got them: they say who the answer is. */
  #first: Buffer | null = null;
  #isPlain = false;

  constructor(options: StreamRelayOptions) {
    this.#options = options;
  }

  /** Resolves when the answer is complete; rejects with why it is not, or with the signal's reason. */
  async run(first: Answered): Promise<void> {
    for (let current = first; ; ) {
      const broke = await this.#relay(current);
      current.answer.abort();
      if (broke === null) return;
      current = await this.#next(current, broke);
    }
  }

  async #next(broken: Answered, cause: AppError): Promise<Answered> {
    const { again, goOn, onBreak } = this.#options;
    const count = this.#tokens.length;
    try {
      if (!isNodesFault(cause)) throw cause;
      if (this.#first === null && !this.#isPlain) {
        const sent = await again(broken, cause);
        onBreak(broken, 'resent', count);
        return sent;
      }
      const sofar = this.#isPlain ? null : this.#sofar();
      const next = sofar === null ? null : await goOn(broken, sofar, cause);
      if (next === null) throw cause;
      onBreak(broken, 'continued', count);
      return next;
    } catch (thrown) {
      onBreak(broken, 'failed', count);
      throw thrown;
    }
  }

  /** Null when it ended complete, else why it did not. */
  async #relay(current: Answered): Promise<AppError | null> {
    const { signal, isComplete, onBytes } = this.#options;
    const reader = new FrameReader();
    try {
      for await (const chunk of current.answer.chunks) {
        onBytes(current);
        const error = await this.#take(reader, chunk);
        if (error !== null) return error;
      }
    } catch (thrown) {
      signal.throwIfAborted();
      if (!this.#isPlain && isComplete()) return null;
      if (thrown instanceof AppError) return thrown;
      if (!(thrown instanceof RangeError)) throw thrown;
      return new AppError('upstream_malformed_response', 'the neuron sent a frame beyond all measure', {
        cause: thrown,
      });
    }
    if (isComplete()) return null;
    return new AppError(
      'upstream_connection_error',
      'the answer broke off before it was complete; try again',
    );
  }

  /** Writes what is whole. The neuron's own error ends its part. */
  async #take(reader: FrameReader, chunk: Uint8Array): Promise<AppError | null> {
    const parts: Uint8Array[] = [];
    let error: AppError | null = null;
    for (const frame of reader.push(chunk)) {
      switch (frame.kind) {
        case 'events':
          this.#first ??= Buffer.from(frame.bytes);
          for (const token of frame.tokens) this.#tokens.push(token);
          parts.push(frame.bytes);
          break;
        case 'plain':
          this.#isPlain = true;
          parts.push(frame.bytes);
          break;
        case 'keepAlive':
          parts.push(keepAlive);
          break;
        case 'error':
          error ??= toInStreamError(frame.bytes);
          break;
        default:
          frame satisfies never;
      }
    }
    const [only] = parts;
    if (only !== undefined) await this.#options.write(parts.length === 1 ? only : Buffer.concat(parts));
    return error;
  }

  #sofar(): Continuation | null {
    const [event] = this.#first === null ? [] : new SseParser().push(this.#first);
    try {
      const { id, created, model } = JSON.parse(event?.data ?? 'null') as Record<string, unknown>;
      if (typeof id !== 'string' || typeof created !== 'number' || typeof model !== 'string') return null;
      return { id, created, model, tokens: this.#tokens };
    } catch {
      return null;
    }
  }
}
