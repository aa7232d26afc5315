/**
 * Responses that are made without their client: `background: true`.
 *
 * Problem: a client asks, goes away, and comes back for the answer, or for the rest of its events.
 * Design:  a run (background-run.ts) reads the answer in the client's place. What refuses a request before a
 *          node is asked is the answer to the request; what fails later is a failed response. A run that has
 *          ended is an entry of the store, with its events where the client asked for a stream.
 *          A request that is a resend (attachments.ts) gets the run that is there already.
 * Limits:  runs at a time; characters of events of each. No key fills them all: the last quarter is for keys
 *          that have less than their share. Those who send no key cannot be told apart, and may.
 *          A gateway that stops ends them: the store goes too.
 */
import { AppError } from 'cortex-core/wire/errors';
import { digestOf } from '../quota/principals.ts';
import type { AttachKey } from './attachments.ts';
import { type BackgroundRequest, BackgroundRun } from './background-run.ts';
import type { InferenceDeps } from './inference-deps.ts';

/** The owner of what is asked for without a key. */
const keyless = digestOf('');

export interface BackgroundLimits {
  /** 0 = none are made. */
  readonly runsMax: number;
  /** Of one run; the oldest events go. */
  readonly eventCharsMax: number;
}

export class BackgroundRuns {
  readonly #deps: InferenceDeps;
  readonly #limits: BackgroundLimits;
  readonly #runs = new Map<string, BackgroundRun>();

  constructor(deps: InferenceDeps, limits: BackgroundLimits) {
    this.#deps = deps;
    this.#limits = limits;
  }

  /** Of all keys. */
  get count(): number {
    return this.#runs.size;
  }

  /** Resolves when it runs; rejects with what refuses it at once. */
  async start(asked: BackgroundRequest): Promise<BackgroundRun> {
    const { runsMax, eventCharsMax } = this.#limits;
    if (runsMax === 0) {
      const message = 'Responses are not made in the background here; use stream: true.';
      throw new AppError('unsupported_parameter', message, { param: 'background' });
    }
    this.#refuseMore(asked.owner);
    const run = new BackgroundRun(this.#deps, asked, eventCharsMax);
    const { id } = run.stored.response;
    this.#runs.set(id, run);
    const ended = run.run().finally(() => this.#runs.delete(id));
    // what refuses a request at once waits for nothing: it is known before the next event of the loop
    await Promise.race([ended, new Promise<void>((resolve) => setImmediate(resolve))]);
    run.accept();
    return run;
  }

  /** The run of an earlier sending; null = the request is the first, or there is none with all its events. */
  findSent(key: AttachKey | null): BackgroundRun | null {
    if (key === null || key.isFirst) return null;
    const isWhole = ({ sentAs, isAccepted, log }: BackgroundRun): boolean =>
      sentAs === key.hash && isAccepted && log.from(0) !== null;
    return [...this.#runs.values()].find(isWhole) ?? null;
  }

  /** Null: none of that id runs, it was forgotten, or it is somebody else's. */
  find(owner: string, id: string): BackgroundRun | null {
    const run = this.#runs.get(id);
    return run?.owner === owner && !run.isForgotten ? run : null;
  }

  /** A share is that of all who have some, and of one who may come. */
  #refuseMore(owner: string): void {
    const { runsMax } = this.#limits;
    const owners = [...this.#runs.values()].map((run) => run.owner);
    const own = owners.filter((each) => each === owner).length;
    const free = runsMax - owners.length;
    const kept = owner === keyless ? 0 : Math.floor(runsMax / 4);
    const hasShare = own >= runsMax / (new Set([...owners, owner]).size + 1);
    if (free > kept || (free > 0 && !hasShare)) return;
    const message =
      free > 0
        ? `${own} responses of this key are made in the background, and the last ${kept} of ${runsMax} ` +
          'places are for other keys; wait for one of yours, or cancel one'
        : `${runsMax} responses are made in the background already; wait for one, or cancel one of yours`;
    throw new AppError('rate_limit_exceeded', message, { param: 'background', retryAfterSecs: 5 });
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const stopping = new AppError('shutting_down', 'the gateway is stopping; ask again');
    await Promise.all([...this.#runs.values()].map((run) => run.fail(stopping)));
  }
}
