import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTextStream } from './text-stream.ts';
import { toPiece } from './vocabulary.ts';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Pushes pieces until a stop; returns what was shown. */
function run(
  pieces: readonly Uint8Array[],
  stops: readonly string[],
): { shown: string[]; stop: string | null } {
  const stream = createTextStream(stops);
  const shown: string[] = [];
  for (const piece of pieces) {
    const { text, stop } = stream.push(toPiece(piece));
    shown.push(text);
    if (stop !== null) return { shown, stop };
  }
  shown.push(stream.flush());
  return { shown, stop: null };
}

test('a character that comes byte by byte is shown when it is whole', () => {
  const bytes = bytesOf('aé🦊b');
  const { shown } = run(
    [...bytes].map((byte) => Uint8Array.of(byte)),
    [],
  );
  assert.deepEqual(shown, ['a', '', 'é', '', '', '', '🦊', 'b', '']);
});

test('every cut of a text gives the same text and no half characters', () => {
  const text = 'naïve 🦊 日本 café';
  const bytes = bytesOf(text);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const { shown } = run([bytes.slice(0, cut), bytes.slice(cut)], []);
    assert.equal(shown.join(''), text);
    for (const part of shown) assert.ok(!part.includes('\uFFFD'));
  }
});

test('an unfinished character becomes U+FFFD only at the end', () => {
  const { shown } = run([bytesOf('ok'), Uint8Array.of(0xf0, 0x9f)], []);
  assert.deepEqual(shown, ['ok', '', '\uFFFD']);
});

test('bytes that are never UTF-8 do not block what follows', () => {
  const { shown } = run([Uint8Array.of(0xff), bytesOf('a'), bytesOf('b')], []);
  assert.equal(shown.join(''), '\uFFFDab');
});

test('a stop is found wherever the pieces are cut, and nothing of it is shown', () => {
  const before = 'one, two';
  const bytes = bytesOf(`${before}<END>three`);
  for (let first = 0; first <= bytes.length; first++) {
    for (let second = first; second <= bytes.length; second++) {
      const pieces = [bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)];
      const { shown, stop } = run(pieces, ['<END>', '<ENX>']);
      assert.equal(stop, '<END>');
      assert.equal(shown.join(''), before);
    }
  }
});

test('text that only began a stop is shown as soon as it cannot be one', () => {
  const { shown } = run(['ab', '<E', 'x', '<', ''].map(bytesOf), ['<END>']);
  assert.deepEqual(shown, ['ab', '', '<Ex', '', '', '<']);
});

test('overlapping beginnings: aab after aaab', () => {
  const { shown, stop } = run(['a', 'a', 'a', 'b'].map(bytesOf), ['aab']);
  assert.equal(shown.join(''), 'a');
  assert.equal(stop, 'aab');
});

test('the stop that begins first wins, then the longer', () => {
  assert.equal(run([bytesOf('xaby')], ['b', 'ab']).stop, 'ab');
  assert.equal(run([bytesOf('xaby')], ['a', 'ab']).stop, 'ab');
});
