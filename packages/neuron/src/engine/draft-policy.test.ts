import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DraftPlan, DraftPolicy, draftMax, StepCosts } from './draft-policy.ts';

const alone = (): DraftPlan => ({ streams: 1, drafts: 0, tokens: 1 });

/** A device on which a step of one stream takes `base` ms and each further row `perRow`. */
function costs(base: number, perRow: number): StepCosts {
  const known = new StepCosts();
  for (let step = 0; step < 3; step++) {
    for (const drafts of [0, 3, 7, draftMax]) known.observe(1, drafts, base + perRow * drafts);
  }
  return known;
}

test('where rows are free drafts are as long as they may be', () => {
  assert.equal(new DraftPolicy().wanted(alone(), costs(10, 0)), draftMax);
});

test('where a row costs a step nothing is drafted', () => {
  assert.equal(new DraftPolicy().wanted(alone(), costs(10, 10)), 0);
});

test('nothing is drafted before a plain step was measured', () => {
  assert.equal(new DraftPolicy().wanted(alone(), new StepCosts()), 0);
});

test('refused drafts end drafting, accepted ones bring it back', () => {
  const policy = new DraftPolicy();
  const known = costs(10, 4);
  let steps = 0;
  while (policy.wanted(alone(), known) > 0) {
    policy.observe(3, 0);
    assert.ok(++steps < 20, 'still drafting after 20 refusals');
  }
  let pause = 1;
  while (policy.wanted(alone(), known) === 0) assert.ok(++pause < 100, 'no new try');
  assert.ok(pause > 4, `tried again after ${pause} steps`);
  for (let step = 0; step < 30; step++) policy.observe(7, 7);
  assert.ok(policy.wanted(alone(), known) >= 7);
  assert.equal(policy.accepted, 210);
});

test('each failed try makes the next pause longer', () => {
  const policy = new DraftPolicy();
  const known = costs(10, 4);
  const pauses: number[] = [];
  for (let round = 0; round < 3; round++) {
    while (policy.wanted(alone(), known) > 0) policy.observe(3, 0);
    let pause = 0;
    while (policy.wanted(alone(), known) === 0) pause++;
    pauses.push(pause);
  }
  assert.ok(pauses[0]! < pauses[1]! && pauses[1]! < pauses[2]!, pauses.join(' '));
});

test('what others draft counts: a full step leaves no gain', () => {
  const known = new StepCosts();
  for (let step = 0; step < 3; step++) known.observe(4, 0, 20);
  for (let rows = 1; rows <= 30; rows++) known.observe(4, rows, 20 + 5 * rows);
  const plan: DraftPlan = { streams: 4, drafts: 0, tokens: 4 };
  assert.equal(new DraftPolicy().wanted(plan, known), 0);
});

test('StepCosts: a line between two sizes and beyond them; what was not seen for long is forgotten', () => {
  const known = new StepCosts();
  known.observe(1, 0, 10);
  assert.equal(known.estimate(1, 0), null, 'one step says nothing');
  known.observe(1, 0, 10);
  known.observe(1, 0, 10);
  assert.equal(known.estimate(1, 10), 40, 'a guess: 0.3 of a stream a row');
  known.observe(1, 10, 30);
  assert.equal(known.estimate(1, 5), 20);
  assert.equal(known.estimate(1, 15), 40);
  assert.equal(known.estimate(2, 0), null);
  for (let step = 0; step < 600; step++) known.observe(1, 0, 10);
  assert.equal(known.estimate(1, 10), 40);
});

test('StepCosts: a slow first step does not make drafts look cheap for ever', () => {
  const known = new StepCosts();
  known.observe(1, 0, 100);
  for (let step = 0; step < 8; step++) known.observe(1, 0, 10);
  assert.ok((known.estimate(1, 0) ?? 0) < 12);
});

test('a sequence that drafts all the time still shows what a plain step costs', () => {
  const policy = new DraftPolicy();
  const known = costs(10, 0);
  const plain = Array.from({ length: 64 }, () => policy.wanted(alone(), known)).filter(
    (count) => count === 0,
  );
  assert.equal(plain.length, 4);
});
