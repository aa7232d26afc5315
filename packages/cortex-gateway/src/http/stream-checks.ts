/**
 * Holds one stream in so many against its dialect's grammar, as the client gets it.
 *
 * Problem: what breaks a client shows in no status and no log of ours.
 * Design: a checked stream is read beside the client, after translation; the first rule it breaks is counted
 * and logged by name, without a word of the content. Nothing is changed, delayed or cut. A stream whose
 * client left is not judged.
 */
import type { Log } from 'cortex-core/daemon/log';
import type { Dialect, StreamOut } from '../dialects/dialect.ts';
import type { WireGrammar } from '../dialects/wire-grammar/wire-grammar.ts';

export interface StreamChecksOptions {
  /** One in how many streams is checked; 0 = none. */
  readonly every: number;
  readonly log: Log;
  readonly onFault: (dialect: string, rule: string) => void;
}

export class StreamChecks {
  readonly #options: StreamChecksOptions;
  #count = 0;

  constructor(options: StreamChecksOptions) {
    this.#options = options;
  }

  /** `out` itself, or one that is checked in passing. */
  wrap(dialect: Dialect, out: StreamOut, requestId: string): StreamOut {
    const { every, log, onFault } = this.#options;
    if (dialect.wireGrammar === undefined || every === 0 || this.#count++ % every !== 0) return out;
    return new CheckedStream(out, dialect.wireGrammar(), (rule) => {
      onFault(dialect.name, rule);
      log.error('a stream broke the grammar of its dialect', {
        ...{ request_id: requestId, dialect: dialect.name, rule },
      });
    });
  }
}

class CheckedStream implements StreamOut {
  readonly headers?: Readonly<Record<string, string>>;
  readonly #out: StreamOut;
  readonly #grammar: WireGrammar;
  readonly #report: (rule: string) => void;

  constructor(out: StreamOut, grammar: WireGrammar, report: (rule: string) => void) {
    this.#out = out;
    if (out.headers !== undefined) this.headers = out.headers;
    this.#grammar = grammar;
    this.#report = report;
  }

  get pingsDuringAnswer(): boolean {
    return this.#out.pingsDuringAnswer;
  }

  push(chunk: Uint8Array): Uint8Array {
    return this.#seen(this.#out.push(chunk));
  }

  end(): Uint8Array {
    return this.#last(this.#out.end());
  }

  error(error: Parameters<StreamOut['error']>[0]): Uint8Array {
    return this.#last(this.#out.error(error));
  }

  keepAlive(): Uint8Array {
    return this.#seen(this.#out.keepAlive());
  }

  #seen(bytes: Uint8Array): Uint8Array {
    this.#grammar.push(bytes);
    return bytes;
  }

  #last(bytes: Uint8Array): Uint8Array {
    this.#grammar.push(bytes);
    const rule = this.#grammar.end();
    if (rule !== null) this.#report(rule);
    return bytes;
  }
}
