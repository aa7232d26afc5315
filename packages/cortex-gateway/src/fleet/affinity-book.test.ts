import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AffinityBook } from './affinity-book.ts';
import type { AnswerFacts } from './ask.ts';

const session = (key: string) => ({ key, headTokens: null });

const facts = (promptTokens: number, cachedTokens: number | null, completionTokens = 10): AnswerFacts => ({
  ...{ promptTokens, cachedTokens, completionTokens },
  ...{ prefillMs: null, decodeMs: null, firstTokenMs: null, totalMs: 1 },
});

const believed = (book: AffinityBook, key: string): Record<string, number> =>
  Object.fromEntries(book.cachedFor('m', session(key)).map(({ node, tokens }) => [node, tokens]));

describe('AffinityBook', () => {
  test('a conversation that goes on is believed to be cached whole', () => {
    const book = new AffinityBook();
    book.note('m', session('s'), 'a', facts(100, 0));
    assert.deepEqual(believed(book, 's'), { a: 110 });
    book.note('m', session('s'), 'a', facts(200, 110));
    assert.deepEqual(believed(book, 's'), { a: 210 });
  });

  test('measured misses lower the belief, hits raise it again, no measurement leaves it', () => {
    const book = new AffinityBook();
    book.note('m', session('s'), 'a', facts(100, 0, 0));
    book.note('m', session('s'), 'a', facts(100, 0, 0));
    assert.deepEqual(believed(book, 's'), { a: 50 });
    book.note('m', session('s'), 'a', facts(100, null, 0));
    assert.deepEqual(believed(book, 's'), { a: 50 });
    book.note('m', session('s'), 'a', facts(100, 100, 0));
    assert.deepEqual(believed(book, 's'), { a: 75 });
  });

  test('a head alone stands for its own tokens until answers show more', () => {
    const book = new AffinityBook();
    const head = { key: 'head', headTokens: 40 };
    book.note('m', head, 'a', facts(100, 0, 0));
    assert.deepEqual(
      book.cachedFor('m', head).map(({ tokens }) => tokens),
      [40],
    );
    book.note('m', head, 'a', facts(100, 100, 0));
    assert.deepEqual(
      book.cachedFor('m', head).map(({ tokens }) => tokens),
      [70],
    );
  });

  test('remembers four nodes of a key, of other models and keys nothing', () => {
    const book = new AffinityBook();
    for (const node of ['a', 'b', 'c', 'd', 'e']) book.note('m', session('s'), node, facts(100, 0, 0));
    assert.deepEqual(believed(book, 's'), { b: 100, c: 100, d: 100, e: 100 });
    assert.deepEqual(book.cachedFor('other', session('s')), []);
    assert.deepEqual(book.cachedFor('m', null), []);
  });

  test('stays within its limit: the longest unused key goes', () => {
    const book = new AffinityBook(2);
    book.note('m', session('1'), 'a', facts(100, 0));
    book.note('m', session('2'), 'a', facts(100, 0));
    book.note('m', session('1'), 'a', facts(100, 100));
    book.note('m', session('3'), 'a', facts(100, 0));
    assert.equal(book.size, 2);
    assert.deepEqual([believed(book, '2'), Object.keys(believed(book, '1'))], [{}, ['a']]);
  });

  test('a node that loaded the model anew has nothing cached', () => {
    const book = new AffinityBook();
    book.note('m', session('s'), 'a', facts(100, 0, 0));
    book.note('m', session('s'), 'b', facts(100, 0, 0));
    book.note('m2', session('s'), 'a', facts(100, 0, 0));
    book.forget('a', new Set(['m']));
    assert.deepEqual(believed(book, 's'), { b: 100 });
    assert.equal(book.cachedFor('m2', session('s')).length, 1);
  });
});
