import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LoadProgress } from 'cortex-core/wire/neuron';
import { ProgressDisplay, renderProgressBar } from './progress.ts';

const at = (percent: number, more: Partial<LoadProgress> = {}): LoadProgress => ({
  model_id: 'm',
  phase: 'loading',
  percent,
  bytes_done: 0,
  bytes_total: 0,
  eta_secs: null,
  ...more,
});

test('renderProgressBar() fills from empty to full', () => {
  assert.equal(renderProgressBar(at(0), 80), `loading m [${'-'.repeat(30)}]   0%`);
  assert.equal(renderProgressBar(at(50), 80), `loading m [${'#'.repeat(15)}${'-'.repeat(15)}]  50%`);
  assert.equal(renderProgressBar(at(100), 80), `loading m [${'#'.repeat(30)}] 100%`);
});

test('renderProgressBar() takes numbers that make no sense', () => {
  for (const percent of [-5, 140, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.match(renderProgressBar(at(percent), 60), /(0|100)%$/);
  }
});

test('renderProgressBar() is never wider than the terminal', () => {
  const long = at(42, {
    model_id: 'a-rather-long-model-name',
    eta_secs: 3,
    phase: 'fetching',
    bytes_total: 1e9,
  });
  for (let columns = 1; columns < 120; columns++) {
    assert.ok(renderProgressBar(long, columns).length < columns || columns <= 1, `${columns} columns`);
  }
});

test('renderProgressBar() tells bytes of a download and the time left', () => {
  const text = renderProgressBar(
    at(50, { phase: 'fetching', bytes_done: 2 ** 30, bytes_total: 2 ** 31, eta_secs: 9 }),
    120,
  );
  assert.match(text, /50% {2}1\.0 GiB of 2\.0 GiB {2}eta 9\.0 s$/);
});

test('ProgressDisplay rewrites one line on a terminal and clears it once', () => {
  const written: string[] = [];
  const display = new ProgressDisplay(
    { isTTY: true, columns: 60, write: (text) => written.push(text) },
    '  ',
  );
  display.show(at(10));
  display.show(at(10));
  display.show(at(20));
  display.clear();
  display.clear();
  assert.equal(written.length, 3);
  assert.ok(written.every((text) => text.startsWith('\r\x1b[K') && !text.includes('\n')));
});

test('ProgressDisplay writes a plain line per quarter elsewhere', () => {
  const written: string[] = [];
  const display = new ProgressDisplay({ write: (text) => written.push(text) });
  for (let percent = 0; percent <= 100; percent++) display.show(at(percent));
  display.clear();
  assert.deepEqual(
    written,
    [0, 25, 50, 75, 100].map((percent) => `loading m ${percent}%\n`),
  );
});
