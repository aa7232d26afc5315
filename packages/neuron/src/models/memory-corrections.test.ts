import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Log, silentLog } from 'cortex-core/daemon/log';
import { MemoryCorrections } from './memory-corrections.ts';

describe('MemoryCorrections', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'corrections-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  it('predicts what was seen at the same context, and for other files nothing', () => {
    const corrections = new MemoryCorrections(null, silentLog);
    corrections.remember('a', 4096, 1000, 1100);
    assert.equal(corrections.predict('a', 4096, 1000), 1100);
    assert.equal(corrections.predict('b', 4096, 1000), 1000);
  });

  it('carries what was missing to other contexts, to the safe side', () => {
    const corrections = new MemoryCorrections(null, silentLog);
    corrections.remember('a', 4096, 1000, 1100);
    // 100 MiB more, or a tenth more: the larger of the two.
    assert.equal(corrections.predict('a', 8192, 1500), 1650);
    assert.equal(corrections.predict('a', 1024, 700), 800);
    corrections.remember('c', 4096, 1000, 900);
    assert.equal(corrections.predict('c', 8192, 1500), 1400);
    assert.equal(corrections.predict('c', 1024, 700), 630);
  });

  it('takes the nearest of several contexts, and drops an old pair of another estimate', () => {
    const corrections = new MemoryCorrections(null, silentLog);
    corrections.remember('a', 1024, 500, 500);
    corrections.remember('a', 32_768, 4000, 4400);
    assert.equal(corrections.predict('a', 2048, 600), 600);
    assert.equal(corrections.predict('a', 16_384, 2500), 2900);
    assert.equal(
      corrections.predict('a', 1024, 800),
      800,
      'the estimate has changed: no longer the same load',
    );
  });

  it('survives a restart', async () => {
    const file = join(dir, 'deep', 'state.json');
    const first = new MemoryCorrections(file, silentLog);
    await first.read();
    first.remember('a', 4096, 1000, 1100);
    first.remember('b', 4096, 2000, 2100);
    await first.written();
    const second = new MemoryCorrections(file, silentLog);
    await second.read();
    assert.equal(second.predict('a', 4096, 1000), 1100);
    assert.equal(second.predict('b', 4096, 2000), 2100);
    assert.deepEqual(readdirSync(join(dir, 'deep')), ['state.json']);
  });

  it('leaves a file out that is damaged, with a warning, and replaces it', async () => {
    const file = join(dir, 'broken.json');
    const texts = [
      '{"version":1,"kinds":[{"key":"a"',
      '[]',
      'null',
      '{"version":1,"kinds":[{"key":"a","seen":[{"context":4096,"estimate_mb":1,"actual_mb":-5}]}]}',
      '{"version":1,"kinds":[{"key":"a","seen":[{"context":4096,"estimate_mb":1000,"actual_mb":900000}]}]}',
      `{"version":1,"kinds":${JSON.stringify(Array.from({ length: 300 }, () => ({ key: '', seen: [] })))}}`,
      ' '.repeat(5_000_000),
    ];
    for (const text of texts) {
      writeFileSync(file, text);
      const warnings: string[] = [];
      const log: Log = { ...silentLog, warn: (message) => void warnings.push(message) };
      const corrections = new MemoryCorrections(file, log);
      await corrections.read();
      assert.equal(warnings.length, 1, text.slice(0, 40));
      assert.equal(corrections.predict('a', 4096, 1000), 1000);
      corrections.remember('a', 4096, 1000, 1100);
      await corrections.written();
      assert.match(readFileSync(file, 'utf8'), /"actual_mb":1100/);
    }
  });

  it('says that it cannot write, and goes on', async () => {
    writeFileSync(join(dir, 'taken'), '');
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (message) => void warnings.push(message) };
    const corrections = new MemoryCorrections(join(dir, 'taken', 'state.json'), log);
    corrections.remember('a', 4096, 1000, 1100);
    await corrections.written();
    assert.equal(warnings.length, 1);
    assert.equal(corrections.predict('a', 4096, 1000), 1100);
  });

  it('leaves out what its own file could not hold', async () => {
    const file = join(dir, 'long.json');
    const corrections = new MemoryCorrections(file, silentLog);
    corrections.remember('k'.repeat(9000), 4096, 1000, 1100);
    corrections.remember('a', 4096, 1000, 1100);
    await corrections.written();
    const again = new MemoryCorrections(file, silentLog);
    await again.read();
    assert.equal(again.predict('a', 4096, 1000), 1100);
  });

  it('keeps at most 256 kinds of 8 contexts, the newest', async () => {
    const file = join(dir, 'many.json');
    const corrections = new MemoryCorrections(file, silentLog);
    for (let kind = 0; kind < 300; kind++) {
      for (let context = 1; context <= 12; context++) corrections.remember(`k${kind}`, context, 100, 101);
    }
    await corrections.written();
    const { kinds } = JSON.parse(readFileSync(file, 'utf8')) as { kinds: { key: string; seen: unknown[] }[] };
    assert.equal(kinds.length, 256);
    assert.equal(kinds.at(-1)?.key, 'k299');
    assert.ok(kinds.every(({ seen }) => seen.length === 8));
    const again = new MemoryCorrections(file, silentLog);
    await again.read();
    assert.equal(again.predict('k299', 12, 100), 101);
  });
});
