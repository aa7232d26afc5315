import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createStyle, wantsColor } from './style.ts';
import { renderTable } from './table.ts';

test('renderTable() aligns columns and ends no line with a space', () => {
  const table = renderTable(
    [{ title: 'A' }, { title: 'N', align: 'right' }, { title: 'LAST' }],
    [
      ['long name', '1', ''],
      ['b', '100', 'x'],
    ],
  );
  assert.equal(table, 'A            N  LAST\nlong name    1\nb          100  x');
});

test('renderTable() does not count colours, and counts wide characters twice', () => {
  const style = createStyle(true);
  const table = renderTable(
    [{ title: 'A' }, { title: 'B' }],
    [
      [style.green('ok'), '1'],
      ['模型', '2'],
    ],
  );
  const lines = table.split('\n');
  assert.equal(lines[1], `${style.green('ok')}    1`);
  assert.equal(lines[2], '模型  2');
});

test('wantsColor() is a terminal without NO_COLOR', () => {
  assert.equal(wantsColor({ isTTY: true }, {}), true);
  assert.equal(wantsColor({ isTTY: true }, { NO_COLOR: '1' }), false);
  assert.equal(wantsColor({ isTTY: true }, { NO_COLOR: '' }), true);
  assert.equal(wantsColor({ isTTY: true }, { TERM: 'dumb' }), false);
  assert.equal(wantsColor({}, {}), false);
});
