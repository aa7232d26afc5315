import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FileCapabilities } from './file-capabilities.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'cortex-files-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value: number) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
const string = (key: string, value: string) => Buffer.concat([text(key), u32(8), text(value)]);
const number = (key: string, value: number) => Buffer.concat([text(key), u32(4), u32(value)]);
const strings = (key: string, values: readonly string[]) =>
  Buffer.concat([text(key), u32(9), u32(8), u64(values.length), ...values.map(text)]);

/** A file of a header alone, with the given keys. */
function write(name: string, ...entries: readonly Buffer[]): string {
  const file = join(folder, name);
  const all = [string('general.architecture', 'x'), ...entries];
  writeFileSync(file, Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(all.length), ...all]));
  return file;
}

describe('FileCapabilities', () => {
  it('tells from the header what a load would tell', async () => {
    const files = new FileCapabilities();
    assert.deepEqual((await files.of([tiny])).capabilities, ['text', 'tools', 'reasoning']);
    const rank = write('rank.gguf', number('x.pooling_type', 4));
    assert.deepEqual((await files.of([rank])).capabilities, ['rerank']);
    const template = string('tokenizer.chat_template', '{{ tools }}{{ messages[0].content }}');
    assert.deepEqual(await files.of([write('tools.gguf', template)]), {
      capabilities: ['text', 'tools'],
      tool_call: true,
      reasoning: false,
    });
  });

  it('finds tokens for the middle in the vocabulary', async () => {
    const fim = ['a', '<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>', 'b'.repeat(100)];
    const files = new FileCapabilities();
    const coder = write('coder.gguf', strings('tokenizer.ggml.tokens', fim));
    assert.deepEqual((await files.of([coder])).capabilities, ['text', 'infill']);
    const other = write('other.gguf', strings('tokenizer.ggml.tokens', fim.slice(0, 3)));
    assert.deepEqual((await files.of([other])).capabilities, ['text']);
  });

  it('sees that a file was replaced', async () => {
    const files = new FileCapabilities();
    const file = write('same.gguf', number('x.pooling_type', 1));
    assert.deepEqual((await files.of([file])).capabilities, ['embeddings']);
    write('same.gguf', number('x.pooling_type', 4), string('padding', 'other length'));
    assert.deepEqual((await files.of([file])).capabilities, ['rerank']);
  });

  it('lists what it cannot read as text', async () => {
    const broken = join(folder, 'broken.gguf');
    writeFileSync(broken, 'GGUFxxxx');
    const files = new FileCapabilities();
    for (const each of [[broken], [join(folder, 'none.gguf')], []]) {
      assert.deepEqual((await files.of(each)).capabilities, ['text']);
    }
  });

  it('lists a model whose template does not compile, without its template', async () => {
    const file = write('bad.gguf', string('tokenizer.chat_template', '{% if %}'));
    assert.deepEqual((await new FileCapabilities().of([file])).capabilities, ['text']);
  });
});
