import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Contender, chooseTurn, type Occupant, type TurnRules } from './turns.ts';

const rules: TurnRules = { maxWaitMs: 120_000, residencyFactor: 1, residencyMaxMs: 30_000 };

const occupant = (more: Partial<Occupant> = {}): Occupant => ({
  model: 'there',
  busy: false,
  waiting: 0,
  residentSinceMs: 0,
  idleSinceMs: 0,
  loadMs: 10_000,
  gapMs: null,
  serviceMs: 5000,
  ...more,
});

const contender = (more: Partial<Contender> = {}): Contender => ({
  model: 'new',
  sinceMs: 0,
  priority: 0,
  urgent: false,
  loadMs: 10_000,
  evict: [occupant()],
  ...more,
});

describe('chooseTurn()', () => {
  test('a model that fits starts at once, before one that has to displace', () => {
    const turn = chooseTurn(
      0,
      [
        contender({ evict: [occupant({ busy: true })] }),
        contender({ model: 'small', sinceMs: 5, evict: [] }),
      ],
      rules,
    );
    assert.deepEqual(turn, { kind: 'start', model: 'small', reason: 'fits' });
  });

  test('a busy model, or one with requests in line, stays until somebody is due', () => {
    for (const wanted of [{ busy: true }, { waiting: 3 }]) {
      const evict = [occupant(wanted)];
      // 120 s less residency 10, draining 5 and loading 10
      assert.deepEqual(chooseTurn(50_000, [contender({ evict })], rules), { kind: 'hold', untilMs: 95_000 });
      assert.deepEqual(chooseTurn(95_000, [contender({ evict })], rules), {
        kind: 'start',
        model: 'new',
        reason: 'due',
      });
    }
  });

  test('two who wait begin early enough for the second', () => {
    const evict = [occupant({ busy: true })];
    const both = [
      contender({ evict, sinceMs: 10_000 }),
      contender({ model: 'second', evict, sinceMs: 10_001 }),
    ];
    // 130.001 s less two turns of 25 s
    assert.deepEqual(chooseTurn(50_000, both, rules), { kind: 'hold', untilMs: 80_001 });
    assert.deepEqual(chooseTurn(80_001, both, rules), { kind: 'start', model: 'new', reason: 'due' });
  });

  test('who is due goes by age, whatever its priority; before that the priority decides', () => {
    const old = contender({ model: 'old', sinceMs: 0, priority: 0, evict: [occupant({ gapMs: 900_000 })] });
    const important = contender({ ...old, model: 'important', sinceMs: 1000, priority: 9 });
    const early = chooseTurn(5000, [old, important], rules);
    assert.deepEqual(early, { kind: 'start', model: 'important', reason: 'idle' });
    const late = chooseTurn(119_000, [old, important], rules);
    assert.equal(late.kind === 'start' && late.model, 'old');
  });

  test('an idle model that is not wanted soon leaves at once, even right after its load', () => {
    const evict = [occupant({ residentSinceMs: 1000, idleSinceMs: 1500, gapMs: 60_000 })];
    assert.equal(chooseTurn(1500, [contender({ evict })], rules).kind, 'start');
  });

  test('one that is used every few seconds stays through the pause, not for longer', () => {
    const evict = [occupant({ residentSinceMs: 0, idleSinceMs: 50_000, gapMs: 2000 })];
    const asks = [contender({ evict, sinceMs: 50_000 })];
    assert.deepEqual(chooseTurn(51_000, asks, rules), { kind: 'hold', untilMs: 54_000 });
    assert.deepEqual(chooseTurn(54_000, asks, rules), { kind: 'start', model: 'new', reason: 'idle' });
  });

  test('a fresh load of unknown habits stays for its minimum residency, with the cap', () => {
    const evict = [occupant({ residentSinceMs: 1000, idleSinceMs: 2000, loadMs: 300_000 })];
    assert.deepEqual(chooseTurn(2000, [contender({ evict })], rules), { kind: 'hold', untilMs: 31_000 });
  });

  test('what was there before anyone looked may leave', () => {
    const evict = [occupant({ residentSinceMs: null, idleSinceMs: null })];
    assert.equal(chooseTurn(1, [contender({ evict })], rules).kind, 'start');
  });

  test('a person who asks waits for no residency and no request in line', () => {
    const evict = [occupant({ residentSinceMs: 999, busy: true })];
    const turn = chooseTurn(1000, [contender({ evict, urgent: true })], rules);
    assert.deepEqual(turn, { kind: 'start', model: 'new', reason: 'asked' });
  });

  test('while somebody due waits for a residency to end, no longer load goes before', () => {
    const due = contender({ evict: [occupant({ residentSinceMs: 115_000, busy: true })] });
    const slow = contender({ model: 'slow', sinceMs: 1, loadMs: 20_000, evict: [] });
    const quick = contender({ ...slow, model: 'quick', loadMs: 1000 });
    assert.deepEqual(chooseTurn(119_000, [due, slow], rules), { kind: 'hold', untilMs: 125_000 });
    assert.deepEqual(chooseTurn(119_000, [due, quick], rules), {
      kind: 'start',
      model: 'quick',
      reason: 'fits',
    });
  });

  test('nobody waits: nothing to do', () => {
    assert.deepEqual(chooseTurn(1, [], rules), { kind: 'hold', untilMs: null });
  });
});
