import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { RateBook } from './rate-book.ts';

describe('RateBook', () => {
  test('the first measurement counts whole, later ones by three tenths', () => {
    const book = new RateBook();
    book.note('a', 'm', 'prefillTokS', 100);
    assert.equal(book.of('a', 'm')?.prefillTokS, 100);
    book.note('a', 'm', 'prefillTokS', 200);
    assert.equal(book.of('a', 'm')?.prefillTokS, 130);
    assert.equal(book.of('a', 'm')?.decodeTokS, null);
  });

  test('nobody is better than the best, and a best that has passed is forgotten', () => {
    const book = new RateBook();
    assert.equal(book.bestOf('m'), null);
    book.note('a', 'm', 'prefillTokS', 900);
    assert.deepEqual(book.bestOf('m'), { prefillTokS: 900, serviceMs: Number.POSITIVE_INFINITY });
    book.note('b', 'm', 'serviceMs', 50);
    for (let i = 0; i < 1000; i++) {
      book.note('a', 'm', 'prefillTokS', 100);
      book.note('b', 'm', 'serviceMs', 400);
      const { prefillTokS = 0, serviceMs = 0 } = book.bestOf('m') ?? {};
      assert.ok(prefillTokS >= (book.of('a', 'm')?.prefillTokS ?? 0) && serviceMs <= 400);
    }
    assert.ok((book.bestOf('m')?.prefillTokS ?? 0) < 101);
    assert.ok((book.bestOf('m')?.serviceMs ?? 0) > 399);
  });

  test('what is no positive number changes nothing', () => {
    const book = new RateBook();
    for (const value of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) book.note('a', 'm', 'loadMs', value);
    assert.equal(book.of('a', 'm'), null);
    assert.equal(book.version, 0);
  });

  test('means follow what each node has now', () => {
    const book = new RateBook();
    book.note('a', 'm', 'loadMs', 1000);
    book.note('b', 'm', 'loadMs', 3000);
    book.note('a', 'm', 'loadMs', 2000);
    assert.equal(book.ofModel('m')?.loadMs, (1300 + 3000) / 2);
    assert.deepEqual([...book.byNode('m').keys()], ['a', 'b']);
    assert.equal(book.ofModel('other'), null);
  });

  test('a load tells how fast the node reads, for models it never had', () => {
    const book = new RateBook();
    book.noteLoad('a', 'm', 2000, 4000);
    assert.equal(book.loadMbS('a'), 2000);
    book.noteLoad('a', 'unsized', 2000, 0);
    assert.equal(book.loadMbS('a'), 2000);
  });

  test('rows restore all of it, and never over what this life has measured', () => {
    const book = new RateBook();
    book.note('a', 'm', 'serviceMs', 500);
    book.noteLoad('a', 'm', 2000, 4000);
    const rows = JSON.parse(JSON.stringify(book.toRows()));
    const next = new RateBook();
    next.note('a', 'm', 'serviceMs', 900);
    next.restore(rows);
    assert.deepEqual(next.of('a', 'm'), {
      ...{ loadMs: 2000, prefillTokS: null, decodeTokS: null, serviceMs: 900 },
    });
    assert.equal(next.loadMbS('a'), 2000);
  });

  test('it stays within its limit, and keeps what was touched last', () => {
    const book = new RateBook();
    for (let i = 0; i < 20_050; i++) book.note('n', `m${i}`, 'loadMs', 1 + i);
    assert.equal(book.toRows().rates.length, 20_000);
    assert.equal(book.of('n', 'm0'), null);
    assert.equal(book.of('n', 'm20049')?.loadMs, 20_050);
  });
});
