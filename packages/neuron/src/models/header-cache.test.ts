import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { GgufFault, type GgufHeader } from './gguf-header.ts';
import { HeaderCache } from './header-cache.ts';

const folder = mkdtempSync(join(tmpdir(), 'cortex-headers-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, content: string): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  return file;
}

function start(filesMax?: number) {
  const reads: string[] = [];
  const fails: Error[] = [];
  const cache = new HeaderCache(async (file) => {
    reads.push(file);
    const error = fails.shift();
    if (error !== undefined) throw error;
    return {} as GgufHeader;
  }, filesMax);
  return { cache, reads, fails };
}

test('an unchanged file is read once, also by two who ask at the same time, a changed one again', async () => {
  const { cache, reads } = start();
  const file = write('a.gguf', 'one');
  const [first, second] = await Promise.all([cache.read(file), cache.read(file)]);
  assert.equal(await cache.read(file), first);
  assert.equal(second, first);
  assert.equal(reads.length, 1);
  write('a.gguf', 'one and more');
  assert.notEqual(await cache.read(file), first);
  assert.equal(reads.length, 2);
});

test('a broken file is read once, one that could not be read is tried again', async () => {
  const { cache, reads, fails } = start();
  const file = write('b.gguf', 'x');
  fails.push(new Error('EIO'), new GgufFault('it is broken'));
  await assert.rejects(cache.read(file), { message: 'EIO' });
  await assert.rejects(cache.read(file), GgufFault);
  await assert.rejects(cache.read(file), GgufFault);
  assert.equal(reads.length, 2);
});

test('the files that were asked for last are kept, and no more', async () => {
  const { cache, reads } = start(2);
  const [a, b, c] = ['1', '2', '3'].map((name) => write(name, name)) as [string, string, string];
  for (const file of [a, b, a, c, a, b]) await cache.read(file);
  assert.deepEqual(reads, [a, b, c, b]);
});
