/** A recurrent model: its state cannot be cut, so only whole states are reused. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { loadLibrary } from '../libllama/load-library.ts';
import { drain, listen, requestFor, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';
import { special, vocabSize } from './tiny-gguf.test.kit.ts';
import { writeTinyMamba } from './tiny-mamba.test.kit.ts';

const folder = mkdtempSync(join(tmpdir(), 'tiny-mamba-'));
const file = join(folder, 'mamba.gguf');
writeTinyMamba(file);
const engine = new Engine({ library: loadLibrary({ nativeLog: false }) });
after(() => {
  engine.close();
  rmSync(folder, { recursive: true });
});

function load(over: Partial<LoadSpec> = {}): LoadedModel {
  return engine.load(
    tinySpec({ file, modelId: 'mamba', slots: 2, speculation: 'ngram', prefixCacheMb: 64, ...over }),
  );
}

/** Ordinary words, another order for another seed. */
function words(seed: number, count: number): Int32Array {
  const kinds = vocabSize - special.length;
  return Int32Array.from(
    { length: count },
    (_, at) => special.length + ((seed * 31 + at * at * 7 + at) % kinds),
  );
}

function run(model: LoadedModel, tokens: Int32Array) {
  const heard = listen(model, requestFor(tokens, { maxTokens: 10, ignoreEos: true, topLogprobs: 0 }));
  drain(model);
  assert.equal(heard.error, null);
  return heard;
}

const join2 = (a: Int32Array, b: ArrayLike<number>): Int32Array => Int32Array.from([...a, ...Array.from(b)]);

test('the same prompt, the next turn, and an empty cache give the same answers', () => {
  const [model, plain] = [load(), load({ prefixCacheMb: 0, slots: 1 })];
  assert.equal(model.facts.recurrent, true);
  const prompt = words(1, 90);
  const first = run(model, prompt);
  const again = run(model, prompt);
  assert.equal(
    again.result?.usage.cachedTokens,
    prompt.length - 1,
    'the state before the last token was saved',
  );
  assert.deepEqual(again.tokens, first.tokens);
  const turn = join2(join2(prompt, first.tokens), words(2, 12));
  const second = run(model, turn);
  assert.ok((second.result?.usage.cachedTokens ?? 0) >= prompt.length - 1);
  plain.clearKv();
  assert.deepEqual(run(plain, turn).tokens, second.tokens);
  plain.close();
  model.close();
});

test('two at once that part in the middle read the shared part once', () => {
  const model = load();
  const shared = words(3, 150);
  const prompts = [join2(shared, words(4, 20)), join2(shared, words(5, 20))];
  const heard = prompts.map((tokens) => listen(model, requestFor(tokens, { maxTokens: 6, ignoreEos: true })));
  drain(model);
  // The two tails may begin alike.
  assert.ok((heard[1]?.result?.usage.cachedTokens ?? 0) >= shared.length);
  model.clearKv();
  for (const [index, tokens] of prompts.entries()) {
    const alone = listen(model, requestFor(tokens, { maxTokens: 6, ignoreEos: true }));
    drain(model);
    model.clearKv();
    assert.deepEqual(heard[index]?.tokens, alone.tokens);
  }
  model.close();
});

test('the third of those that begin alike, one after the other, starts where they part', () => {
  const [model, plain] = [load({ slots: 1 }), load({ prefixCacheMb: 0, slots: 1 })];
  const shared = words(8, 150);
  const prompts = [9, 10, 11, 12].map((seed) => join2(shared, words(seed, 20)));
  const heard = prompts.map((tokens) => run(model, tokens));
  const isFound = heard.map(({ result }) => (result?.usage.cachedTokens ?? 0) >= shared.length);
  assert.deepEqual(isFound, [false, false, true, true]);
  for (const [at, tokens] of prompts.entries()) {
    plain.clearKv();
    // How likely the likeliest token is moves little with rounding, whichever of two equals it is.
    const [alone, shared] = [run(plain, tokens), heard[at]].map((each) => each?.events[0]?.logprobs?.[0]);
    assert.ok(Math.abs((alone?.logprob ?? 0) - (shared?.logprob ?? 1)) < 1e-2, `prompt ${at}`);
  }
  plain.close();
  model.close();
});

test('a chat whose answers come back otherwise than they were said is read from the turn before', () => {
  const model = load({ slots: 1 });
  // As a template does that shows no reasoning of earlier turns: the end of each prompt is cut again.
  const opened = words(20, 3);
  let history = words(13, 150);
  const cached: number[] = [];
  const lengths: number[] = [];
  for (let turn = 0; turn < 4; turn++) {
    lengths.push(history.length);
    cached.push(run(model, join2(history, opened)).result?.usage.cachedTokens ?? 0);
    history = join2(history, words(14 + turn, 140));
  }
  assert.ok(cached[2]! >= lengths[0]! && cached[3]! >= lengths[1]!, `${cached} of ${lengths}`);
  model.close();
});

test('without host memory nothing is saved, and answers are right all the same', () => {
  const model = load({ prefixCacheMb: 0 });
  const prompt = words(6, 60);
  const first = run(model, prompt);
  const again = run(model, prompt);
  assert.equal(again.result?.usage.cachedTokens, 0);
  assert.deepEqual(again.tokens, first.tokens);
  model.close();
});
