import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, formatMb, quoteForShell, toPrintable } from './text.ts';

test('formatMb() changes to GiB at 1024 and says - for the unknown', () => {
  assert.deepEqual([512, 1023, 7680, null, Number.NaN].map(formatMb), [
    '512 MiB',
    '1023 MiB',
    '7.5 GiB',
    '-',
    '-',
  ]);
});

test('formatDuration() never shows sixty of anything', () => {
  const shown = [0, 999, 59_949, 59_999, 3_599_600, 3_600_000, 90_000_000].map(formatDuration);
  assert.deepEqual(shown, ['0 ms', '999 ms', '59.9 s', '1 min 0 s', '1 h 0 min', '1 h 0 min', '1 d 1 h']);
});

test('toPrintable() takes escape sequences out and leaves line breaks, tabs and other scripts', () => {
  assert.equal(toPrintable('a\x1b[31mb\x1b]0;title\x07\x00c\n\tд\u009b'), 'abc\n\tд');
});

test('quoteForShell() makes one word of anything', () => {
  assert.equal(quoteForShell('plain-1.gguf'), 'plain-1.gguf');
  assert.equal(quoteForShell("it's $HOME"), `'it'\\''s $HOME'`);
});
