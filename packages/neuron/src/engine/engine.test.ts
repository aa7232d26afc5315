import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { loadLibrary } from '../libllama/load-library.ts';
import { ask, franceQuestion, tinyFile, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';

const scratch = mkdtempSync(join(tmpdir(), 'cortex-engine-'));
const engine = new Engine({ nativeLog: false });
after(() => {
  engine.close();
  rmSync(scratch, { recursive: true, force: true });
});

test("devices() shows a CPU, memory() is the host's without a GPU", () => {
  assert.ok(engine.devices().some((device) => device.kind === 'cpu' && device.memory.totalMb > 0));
  const { freeMb, totalMb } = engine.memory();
  assert.ok(freeMb > 0 && freeMb <= totalMb);
});

test('load() reports progress up to 1 and the facts of cortex-tiny', () => {
  const seen: number[] = [];
  const model = engine.load(tinySpec(), (fraction) => seen.push(fraction) > 0);
  const { facts } = model;
  assert.equal(seen.at(-1), 1);
  assert.equal(facts.architecture, 'llama');
  assert.equal(facts.vocabSize, 2048);
  assert.equal(facts.parameterCount, 3_049_920);
  assert.equal(facts.fileBytes, readFileSync(tinyFile).length);
  assert.equal(facts.context, 1024);
  assert.equal(facts.slots, 4);
  assert.equal(facts.bosToken, '<|endoftext|>');
  assert.equal(facts.eosToken, '<|im_end|>');
  assert.deepEqual(facts.eogTokens, [0, 2]);
  assert.match(facts.chatTemplate ?? '', /im_start/);
  assert.equal(facts.metadata['general.architecture'], 'llama');
  assert.ok(facts.memoryMb > 3 && facts.memoryMb < 500, `${facts.memoryMb} MiB`);
  model.close();
});

test('load() stops when onProgress says false or throws', () => {
  assertRefused(() => engine.load(tinySpec(), () => false), 'load_cancelled');
  const thrower = (): boolean => {
    throw new Error('no');
  };
  assertRefused(() => engine.load(tinySpec(), thrower), 'load_cancelled');
});

test('files that are no model are refused, and the engine goes on', () => {
  const whole = readFileSync(tinyFile);
  const noised = Buffer.from(whole);
  noised.fill(0xff, 24, 400);
  const files: Readonly<Record<string, Buffer>> = {
    'half.gguf': whole.subarray(0, whole.length / 2),
    'header-only.gguf': whole.subarray(0, 100),
    'four-bytes.gguf': Buffer.from('GGUF'),
    'empty.gguf': Buffer.alloc(0),
    'text.gguf': Buffer.from('this is not a model\n'.repeat(100)),
    'noised.gguf': noised,
  };
  for (const [name, bytes] of Object.entries(files)) {
    const file = join(scratch, name);
    writeFileSync(file, bytes);
    assertRefused(() => engine.load(tinySpec({ file })), 'invalid_model_file', name);
  }
  assertRefused(() => engine.load(tinySpec({ file: join(scratch, 'none.gguf') })), 'model_file_not_found');
  assertRefused(() => engine.load(tinySpec({ file: scratch })), 'model_file_not_found');
  const shard = join(scratch, 'x-00001-of-00002.gguf');
  writeFileSync(shard, whole);
  assertRefused(() => engine.load(tinySpec({ file: shard })), 'model_file_not_found', '00002-of-00002');
  const model = engine.load(tinySpec());
  assert.equal(ask(model, franceQuestion).text, 'The capital of France is Paris.');
  model.close();
});

test('a sound file that cannot be loaded is a lack of memory, not a bad file, and no abort', () => {
  const library = loadLibrary({ nativeLog: false });
  const isFull = { ...library.api };
  // The real load fails as it does without memory; the second look goes to the real library.
  isFull.llama_model_load_from_file = (file, params) =>
    params.no_alloc ? library.api.llama_model_load_from_file(file, params) : null;
  const full = new Engine({ library: { ...library, api: isFull } });
  assertRefused(() => full.load(tinySpec()), 'insufficient_vram', 'MiB');
});

test('a context that cannot be made is refused and frees its model', () => {
  const library = loadLibrary({ nativeLog: false });
  let freed = 0;
  const api = { ...library.api };
  api.llama_init_from_model = () => null;
  api.llama_model_free = (model) => {
    freed++;
    library.api.llama_model_free(model);
  };
  const full = new Engine({ library: { ...library, api } });
  assertRefused(() => full.load(tinySpec()), 'does_not_fit', '4 slots of 1024 tokens');
  assert.equal(freed, 1);
});

test('a LoRA adapter that is none is refused', () => {
  const file = join(scratch, 'no-lora.gguf');
  writeFileSync(file, 'no adapter');
  assertRefused(() => engine.load(tinySpec({ lora: [{ file, scale: 1 }] })), 'invalid_model_file', 'LoRA');
});

test('a spec that cannot work is refused, naming the field', () => {
  const cases: readonly Partial<LoadSpec>[] = [
    { context: 0 },
    { slots: 0 },
    { slots: 10_000 },
    { ubatch: 1.5 },
    { threads: -1 },
    { devices: [99] },
    { cacheTypeV: 'q8_0', flashAttention: false },
  ];
  for (const over of cases) assertRefused(() => engine.load(tinySpec(over)), 'invalid_request');
});

test('other cache types, batch sizes, devices and flash attention answer alike', () => {
  const cases: readonly Partial<LoadSpec>[] = [
    { cacheTypeK: 'f32', cacheTypeV: 'f32' },
    { cacheTypeK: 'q8_0', cacheTypeV: 'q8_0', flashAttention: true },
    { ubatch: 1, batch: 1 },
    { ubatch: 512, batch: 2048, context: 256 },
    { devices: [0], gpuLayers: 0 },
    { splitMode: 'none' },
    { slots: 1, context: null },
    { flashAttention: true, threads: 2 },
  ];
  for (const over of cases) {
    const model = engine.load(tinySpec(over));
    assert.equal(ask(model, franceQuestion).text, 'The capital of France is Paris.', JSON.stringify(over));
    model.close();
  }
});

test('a closed engine loads nothing and has closed its models', () => {
  const own = new Engine({ nativeLog: false });
  const model = own.load(tinySpec());
  own.close();
  own.close();
  assert.equal(model.hasWork(), false);
  assertRefused(() => model.clearKv(), 'model_not_loaded');
  assertRefused(() => own.load(tinySpec()), 'device_gone');
});

function assertRefused(run: () => unknown, code: string, part = ''): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, code, error.message);
    assert.ok(error.message.includes(part), error.message);
    return true;
  });
}
