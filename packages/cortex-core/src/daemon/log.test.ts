import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog } from './log.ts';

test('a level that is changed counts at once, for children too', () => {
  const lines: string[] = [];
  const log = createLog('warn', { write: (line) => void lines.push(line) });
  const child = log.child({ device: 'cpu' });
  const say = () => {
    log.info('a');
    child.debug('b');
    log.error('c');
  };
  const said = () => lines.splice(0).map((line) => (JSON.parse(line) as { message: string }).message);
  say();
  assert.deepEqual(said(), ['c']);
  log.setLevel('debug');
  say();
  assert.deepEqual(said(), ['a', 'b', 'c']);
  log.setLevel('silent');
  say();
  assert.deepEqual(said(), []);
});
