import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toAnswerPart } from './answer-events.ts';

test('toAnswerPart() reads text, reasoning and the end', () => {
  const chunk = { choices: [{ delta: { content: 'a', reasoning_content: 'b' }, finish_reason: null }] };
  assert.deepEqual(toAnswerPart(chunk), { reasoning: 'b', text: 'a', finishReason: null });
  assert.equal(toAnswerPart({ choices: [{ delta: {}, finish_reason: 'stop' }] }).finishReason, 'stop');
  assert.deepEqual(toAnswerPart({ choices: [], usage: {} }), { reasoning: '', text: '', finishReason: null });
});

test('toAnswerPart() throws what the stream reports', () => {
  assert.throws(() => toAnswerPart({ error: { message: 'out of memory' } }), /out of memory/);
  assert.throws(() => toAnswerPart({ error: 'flat' }), /flat/);
  assert.throws(() => toAnswerPart({ error: {} }), /ended with an error/);
});
