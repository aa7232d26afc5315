import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { promptKeyOf } from './prompt-key.ts';

const user = (content: unknown) => ({ role: 'user', content });
const assistant = { role: 'assistant', content: 'hello' };

describe('promptKeyOf()', () => {
  test('the next turn of a conversation has the same head, another conversation another one', () => {
    const first = promptKeyOf({ messages: [user('hi')] });
    const next = promptKeyOf({ messages: [user('hi'), assistant, user('and then?')] });
    const other = promptKeyOf({ messages: [user('hi there')] });
    assert.equal(first.head, next.head);
    assert.notEqual(first.head, other.head);
    assert.match(first.head, /^[0-9a-f]{16}$/);
  });

  test('texts in parts count as texts do, and where one ends matters', () => {
    const parts = promptKeyOf({ messages: [user([{ type: 'text', text: 'hi' }, { type: 'image_url' }])] });
    assert.equal(parts.head, promptKeyOf({ messages: [user('hi')] }).head);
    const split = promptKeyOf({ messages: [user('ab'), user('c')] });
    assert.notEqual(split.head, promptKeyOf({ messages: [user('a'), user('bc')] }).head);
  });

  test('reads the head of every dialect', () => {
    const heads = [
      { system: 'be brief', messages: [user('hi')] },
      { system: [{ type: 'text', text: 'be brief' }], messages: [user('hi')] },
      { instructions: 'be brief', input: [user('hi')] },
      { messages: [{ role: 'system', content: 'be brief' }, user('hi')] },
      { instructions: 'be brief', input: 'hi' },
    ].map((body) => promptKeyOf(body).head);
    assert.deepEqual(new Set(heads).size, 1);
    assert.equal(promptKeyOf({ prompt: 'hi' }).head, promptKeyOf({ prompt: ['hi'] }).head);
  });

  test('a head stands for at most its first 4,096 characters', () => {
    assert.equal(promptKeyOf({ prompt: 'x'.repeat(9000) }).headTokens, 1024);
    const long = (tail: string) => promptKeyOf({ prompt: 'x'.repeat(4096) + tail }).head;
    assert.equal(long('a'), long('b'));
  });

  test('a session is what the client calls it', () => {
    const of = (body: object): string | null => promptKeyOf(body as never).session;
    assert.equal(of({ prompt_cache_key: 'k', metadata: { session_id: 's' } }), 'k');
    assert.equal(of({ metadata: { session_id: 's' } }), 's');
    const id = 'user_ab_account_1_session_0a1b2c3d-4e5f';
    assert.equal(of({ metadata: { user_id: id } }), '0a1b2c3d-4e5f');
    assert.equal(of({ metadata: { user_id: '{"device_id":"d","session_id":"s-1"}' } }), 's-1');
    assert.equal(of({ metadata: { user_id: 'alice' } }), null, 'a user has many conversations');
    assert.equal(of({ prompt_cache_key: 'k'.repeat(900) })?.length, 200);
  });

  test('what has a wrong type is left out, never thrown', () => {
    for (const body of [
      {},
      { messages: 3, metadata: 'x', prompt_cache_key: 7 },
      { messages: [null, 4, user(null), user([null, 'x', { text: 3 }])], metadata: null },
      { metadata: { user_id: '{"session_id":' } },
      { system: { a: 1 }, input: [[1]] },
    ]) {
      assert.equal(promptKeyOf(body).session, null);
    }
  });
});
