import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { FileWatch, signFiles } from './file-watch.ts';

const dir = mkdtempSync(join(tmpdir(), 'file-watch-'));
after(() => rmSync(dir, { recursive: true }));

/** `look` moves to the next look and waits until it is over, which is when the one after it is set. */
function setUp(path: string) {
  const clock = new FakeClock();
  const state = { isOn: true, changes: 0 };
  const watch = new FileWatch({
    clock,
    paths: () => [path],
    isOn: () => state.isOn,
    onChange: () => state.changes++,
    since: signFiles([path]),
  });
  const look = async (): Promise<void> => {
    await clock.advance(1000);
    while (clock.pending === 0) await new Promise((resolve) => setImmediate(resolve));
  };
  return { state, watch, look, clock };
}

test('a file that is replaced, written, linked anew or removed is told once each', async () => {
  const path = join(dir, 'a.toml');
  writeFileSync(path, '1');
  const { state, watch, look } = setUp(path);
  await look();
  await look();
  assert.equal(state.changes, 0);
  const ways = [
    () => writeFileSync(path, '22'),
    () => {
      writeFileSync(`${path}.new`, '33');
      renameSync(`${path}.new`, path);
    },
    () => {
      unlinkSync(path);
      symlinkSync(join(dir, 'target'), path);
    },
    () => writeFileSync(join(dir, 'target'), '4'),
    () => unlinkSync(path),
  ];
  for (const [i, change] of ways.entries()) {
    change();
    for (let looks = 0; looks < 4; looks++) await look();
    assert.equal(state.changes, i === 2 ? 3 : i + 1, `way ${i}`);
  }
  watch.close();
});

test('what changed between the reading and the first look is told', async () => {
  const path = join(dir, 'early.toml');
  writeFileSync(path, '1');
  const { state, watch, look } = setUp(path);
  writeFileSync(path, '22');
  await look();
  await look();
  assert.equal(state.changes, 1);
  watch.close();
});

test('a file that is still being written is not read', async () => {
  const path = join(dir, 'b.toml');
  writeFileSync(path, '');
  const { state, watch, look } = setUp(path);
  await look();
  for (let i = 1; i <= 5; i++) {
    writeFileSync(path, 'x'.repeat(i));
    await look();
    assert.equal(state.changes, 0);
  }
  await look();
  assert.equal(state.changes, 1);
  watch.close();
});

test('what changes while it is off is not told later, and a closed one leaves no timer', async () => {
  const path = join(dir, 'c.toml');
  writeFileSync(path, '');
  const { state, watch, look, clock } = setUp(path);
  await look();
  state.isOn = false;
  writeFileSync(path, 'changed');
  await look();
  await look();
  state.isOn = true;
  await look();
  await look();
  assert.equal(state.changes, 0);
  watch.close();
  assert.equal(clock.pending, 0);
});
