/** A stream whose bytes the client gets as they come, for upstreams that speak the client's own dialect. */
import { AppError } from 'cortex-core/wire/errors';
import type { StreamOut, StreamProbe } from './dialect.ts';
import { WholeEvents } from './whole-events.ts';

/** What the gateway itself may have to say in it: whole events. */
export interface OwnEvents {
  readonly error: (error: AppError) => string;
  readonly keepAlive: string;
  /** Upstream's last event, for engines that leave out the empty line behind it. */
  readonly last?: string;
}

const nothing = new Uint8Array(0);

export class VerbatimStream implements StreamOut {
  readonly pingsDuringAnswer = false;
  readonly probe: StreamProbe;
  readonly #own: OwnEvents;
  readonly #events = new WholeEvents();

  constructor(probe: StreamProbe, own: OwnEvents) {
    this.probe = probe;
    this.#own = own;
  }

  push(chunk: Uint8Array, nowMs = 0): Uint8Array {
    this.probe.push(chunk, nowMs);
    return this.#events.push(chunk);
  }

  end(): Uint8Array {
    const rest = Buffer.from(this.#events.drop())
      .toString('latin1')
      .trimEnd()
      .replace(/^data:(?! )/, 'data: ');
    const { last } = this.#own;
    // half an event is none
    if (this.probe.finished)
      return last !== undefined && rest === last.trimEnd() ? Buffer.from(last) : nothing;
    throw new AppError('upstream_connection_error', 'the answer broke off before it was complete; try again');
  }

  error(error: AppError): Uint8Array {
    this.#events.drop();
    return Buffer.from(this.#own.error(error));
  }

  keepAlive(): Uint8Array {
    return this.#events.isBetween ? Buffer.from(this.#own.keepAlive) : nothing;
  }
}
