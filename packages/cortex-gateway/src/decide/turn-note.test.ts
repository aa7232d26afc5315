import assert from 'node:assert/strict';
import { test } from 'node:test';
import { turnNote } from './turn-note.ts';
import type { Contender, Occupant } from './turns.ts';

const rules = { maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 };

const there: Occupant = {
  ...{ model: 'there', busy: false, waiting: 0, residentSinceMs: null, idleSinceMs: 0 },
  ...{ loadMs: 10_000, gapMs: null, serviceMs: 5000 },
};

const newcomer = (evict: readonly Occupant[]): Contender => ({
  ...{ model: 'new', sinceMs: 0, priority: 0, urgent: false, loadMs: 10_000, evict },
});

const noteOf = (evict: readonly Occupant[]) => turnNote('new', 0, [newcomer(evict)], rules);

test('a load that displaces nobody has nothing to say about its turn', () => {
  assert.equal(noteOf([]), null);
});

test('a load that waits says for how long at the latest, who is in its way and why', () => {
  assert.equal(noteOf([there]), 'its turn is now: there is idle');
  assert.match(
    noteOf([{ ...there, busy: true }]) ?? '',
    /in 35\.0 s at the latest.*: there answers requests \(about 5\.0 s to drain\)$/,
  );
  assert.match(
    noteOf([{ ...there, waiting: 2, residentSinceMs: -4000 }]) ?? '',
    /2 requests wait for there, stays 6\.0 s/,
  );
  assert.match(noteOf([{ ...there, residentSinceMs: -4000 }]) ?? '', /in 6\.0 s .*there stays 6\.0 s yet/);
});

test('behind another load it says whose turn is first', () => {
  const small = { ...newcomer([]), model: 'small' };
  const note = turnNote('new', 0, [newcomer([{ ...there, busy: true }]), small], rules);
  assert.match(note ?? '', /after that of small/);
});
