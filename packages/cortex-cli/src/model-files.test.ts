import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { findLocalModelDirs, findShippedModelDir, parseModelArgument } from './model-files.ts';
import { distDir } from './terminal.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-model-files-'));
after(() => rmSync(dir, { recursive: true }));
mkdirSync(join(dir, 'models/inner'), { recursive: true });
mkdirSync(join(dir, 'models/empty'));
writeFileSync(join(dir, 'models/inner/good.gguf'), 'GGUF....');
writeFileSync(join(dir, 'empty.gguf'), '');
writeFileSync(join(dir, 'text.gguf'), 'hello, this is text');

test('findShippedModelDir() finds the model of this repository', () => {
  assert.match(findShippedModelDir(distDir) ?? '', /models\/cortex-tiny$/);
  assert.equal(findShippedModelDir(dir), null);
});

test('findLocalModelDirs() returns folders that hold a GGUF', () => {
  assert.deepEqual(findLocalModelDirs(dir), [join(dir, 'models/inner')]);
  assert.deepEqual(findLocalModelDirs(join(dir, 'models/inner')), []);
});

test('parseModelArgument() takes a file apart and leaves an id alone', () => {
  const inner = join(dir, 'models/inner');
  assert.deepEqual(parseModelArgument('models/inner/good.gguf', dir), { id: 'good', dir: inner });
  assert.deepEqual(parseModelArgument('Qwen/Qwen3-8B-GGUF', dir), { id: 'Qwen/Qwen3-8B-GGUF', dir: null });
});

test('parseModelArgument() says in one line what is wrong with a file', () => {
  assert.throws(() => parseModelArgument('nowhere.gguf', dir), /nowhere\.gguf does not exist; give/);
  assert.throws(() => parseModelArgument('./nowhere', dir), /does not exist/);
  assert.throws(() => parseModelArgument('empty.gguf', dir), /is empty; download it again/);
  assert.throws(() => parseModelArgument('text.gguf', dir), /is not a GGUF file/);
  assert.throws(() => parseModelArgument('./models', dir), /is a directory/);
});
