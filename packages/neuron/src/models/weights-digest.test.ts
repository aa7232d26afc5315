import assert from 'node:assert/strict';
import { copyFile, mkdtemp, open, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readGgufHeader } from './gguf-header.ts';
import { templateDigest, weightsDigest } from './weights-digest.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'digest-'));
});
after(() => rm(dir, { recursive: true }));

async function changed(name: string, at: number): Promise<string> {
  const file = join(dir, name);
  await copyFile(tiny, file);
  const handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0] = (byte[0] as number) ^ 1;
  await handle.write(byte, 0, 1, at);
  await handle.close();
  return file;
}

const digestOf = (file: string) => weightsDigest({ files: [file], lora: [] });

test('a copy has the same digest, whatever its name', async () => {
  const copy = join(dir, 'other-name.gguf');
  await copyFile(tiny, copy);
  const digest = await digestOf(tiny);
  assert.match(digest ?? '', /^[0-9a-f]{64}$/);
  assert.equal(await digestOf(copy), digest);
});

test('a byte in the middle of any tensor, or in the vocabulary, makes it another', async () => {
  const header = await readGgufHeader(tiny);
  const digest = await digestOf(tiny);
  for (const tensor of [header.tensors[0], header.tensors.at(-1)]) {
    const middle = header.dataOffset + tensor!.offset + Math.floor(tensor!.bytes! / 2);
    assert.notEqual(await digestOf(await changed('changed.gguf', middle)), digest, tensor!.name);
  }
  assert.notEqual(await digestOf(await changed('vocabulary.gguf', 20_000)), digest);
});

test('an adapter and its scale are part of it', async () => {
  const files = [tiny];
  const digests = [
    await weightsDigest({ files, lora: [] }),
    await weightsDigest({ files, lora: [{ file: tiny, scale: 1 }] }),
    await weightsDigest({ files, lora: [{ file: tiny, scale: 0.5 }] }),
  ];
  assert.equal(new Set(digests).size, 3);
});

test('files that cannot be read have none, and are no failure', async () => {
  assert.equal(await digestOf(join(dir, 'nothing.gguf')), null);
  const half = await changed('half.gguf', 100_000);
  await truncate(half, 500_000);
  assert.equal(await digestOf(half), null);
});

test('templates are told apart, in whatever order they are named', () => {
  const of = (chatTemplate: string | null, namedTemplates: Record<string, string>) =>
    templateDigest({ chatTemplate, namedTemplates });
  assert.equal(of('x', { a: '1', b: '2' }), of('x', { b: '2', a: '1' }));
  assert.equal(new Set([of('x', {}), of('y', {}), of(null, {}), of('x', { a: '1' })]).size, 4);
});
