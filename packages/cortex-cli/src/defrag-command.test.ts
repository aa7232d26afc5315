import assert from 'node:assert/strict';
import { test } from 'node:test';
import { renderDefrag } from './defrag-command.ts';
import { createStyle } from './style.ts';

const plan = {
  node: 'beast',
  makes_room_for: 'qwen3-32b',
  moves: [{ model: 'qwen3-4b', from: 1, to: 0, vram_mb: 3072 }],
  moved_mb: 3072,
  recycle: [{ device: 0, models: ['llama'], why: '31 models were unloaded there since its owner started' }],
  why: 'qwen3-32b needs 20480 MiB, which are free only in pieces',
};

test('a dry run shows each step, and that nothing was changed', () => {
  assert.equal(
    renderDefrag({ dry_run: true, nodes: [plan] }, createStyle(false)),
    'beast  qwen3-32b needs 20480 MiB, which are free only in pieces\n' +
      '  move     qwen3-4b, device 1 to 0, 3.0 GiB\n' +
      '  recycle  device 0: 31 models were unloaded there since its owner started; with llama\n' +
      'nothing was changed; leave out --dry-run to do it\n',
  );
});

test('a node where nothing is worth doing says why', () => {
  const nothing = {
    ...plan,
    moves: [],
    recycle: [],
    moved_mb: 0,
    makes_room_for: null,
    why: 'no model is kept out by fragments',
  };
  const done = { moves: 0, recycled: 0, reloading: [], error: null };
  const text = renderDefrag({ dry_run: false, nodes: [{ ...nothing, done }] }, createStyle(false));
  assert.equal(text, 'beast  nothing to do: no model is kept out by fragments\n');
});

test('what was done comes first, and what is still on its way', () => {
  const done = { moves: 1, recycled: 1, reloading: ['llama'], error: null };
  const text = renderDefrag({ dry_run: false, nodes: [{ ...plan, done }] }, createStyle(false));
  assert.match(text, /^beast {2}1 model moved \(3\.0 GiB\), 1 device recycled, being loaded again: llama\n/);
});
