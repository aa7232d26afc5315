import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outbox } from './outbox.ts';

const step = (text: string) => ({ text, tokens: [text.length] });

test('the first token of a stream leaves at once, later ones are gathered and lose nothing', () => {
  const outbox = new Outbox(16);
  outbox.addStep(1, step('a'));
  assert.deepEqual(outbox.take(100, false)?.steps, [{ id: 1, event: step('a') }]);
  outbox.addStep(1, step('bb'));
  assert.equal(outbox.take(115, false), null);
  outbox.addStep(1, step('ccc'));
  outbox.addStep(2, step('x'));
  assert.deepEqual(outbox.take(115, false)?.steps, [
    { id: 1, event: step('bb') },
    { id: 1, event: step('ccc') },
    { id: 2, event: step('x') },
  ]);
});

test('after its time, at the end of a job, and when no turn follows, everything leaves', () => {
  const outbox = new Outbox(16);
  outbox.addStep(1, step('a'));
  outbox.take(100, false);
  outbox.addStep(1, step('b'));
  assert.equal(outbox.take(116, false)?.steps.length, 1);
  outbox.addStep(1, step('c'));
  assert.equal(outbox.take(117, true)?.steps.length, 1);
  outbox.addStep(1, step('d'));
  outbox.settle({ id: 1, ok: true, result: null });
  const last = outbox.take(118, false);
  assert.deepEqual([last?.steps.length, last?.settled.length], [1, 1]);
  assert.equal(outbox.take(200, true), null);
});
