import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { FakeClock } from 'testkit/clock';
import { Admission, type AdmissionLimits, type Permit } from './admission.ts';
import { overtakesMax } from './next-waiter.ts';

const limits: AdmissionLimits = { maxInFlight: 2, maxQueueDepth: 3, maxWaitMs: 1000, maxPerPrincipal: 0 };
const never = new AbortController().signal;
const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

function codeOf(error: unknown): string {
  return error instanceof AppError ? error.code : String(error);
}

/** Every promise that can go on has gone on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function refusalOf(promise: Promise<Permit>): Promise<AppError> {
  return promise.then(
    () => assert.fail('granted'),
    (thrown: unknown) => {
      assert.ok(thrown instanceof AppError, String(thrown));
      return thrown;
    },
  );
}

describe('Admission', () => {
  it('setLimits() gives new room out at once, and lets those beyond less room go on', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 1 }, new FakeClock());
    const first = await admission.acquire(null, never);
    const waiting = [admission.acquire(null, never), admission.acquire(null, never)];
    await settled();
    assert.deepEqual([admission.counters.inFlight, admission.counters.queueDepth], [1, 2]);
    admission.setLimits({ ...limits, maxInFlight: 3 });
    const permits = await Promise.all(waiting);
    assert.deepEqual([admission.counters.inFlight, admission.counters.queueDepth], [3, 0]);
    admission.setLimits({ ...limits, maxInFlight: 1, maxQueueDepth: 0 });
    assert.equal((await refusalOf(admission.acquire(null, never))).code, 'overloaded');
    for (const permit of [first, ...permits]) permit.release();
    (await admission.acquire(null, never)).release();
    assert.equal(admission.counters.inFlight, 0);
  });

  it('grants in the order of arrival', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 1 }, new FakeClock());
    const first = await admission.acquire(null, never);
    const order: number[] = [];
    const waiting = [1, 2, 3].map(async (each) => {
      const permit = await admission.acquire(null, never);
      order.push(each);
      permit.release();
    });
    first.release();
    first.release();
    await Promise.all(waiting);
    assert.deepEqual(order, [1, 2, 3]);
    assert.equal(admission.counters.inFlight, 0);
  });

  it('tells how long a request stood in the queue', async () => {
    const clock = new FakeClock();
    const admission = new Admission({ ...limits, maxInFlight: 1 }, clock);
    const first = await admission.acquire(null, never);
    assert.equal(first.queueMs, 0);
    const second = admission.acquire(null, never);
    await clock.advance(400);
    first.release();
    assert.equal((await second).queueMs, 400);
  });

  it('refuses who waited too long, and who has too much already', async () => {
    const clock = new FakeClock();
    const admission = new Admission({ ...limits, maxInFlight: 1, maxPerPrincipal: 2 }, clock);
    await admission.acquire('a', never);
    const late = refusalOf(admission.acquire('a', never));
    assert.equal((await refusalOf(admission.acquire('a', never))).code, 'rate_limit_exceeded');
    await clock.advance(999);
    assert.equal(admission.counters.queueDepth, 1);
    await clock.advance(1);
    assert.equal((await late).code, 'overloaded');
    assert.equal(admission.counters.rejectedTimeout, 1);
    assert.equal(admission.counters.rejectedPerPrincipal, 1);
  });

  it('refuses everyone who waits once it is closed, and lets who runs end', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 1 }, new FakeClock());
    const running = await admission.acquire(null, never);
    const waiting = refusalOf(admission.acquire(null, never));
    admission.close();
    admission.close(() => new AppError('model_not_loaded', 'a later reason does not replace the first'));
    for (const refusal of [waiting, refusalOf(admission.acquire(null, never))]) {
      assert.equal((await refusal).code, 'shutting_down');
      assert.equal((await refusal).retryAfterSecs, 15);
    }
    const idle = admission.idle(never);
    assert.equal(admission.counters.inFlight, 1);
    running.release();
    await idle;
  });

  it('gives a free slot to the account that runs least', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 3, maxQueueDepth: 20 }, new FakeClock());
    const running = await Promise.all([1, 2, 3].map(() => admission.acquire('greedy', never)));
    const order: string[] = [];
    const wait = (principal: string, name: string) =>
      void admission.acquire(principal, never).then(() => order.push(name));
    for (const each of [1, 2, 3]) wait('greedy', `greedy ${each}`);
    wait('b', 'b 1');
    wait('b', 'b 2');
    wait('c', 'c 1');
    for (const permit of running) {
      permit.release();
      await settled();
    }
    // b and c before greedy, which still runs two; then each runs one, and who came first is next.
    assert.deepEqual(order, ['b 1', 'c 1', 'greedy 1']);
  });

  it('counts all that come without an account as one', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 2, maxQueueDepth: 20 }, new FakeClock());
    const running = await Promise.all([1, 2].map(() => admission.acquire(null, never)));
    const order: string[] = [];
    for (const name of ['1', '2']) void admission.acquire(null, never).then(() => order.push(name));
    void admission.acquire('a', never).then(() => order.push('a'));
    running[0]?.release();
    await settled();
    running[1]?.release();
    await settled();
    assert.deepEqual(order, ['a', '1']);
  });
});

describe('Retry-After', () => {
  /** An admission in which permits were held for `heldMs` each. */
  async function measured(heldMs: number, over: Partial<AdmissionLimits> = {}): Promise<Admission> {
    const clock = new FakeClock();
    const admission = new Admission({ ...limits, ...over }, clock);
    for (let each = 0; each < 3; each++) {
      const permit = await admission.acquire(null, never);
      await clock.advance(heldMs);
      permit.release();
    }
    return admission;
  }

  async function fill(admission: Admission, principal: string | null): Promise<AppError> {
    const { maxInFlight, maxQueueDepth } = admission.limits;
    for (let each = 0; each < maxInFlight + maxQueueDepth; each++) {
      admission.acquire(principal, never).catch(() => {});
    }
    return refusalOf(admission.acquire(principal, never));
  }

  it('is what those ahead will take, as measured', async () => {
    // Three wait and one comes: four must end, two at a time, nine seconds each.
    assert.equal((await fill(await measured(9000), null)).retryAfterSecs, 18);
    assert.equal((await fill(await measured(9000, { maxInFlight: 4 }), null)).retryAfterSecs, 9);
    assert.equal((await fill(await measured(9000, { maxQueueDepth: 0 }), null)).retryAfterSecs, 5);
  });

  it('is 1 to 120 seconds, whatever was measured, and a guess before', async () => {
    assert.equal((await fill(await measured(1), null)).retryAfterSecs, 1);
    assert.equal((await fill(await measured(3_600_000), null)).retryAfterSecs, 120);
    assert.equal((await fill(new Admission(limits, new FakeClock()), null)).retryAfterSecs, 4);
  });

  it("is the end of the account's own requests where these are what is in the way", async () => {
    const over = { maxInFlight: 4, maxPerPrincipal: 2 };
    const running = await measured(9000, over);
    for (let each = 0; each < 2; each++) await running.acquire('a', never);
    assert.equal((await refusalOf(running.acquire('a', never))).retryAfterSecs, 5);
    const waiting = await measured(9000, over);
    for (let each = 0; each < 4; each++) await waiting.acquire(null, never);
    for (let each = 0; each < 2; each++) waiting.acquire('a', never).catch(() => {});
    // Two wait, and the first of them has to run: six of nine seconds, four at a time.
    assert.equal((await refusalOf(waiting.acquire('a', never))).retryAfterSecs, 14);
  });
});

/** One acquire of the interleavings below. */
interface Attempt {
  readonly principal: string | null;
  readonly abort: AbortController;
  permit: Permit | null;
  released: boolean;
  refusal: unknown;
  settlements: number;
}

describe('over random interleavings', () => {
  it('every counter returns to zero, no permit is lost or given twice', async () => {
    console.log(`SEED=${seed}`);
    for (let round = 0; round < 150; round++) await interleave(seed + round);
  });

  it('nobody is overtaken by a larger share, or more often than the bound, or for ever', async () => {
    for (let round = 0; round < 60; round++) await overtake(seed + round);
  });
});

/** acquire, abort before and while queued and while running, release twice, timeouts, close. */
async function interleave(roundSeed: number): Promise<void> {
  const random = mulberry32(roundSeed);
  const pick = <T>(items: readonly T[]): T | undefined => items[Math.floor(random() * items.length)];
  const bounds: AdmissionLimits = {
    maxInFlight: 1 + Math.floor(random() * 3),
    maxQueueDepth: Math.floor(random() * 6),
    maxWaitMs: 1000,
    maxPerPrincipal: Math.floor(random() * 4),
  };
  const clock = new FakeClock();
  const admission = new Admission(bounds, clock);
  const attempts: Attempt[] = [];
  const where = (): string => `SEED=${roundSeed}, ${JSON.stringify({ bounds, ...admission.counters })}`;
  const start = (): void => {
    const principal = random() < 0.3 ? null : (pick(['a', 'b', 'c']) ?? null);
    const abort = new AbortController();
    if (random() < 0.05) abort.abort(new Error('left'));
    const attempt: Attempt = {
      principal,
      abort,
      permit: null,
      released: false,
      refusal: null,
      settlements: 0,
    };
    attempts.push(attempt);
    admission.acquire(principal, abort.signal).then(
      (permit) => {
        attempt.permit = permit;
        attempt.settlements++;
      },
      (refusal: unknown) => {
        attempt.refusal = refusal;
        attempt.settlements++;
      },
    );
  };
  const release = (attempt: Attempt | undefined): void => {
    attempt?.permit?.release();
    if (attempt?.permit) attempt.released = true;
  };
  let isClosed = false;
  const check = (): void => {
    const { inFlight, queueDepth } = admission.counters;
    assert.ok(inFlight >= 0 && inFlight <= bounds.maxInFlight, where());
    assert.ok(queueDepth >= 0 && queueDepth <= bounds.maxQueueDepth, where());
    if (isClosed) assert.equal(queueDepth, 0, where());
    else
      assert.ok(queueDepth === 0 || inFlight === bounds.maxInFlight, `a free permit and a queue: ${where()}`);
  };
  const checkSettled = async (): Promise<void> => {
    await settled();
    const held = attempts.filter(({ permit, released }) => permit !== null && !released);
    const waiting = attempts.filter(({ settlements }) => settlements === 0);
    const { inFlight, queueDepth } = admission.counters;
    assert.deepEqual([inFlight, queueDepth], [held.length, waiting.length], where());
    assert.equal(clock.pending, waiting.length, `a timer of somebody who left: ${where()}`);
    for (const principal of ['a', 'b', 'c']) {
      const own = [...held, ...waiting].filter((attempt) => attempt.principal === principal).length;
      assert.ok(bounds.maxPerPrincipal === 0 || own <= bounds.maxPerPrincipal, where());
    }
  };
  for (let step = 0; step < 150; step++) {
    const dice = random();
    if (dice < 0.45) start();
    else if (dice < 0.7) release(pick(attempts.filter(({ permit, released }) => permit && !released)));
    else if (dice < 0.75) release(pick(attempts));
    else if (dice < 0.92) pick(attempts)?.abort.abort(new Error('left'));
    else if (dice < 0.99) await clock.advance(Math.floor(random() * 700));
    else if (random() < 0.2) {
      admission.close();
      isClosed = true;
    }
    check();
    if (random() < 0.3) await checkSettled();
  }
  await checkSettled();
  if (random() < 0.5) admission.close();
  else await clock.advance(bounds.maxWaitMs);
  await checkSettled();
  for (let last = attempts.find(isHeld); last !== undefined; last = attempts.find(isHeld)) {
    release(last);
    await settled();
  }
  await checkSettled();
  await admission.idle(never);
  assert.deepEqual([admission.counters.inFlight, admission.counters.queueDepth], [0, 0], where());
  for (const attempt of attempts) {
    assert.equal(attempt.settlements, 1, where());
    assert.equal(getEventListeners(attempt.abort.signal, 'abort').length, 0, where());
    if (attempt.permit === null) {
      assert.match(codeOf(attempt.refusal), /^(overloaded|rate_limit_exceeded|shutting_down|Error: left)$/);
    }
  }
  if (admission.counters.rejectedPerPrincipal > 0) assert.ok(bounds.maxPerPrincipal > 0, where());
}

function isHeld({ permit, released }: Attempt): boolean {
  return permit !== null && !released;
}

/** Accounts of very different appetite, one release at a time; each grant is held against what waited then. */
async function overtake(roundSeed: number): Promise<void> {
  const random = mulberry32(roundSeed);
  const maxInFlight = 1 + Math.floor(random() * 4);
  const admission = new Admission(
    { maxInFlight, maxQueueDepth: 12, maxWaitMs: 1000, maxPerPrincipal: 0 },
    new FakeClock(),
  );
  interface Entry {
    readonly principal: string;
    permit: Permit | null;
    overtaken: number;
    releasesSeen: number;
  }
  let waiting: Entry[] = [];
  let running: Entry[] = [];
  const share = (principal: string): number => running.filter((each) => each.principal === principal).length;
  const granted: Entry[] = [];
  const arrive = (): void => {
    const principal = random() < 0.7 ? 'greedy' : `p${Math.floor(random() * 6)}`;
    const entry: Entry = { principal, permit: null, overtaken: 0, releasesSeen: 0 };
    if (admission.counters.queueDepth >= 12) return;
    waiting.push(entry);
    void admission.acquire(principal, never).then((permit) => {
      entry.permit = permit;
      granted.push(entry);
    });
  };
  for (let step = 0; step < 250; step++) {
    for (let count = Math.floor(random() * 4); count > 0; count--) arrive();
    await settled();
    const isFirstFill = granted.length > 0;
    for (const entry of granted.splice(0)) {
      waiting = waiting.filter((each) => each !== entry);
      running.push(entry);
    }
    if (isFirstFill || running.length === 0) continue;
    const [ended] = running.splice(Math.floor(random() * running.length), 1);
    ended?.permit?.release();
    await settled();
    assert.ok(granted.length <= 1, `SEED=${roundSeed}: one release, ${granted.length} grants`);
    const [next] = granted.splice(0);
    if (next === undefined) {
      assert.equal(waiting.length, 0, `SEED=${roundSeed}: a permit was lost`);
      continue;
    }
    const place = waiting.indexOf(next);
    const [first] = waiting;
    assert.ok(place >= 0 && first !== undefined);
    const least = Math.min(...waiting.map(({ principal }) => share(principal)));
    if (first.overtaken >= overtakesMax) assert.equal(next, first, `SEED=${roundSeed}: overtaken too often`);
    else assert.equal(share(next.principal), least, `SEED=${roundSeed}: a larger share went first`);
    const own = waiting.find(({ principal }) => principal === next.principal);
    assert.equal(own, next, `SEED=${roundSeed}: not in the order of the account's own requests`);
    for (const earlier of waiting.slice(0, place)) earlier.overtaken++;
    waiting.splice(place, 1);
    for (const each of waiting) {
      each.releasesSeen++;
      assert.ok(each.overtaken <= overtakesMax, `SEED=${roundSeed}: overtaken ${each.overtaken} times`);
      assert.ok(each.releasesSeen <= overtakesMax + 12, `SEED=${roundSeed}: starves`);
    }
    running.push(next);
  }
  for (const entry of running) entry.permit?.release();
  running = [];
}

function mulberry32(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
