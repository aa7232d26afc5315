/**
 * Holds one stream in so many against its dialect's grammar, as the client gets it.
 *
 * Problem: what breaks a client shows in no status and no log of ours.
 * Design: a checked stream is read beside the client, after translation; the first rule it breaks is counted
 * and logged by name, without a word of the content. Nothing is changed, delayed or cut. A stream whose
 * client left is not judged. A stream counts once, however many translators it goes through.
 */
import type { Log } from 'cortex-core/daemon/log';
import type { Dialect, StreamOut, StreamProbe } from '../dialects/dialect.ts';
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

  /** Counts a stream that begins. What it returns gives a translator checked in passing, or as it is. */
  begin(dialect: Dialect, requestId: string): (out: StreamOut) => StreamOut {
    const { every, log, onFault } = this.#options;
    const { name, wireGrammar } = dialect;
    if (wireGrammar === undefined || every === 0 || this.#count++ % every !== 0) return asItIs;
    const report = (rule: string): void => {
      onFault(name, rule);
      const fields = { request_id: requestId, dialect: name, rule };
      log.error('a stream broke the grammar of its dialect', fields);
    };
    return (out) => new CheckedStream(out, wireGrammar(), report);
  }
}

/** Of what is not checked. */
export function asItIs(out: StreamOut): StreamOut {
  return out;
}

class CheckedStream implements StreamOut {
  readonly headers?: Readonly<Record<string, string>>;
  readonly probe?: StreamProbe;
  readonly #out: StreamOut;
  readonly #grammar: WireGrammar;
  readonly #report: (rule: string) => void;

  constructor(out: StreamOut, grammar: WireGrammar, report: (rule: string) => void) {
    this.#out = out;
    if (out.headers !== undefined) this.headers = out.headers;
    if (out.probe !== undefined) this.probe = out.probe;
    this.#grammar = grammar;
    this.#report = report;
  }

  get pingsDuringAnswer(): boolean {
    return this.#out.pingsDuringAnswer;
  }

  push(chunk: Uint8Array, nowMs?: number): Uint8Array {
    return this.#seen(this.#out.push(chunk, nowMs));
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
