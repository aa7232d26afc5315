import assert from 'node:assert/strict';
import { test } from 'node:test';
import { draftRowsMax } from 'cortex-core/wire/inference';
import { DraftPolicy, StepCosts } from './draft-policy.ts';

/** A device on which a step takes `base` ms and each drafted row `perRow` more. */
function costs(base: number, perRow: number): StepCosts {
  const known = new StepCosts();
  for (let step = 0; step < 3; step++) {
    for (const drafts of [0, 1, 3, 7, 15, draftRowsMax]) known.observe(drafts, base + perRow * drafts);
  }
  return known;
}

const most = draftRowsMax;

test('where rows are free drafts are as long as they may be', () => {
  assert.equal(new DraftPolicy().wanted(costs(10, 0), most), draftRowsMax);
});

test('where a row costs a step nothing is drafted', () => {
  assert.equal(new DraftPolicy().wanted(costs(10, 10), most), 0);
});

test('nothing is drafted before a plain step was measured', () => {
  assert.equal(new DraftPolicy().wanted(new StepCosts(), most), 0);
});

test('refused drafts end drafting, accepted ones bring it back', () => {
  const policy = new DraftPolicy();
  const known = costs(10, 4);
  let steps = 0;
  while (policy.wanted(known, most) > 0) {
    policy.observe(3, 0);
    assert.ok(++steps < 20, 'still drafting after 20 refusals');
  }
  let pause = 1;
  while (policy.wanted(known, most) === 0) assert.ok(++pause < 100, 'no new try');
  assert.ok(pause > 4, `tried again after ${pause} steps`);
  for (let step = 0; step < 30; step++) policy.observe(7, 7);
  assert.ok(policy.wanted(known, most) >= 7);
  assert.equal(policy.accepted, 210);
});

test('each failed try makes the next pause longer', () => {
  const policy = new DraftPolicy();
  const known = costs(10, 4);
  const pauses: number[] = [];
  for (let round = 0; round < 3; round++) {
    while (policy.wanted(known, most) > 0) policy.observe(3, 0);
    let pause = 0;
    while (policy.wanted(known, most) === 0) pause++;
    pauses.push(pause);
  }
  assert.ok(pauses[0]! < pauses[1]! && pauses[1]! < pauses[2]!, pauses.join(' '));
});

test('StepCosts: a line between two sizes and beyond them; what was not seen for long is forgotten', () => {
  const known = new StepCosts();
  known.observe(0, 10);
  assert.equal(known.estimate(0), null, 'one step says nothing');
  known.observe(0, 10);
  known.observe(0, 10);
  assert.equal(known.estimate(10), 40, 'a guess: 0.3 of a step a row');
  known.observe(10, 30);
  assert.equal(known.estimate(5), 20);
  assert.equal(known.estimate(15), 35, 'further rows are hoped to be cheaper');
  for (let step = 0; step < 600; step++) known.observe(0, 10);
  assert.equal(known.estimate(10), 40);
});

test('StepCosts: a slow first step does not make drafts look cheap for ever', () => {
  const known = new StepCosts();
  known.observe(0, 100);
  for (let step = 0; step < 8; step++) known.observe(0, 10);
  assert.ok((known.estimate(0) ?? 0) < 12);
});

test('a sequence that drafts all the time still shows what a plain step costs', () => {
  const policy = new DraftPolicy();
  const known = costs(10, 0);
  const plain = Array.from({ length: 64 }, () => policy.wanted(known, most)).filter((count) => count === 0);
  assert.equal(plain.length, 4);
});

test('guesses that come true during a pause bring drafting back at once, wrong ones keep it off', () => {
  const known = costs(10, 4);
  const lead = (isRight: boolean): number => {
    const policy = new DraftPolicy();
    while (policy.wanted(known, most) > 0) policy.observe(3, 0);
    let tries = 0;
    for (let step = 0; step < 200; step++) {
      if (policy.wanted(known, most) > 0) {
        tries++;
        policy.observe(3, isRight ? 3 : 0);
      } else policy.watch(isRight);
    }
    return tries;
  };
  assert.ok(lead(true) > 100);
  assert.equal(lead(false), 0);
});

test('never more is drafted than may be', () => {
  assert.equal(new DraftPolicy().wanted(costs(10, 0), 15), 15);
  assert.equal(new DraftPolicy().wanted(costs(10, 0), 8), 7);
});

test('the next turn of a conversation begins with what the last has shown, and soon knows better', () => {
  const known = costs(10, 4);
  const first = new DraftPolicy();
  assert.equal(first.acceptance, null);
  for (let step = 0; step < 40; step++) first.observe(3, 3);
  const next = new DraftPolicy();
  next.expect(first.acceptance ?? 0);
  assert.ok(next.wanted(known, most) > new DraftPolicy().wanted(known, most));
  for (let step = 0; step < 20; step++) next.observe(7, 0);
  assert.equal(next.wanted(known, most), 0);
  next.expect(1);
  assert.equal(next.wanted(known, most), 0, 'what it has seen itself counts');
});

test('drafts behind the end of an answer were not refused', () => {
  const policy = new DraftPolicy();
  policy.observe(most, most);
  const before = policy.acceptance;
  policy.observe(most, 20, true);
  assert.ok((policy.acceptance ?? 0) >= (before ?? 1));
});

test('long drafts are tried when short ones are all accepted, though short rows were dear', () => {
  const known = new StepCosts();
  for (let step = 0; step < 3; step++) {
    for (const drafts of [0, 1, 3, 7, 15]) known.observe(drafts, 28 + 18 * drafts);
  }
  const policy = new DraftPolicy();
  for (let step = 0; step < 20; step++) policy.observe(15, 15);
  assert.equal(policy.wanted(known, most), most);
  known.observe(most, 630);
  assert.equal(policy.wanted(known, most), most, 'they pay');
  known.observe(most, 1200);
  known.observe(most, 1200);
  for (let step = 0; step < 40; step++) known.observe(most, 1200);
  assert.ok(policy.wanted(known, most) < most, 'they do not');
});
