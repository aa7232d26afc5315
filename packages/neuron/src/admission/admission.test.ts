import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import { Admission, type AdmissionLimits, type Permit } from './admission.ts';

const limits: AdmissionLimits = { maxInFlight: 2, maxQueueDepth: 3, maxWaitMs: 1000, maxPerPrincipal: 0 };
const never = new AbortController().signal;

/** Timers fire when the test says so. */
function manualClock(): Clock & { fireAll(): void } {
  const timers = new Set<() => void>();
  return {
    ...systemClock,
    monotonicMs: () => 0,
    setTimer: (_ms, fire) => {
      const run = (): void => {
        timers.delete(run);
        fire();
      };
      timers.add(run);
      return { cancel: () => void timers.delete(run) };
    },
    fireAll: () => {
      for (const fire of [...timers]) fire();
    },
  };
}

function codeOf(error: unknown): string {
  return error instanceof AppError ? error.code : String(error);
}

describe('Admission', () => {
  it('grants in the order of arrival', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 1 }, manualClock());
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

  it('refuses when the queue is full, with the time to wait', async () => {
    const admission = new Admission(limits, manualClock());
    const running = [admission.acquire(null, never), admission.acquire(null, never)];
    const queued = [1, 2, 3].map(() => admission.acquire(null, never));
    const error = await admission.acquire(null, never).catch((thrown: unknown) => thrown);
    assert.equal(codeOf(error), 'overloaded');
    assert.equal((error as AppError).retryAfterSecs, 8);
    for (const permit of [...running, ...queued]) void permit.then((each) => each.release());
    await Promise.all(queued);
  });

  it('refuses who waited too long, and who has too much already', async () => {
    const clock = manualClock();
    const admission = new Admission({ ...limits, maxInFlight: 1, maxPerPrincipal: 2 }, clock);
    await admission.acquire('a', never);
    const late = admission.acquire('a', never).catch(codeOf);
    assert.equal(await admission.acquire('a', never).catch(codeOf), 'rate_limit_exceeded');
    clock.fireAll();
    assert.equal(await late, 'overloaded');
    assert.equal(admission.counters.rejectedTimeout, 1);
    assert.equal(admission.counters.rejectedPerPrincipal, 1);
  });

  it('refuses everyone who waits once it is closed', async () => {
    const admission = new Admission({ ...limits, maxInFlight: 1 }, manualClock());
    const running = await admission.acquire(null, never);
    const waiting = admission.acquire(null, never).catch(codeOf);
    admission.close();
    assert.equal(await waiting, 'shutting_down');
    assert.equal(await admission.acquire(null, never).catch(codeOf), 'shutting_down');
    const idle = admission.idle(never);
    running.release();
    await idle;
  });

  it('keeps exact counters over random interleavings', async () => {
    const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
    console.log(`SEED=${seed}`);
    const random = mulberry32(seed);
    for (let round = 0; round < 50; round++) {
      const clock = manualClock();
      const admission = new Admission({ ...limits, maxPerPrincipal: 3 }, clock);
      const permits: Permit[] = [];
      const aborts: AbortController[] = [];
      const all: Promise<void>[] = [];
      for (let step = 0; step < 200; step++) {
        const dice = random();
        if (dice < 0.45) {
          const abort = new AbortController();
          aborts.push(abort);
          const principal = random() < 0.3 ? null : `p${Math.floor(random() * 3)}`;
          all.push(
            admission.acquire(principal, abort.signal).then(
              (each) => void permits.push(each),
              () => {},
            ),
          );
        } else if (dice < 0.75) permits.splice(Math.floor(random() * permits.length), 1)[0]?.release();
        else if (dice < 0.95) aborts.splice(Math.floor(random() * aborts.length), 1)[0]?.abort();
        else clock.fireAll();
        if (random() < 0.5) await Promise.resolve();
        const { inFlight, queueDepth } = admission.counters;
        assert.ok(
          inFlight >= 0 && inFlight <= 2 && queueDepth <= 3,
          `SEED=${seed} round ${round} step ${step}`,
        );
        assert.ok(queueDepth === 0 || inFlight === 2, `a free permit and a queue: SEED=${seed}`);
      }
      clock.fireAll();
      await Promise.all(all);
      for (const permit of permits) permit.release();
      const { inFlight, queueDepth } = admission.counters;
      assert.deepEqual({ inFlight, queueDepth }, { inFlight: 0, queueDepth: 0 }, `SEED=${seed}`);
      for (const principal of ['p0', 'p1', 'p2']) (await admission.acquire(principal, never)).release();
    }
  });
});

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
