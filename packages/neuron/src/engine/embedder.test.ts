import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AppError, type ErrorCode } from 'cortex-core/wire/errors';
import type { EmbedResult } from 'cortex-core/wire/inference';
import type { SteppedTask } from './embedder.ts';
import { chatTokens, drain, franceQuestion, listen, requestFor, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';
import { type TinyEncoderWeights, writeTinyEncoder } from './tiny-encoder.test.kit.ts';

let engine: Engine;
let folder: string;
let decoder: LoadedModel;

before(() => {
  engine = new Engine({ nativeLog: false });
  folder = mkdtempSync(join(tmpdir(), 'embedder-'));
  decoder = engine.load(tinySpec());
});
after(() => {
  engine.close();
  rmSync(folder, { recursive: true });
});

function loadEncoder(pooling: 'none' | 'mean' | 'cls' | 'rank'): [LoadedModel, TinyEncoderWeights] {
  const file = join(folder, `${pooling}.gguf`);
  const weights = writeTinyEncoder(file, { pooling });
  return [engine.load(tinySpec({ modelId: pooling, file, context: 64 })), weights];
}

function run<T>(task: SteppedTask<T>): { result: T; steps: number } {
  for (let steps = 1; steps < 1000; steps++) {
    const result = task.step();
    if (result !== null) return { result, steps };
  }
  throw new Error('the task does not end');
}

const embed = (model: LoadedModel, ...inputs: number[][]): EmbedResult =>
  run(model.embed(inputs.map((input) => Int32Array.from(input)))).result;

function distance(a: Float32Array | undefined, b: Float32Array | undefined): number {
  assert.ok(a !== undefined && b !== undefined && a.length === b.length && a.length > 0);
  return a.reduce((max, value, index) => Math.max(max, Math.abs(value - (b[index] as number))), 0);
}

function assertRefused(run: () => unknown, code: ErrorCode, param: string): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof AppError);
    assert.deepEqual([error.code, error.param], [code, param], error.message);
    return true;
  });
}

test('an encoder says how it pools, and has the separator that joins a pair', () => {
  for (const pooling of ['mean', 'cls', 'rank'] as const) {
    const [model] = loadEncoder(pooling);
    assert.equal(model.facts.pooling, pooling);
    assert.equal(model.facts.sepToken, '[SEP]');
    assert.equal(model.facts.context, 64);
    model.close();
  }
  assert.equal(decoder.facts.pooling, 'none');
  assert.equal(decoder.facts.sepToken, null);
  const [unnamed] = loadEncoder('none');
  assert.equal(unnamed.facts.pooling, 'mean');
  unnamed.close();
});

test('a vector is the same alone and in company, over several decode calls', () => {
  const [model] = loadEncoder('mean');
  const inputs = [
    [2, 7, 3],
    [2, 9, 10, 11, 3],
    [2, 3],
    Array.from({ length: 64 }, (_, at) => 5 + (at % 20)),
    [6],
  ];
  const alone = inputs.map((input) => embed(model, input).vectors[0]);
  const { result, steps } = run(model.embed(inputs.map((input) => Int32Array.from(input))));
  assert.ok(steps > 1, `${steps} steps`);
  assert.equal(result.promptTokens, 75);
  for (const [at, vector] of result.vectors.entries()) {
    assert.equal(vector.length, 32);
    assert.ok(distance(vector, alone[at]) < 1e-4);
  }
  assert.ok(distance(result.vectors[0], result.vectors[1]) > 1e-2);
  model.close();
});

test('a context that is shorter than a graph, or no multiple of anything, loads and reads', () => {
  const file = join(folder, 'short.gguf');
  writeTinyEncoder(file, { pooling: 'mean' });
  for (const [context, ubatch] of [
    [16, 512],
    [61, 16],
  ] as const) {
    const model = engine.load(tinySpec({ modelId: 'short', file, context, batch: 512, ubatch }));
    const inputs = Array.from({ length: 20 }, (_, at) => new Int32Array(context).fill(5 + at));
    assert.equal(run(model.embed(inputs)).result.vectors.length, 20);
    model.close();
  }
});

test('mean and first-token pooling agree on one token and differ on several', () => {
  const [mean] = loadEncoder('mean');
  const [cls] = loadEncoder('cls');
  assert.ok(distance(embed(mean, [9]).vectors[0], embed(cls, [9]).vectors[0]) < 1e-5);
  assert.ok(distance(embed(mean, [9, 12, 15]).vectors[0], embed(cls, [9, 12, 15]).vectors[0]) > 1e-2);
  mean.close();
  cls.close();
});

test("a reranker's score is its head applied to the first token's state", () => {
  const [cls] = loadEncoder('cls');
  const [ranker, { tensors, width }] = loadEncoder('rank');
  const inputs = [
    [2, 7, 3, 9, 3],
    [2, 7, 3, 10, 11, 3],
  ];
  const { result } = run(ranker.rank(inputs.map((input) => Int32Array.from(input))));
  assert.equal(result.promptTokens, 11);
  const [w, b, out, outBias] = ['cls.weight', 'cls.bias', 'cls.output.weight', 'cls.output.bias'].map(
    (name) => tensors.get(name) as Float32Array,
  ) as [Float32Array, Float32Array, Float32Array, Float32Array];
  for (const [at, state] of embed(cls, ...inputs).vectors.entries()) {
    const hidden = Array.from({ length: width }, (_, row) =>
      Math.tanh(state.reduce((sum, value, col) => sum + value * w[row * width + col]!, b[row]!)),
    );
    const expected = hidden.reduce((sum, value, row) => sum + value * out[row]!, outBias[0]!);
    assert.ok(Math.abs(result.scores[at]! - expected) < 1e-3, `${result.scores[at]} ${expected}`);
  }
  assert.notEqual(result.scores[0], result.scores[1]);
  assertRefused(() => ranker.embed([Int32Array.of(5)]), 'wrong_modality', 'model');
  cls.close();
  ranker.close();
});

test('an encoder refuses to generate, and keeps no KV that could be used', () => {
  const [model] = loadEncoder('mean');
  const tokens = Int32Array.of(2, 7, 3);
  const sink = { onStep: () => {}, onDone: () => {}, onError: () => {} };
  assertRefused(() => model.submit(requestFor(tokens), sink), 'wrong_modality', 'model');
  assertRefused(() => model.forwardLogits(tokens, 0), 'wrong_modality', 'model');
  assertRefused(() => model.snapshotKv(), 'wrong_modality', 'model');
  assertRefused(() => model.rank([tokens]), 'wrong_modality', 'model');
  model.clearKv();
  assert.equal(embed(model, [2, 7, 3]).vectors.length, 1);
  model.close();
});

test('inputs that are empty, too long, too many or no tokens are refused by name', () => {
  const [model] = loadEncoder('mean');
  const good = Int32Array.of(5);
  assertRefused(() => model.embed([]), 'invalid_request', 'input');
  assertRefused(() => model.embed(new Array(2049).fill(good)), 'invalid_request', 'input');
  assertRefused(() => model.embed([good, new Int32Array(0)]), 'invalid_request', 'input.1');
  assertRefused(() => model.embed([new Int32Array(65).fill(5)]), 'context_length_exceeded', 'input.0');
  assertRefused(() => model.embed([Int32Array.of(999)]), 'invalid_request', 'tokens');
  assertRefused(() => decoder.embed([new Int32Array(1025).fill(5)]), 'context_length_exceeded', 'input.0');
  model.close();
});

test('a plain decoder gives the state of the last token, however the input is cut', () => {
  const tokens = Int32Array.from({ length: 300 }, (_, at) => 20 + (at % 50));
  const { result, steps } = run(decoder.embed([tokens, tokens.slice(0, 299), Int32Array.of(20)]));
  assert.ok(steps >= 11, `${steps} steps`);
  assert.equal(result.vectors[0]?.length, decoder.facts.embeddingLength);
  assert.ok(distance(result.vectors[0], result.vectors[1]) > 1e-2);
  const uncut = engine.load(tinySpec({ batch: 512, ubatch: 512 }));
  assert.ok(distance(run(uncut.embed([tokens])).result.vectors[0], result.vectors[0]) < 1e-3);
  uncut.close();
});

test('an input that somebody comes between is read again, and streams go on beside it', () => {
  const tokens = Int32Array.from({ length: 300 }, (_, at) => 20 + (at % 50));
  const expected = run(decoder.embed([tokens])).result.vectors[0];
  const heard = listen(decoder, requestFor(chatTokens(decoder, franceQuestion)));
  const task = decoder.embed([tokens]);
  for (let step = 0; step < 3; step++) {
    assert.equal(task.step(), null);
    decoder.step();
  }
  decoder.forwardLogits(Int32Array.of(40, 41), 0);
  let result: EmbedResult | null = null;
  while (result === null) {
    decoder.step();
    result = task.step();
  }
  drain(decoder);
  assert.ok(distance(result.vectors[0], expected) < 1e-3);
  assert.equal(heard.text, 'The capital of France is Paris.');
});

test('a task of a model that was unloaded ends with its name', () => {
  const [model] = loadEncoder('mean');
  const task = model.embed([Int32Array.of(5)]);
  model.close();
  assert.throws(() => task.step(), /model "mean" was unloaded/);
});
