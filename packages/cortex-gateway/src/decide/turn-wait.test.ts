import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type TurnOutlook, turnWaitMs } from './turn-wait.ts';
import { type Contender, chooseTurn, type Occupant } from './turns.ts';

const rules = { maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 };

const there: Occupant = {
  ...{ model: 'there', busy: false, waiting: 0, residentSinceMs: 0, idleSinceMs: 100_000 },
  ...{ loadMs: 10_000, gapMs: null, serviceMs: 5000 },
};

const outlook: TurnOutlook = { nowMs: 100_000, loadMs: 8000, queueMs: 0, firstMs: 0, staysMs: 0 };

const waitFor = (victims: readonly Partial<Occupant>[], more: Partial<TurnOutlook> = {}): number =>
  turnWaitMs(
    { ...outlook, ...more },
    victims.map((victim) => ({ ...there, ...victim })),
    rules,
  );

describe('turnWaitMs()', () => {
  test('nothing is waited for nobody, nor for who is idle and past its residency', () => {
    assert.equal(waitFor([]), 0);
    assert.equal(waitFor([{}]), 0);
  });

  test('who just came stays for its residency, who pauses briefly until it is quiet', () => {
    assert.equal(waitFor([{ residentSinceMs: 96_000 }]), 6000);
    assert.equal(waitFor([{ gapMs: 2000 }]), 4000);
  });

  test('who is asked for all the time goes when the newcomer is due', () => {
    // 60 s less a residency of 10, a drain of 5 and a load of 8
    for (const wanted of [{ waiting: 1 }, { busy: true, idleSinceMs: null, gapMs: 500 }]) {
      assert.equal(waitFor([wanted]), 37_000);
    }
    // that holds against its residency as well
    const late = { waiting: 1, residentSinceMs: 99_000, loadMs: 29_000 };
    assert.equal(waitFor([late]), 28_000);
  });

  test('who is in use and pauses for long goes with its last answer', () => {
    assert.equal(waitFor([{ busy: true, idleSinceMs: null, gapMs: 600_000 }]), 0);
  });

  test('who waits there already goes first, and what it loads stays', () => {
    const queued = { queueMs: 8000, firstMs: 20_000 };
    assert.equal(waitFor([{}], queued), 20_000);
    assert.equal(waitFor([{}], { ...queued, staysMs: 9000 }), 29_000);
    // the own wait passes while they load
    assert.equal(waitFor([{ waiting: 1 }], { queueMs: 8000 }), 29_000);
  });

  test('for a victim that stays as it is, that is when chooseTurn() begins the load', () => {
    const victims: readonly Partial<Occupant>[] = [
      ...[{}, { residentSinceMs: 96_000 }, { gapMs: 2000 }, { gapMs: 900 }, { gapMs: 600_000 }],
      ...[{ waiting: 1 }, { waiting: 1, residentSinceMs: 99_000, loadMs: 29_000 }],
      { busy: true, idleSinceMs: null, gapMs: 500 },
    ];
    for (const victim of victims) {
      const contender: Contender = {
        ...{ model: 'new', sinceMs: outlook.nowMs, priority: 0, urgent: false, loadMs: outlook.loadMs },
        evict: [{ ...there, ...victim }],
      };
      const turn = chooseTurn(outlook.nowMs, [contender], rules);
      const beginsMs = turn.kind === 'start' ? outlook.nowMs : turn.untilMs;
      assert.equal(waitFor([victim]), (beginsMs ?? 0) - outlook.nowMs, JSON.stringify(victim));
    }
  });
});
