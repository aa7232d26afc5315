/** Drafts on real weights: they change how many steps an answer takes and nothing else. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadLibrary } from '../libllama/load-library.ts';
import {
  drain,
  type Heard,
  listen,
  type RequestOverrides,
  requestFor,
  tinyFile,
  tinySpec,
} from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';

const library = loadLibrary({ nativeLog: false });
/** Every step costs the same, so drafts always pay and the tests do not depend on the machine. */
let clock = 0;
const engine = new Engine({ library, now: () => clock++ });
after(() => engine.close());

const folder = process.env.CORTEX_TEST_MODELS ?? '';
const smol = join(folder, 'SmolLM2-135M-Instruct.Q4_1.gguf');
const files = [
  { name: 'cortex-tiny', file: tinyFile, skip: false as const },
  {
    name: 'SmolLM2',
    file: smol,
    skip: existsSync(smol) ? (false as const) : 'CORTEX_TEST_MODELS has no SmolLM2',
  },
];
const code = 'const total = items.reduce((sum, item) => sum + item.price, 0);\nreturn total;\n';
const prompts = [
  `<|im_start|>user\nRepeat this code:\n${code}${code}<|im_end|>\n<|im_start|>assistant\n${code.slice(0, 30)}`,
  '<|im_start|>user\nSay the numbers from one to ten.<|im_end|>\n<|im_start|>assistant\none two three one two three one',
  '<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n',
];

function load(file: string, speculation: 'off' | 'ngram'): LoadedModel {
  return engine.load(tinySpec({ file, speculation, slots: 3, context: 512, flashAttention: null }));
}

/** Steps that one more of the prompts takes. */
function stepsOf(model: LoadedModel): number {
  const tokens = model.tokenize(prompts[0] ?? '', { addSpecial: true, parseSpecial: true });
  listen(model, requestFor(tokens, { maxTokens: 100, ignoreEos: true }));
  let steps = 0;
  for (; model.hasWork(); steps++) model.step();
  return steps;
}

function run(model: LoadedModel, over: RequestOverrides): Heard[] {
  const heard = prompts.map((prompt) => {
    const tokens = model.tokenize(prompt, { addSpecial: true, parseSpecial: true });
    const one = listen(model, requestFor(tokens, { maxTokens: 100, ignoreEos: true, ...over }));
    // Drafts are made for a sequence that is alone.
    drain(model);
    return one;
  });
  for (const { error } of heard) assert.equal(error, null);
  return heard;
}

for (const { name, file, skip } of files) {
  test(`${name}: greedy answers are the same with drafts, in fewer steps`, { skip }, () => {
    const [plain, drafting] = [load(file, 'off'), load(file, 'ngram')];
    const expected = run(plain, {});
    const heard = run(drafting, {});
    for (const [index, { tokens, text }] of heard.entries()) {
      assert.deepEqual(tokens, expected[index]?.tokens);
      assert.equal(text, expected[index]?.text);
    }
    const accepted = heard.reduce((sum, { result }) => sum + (result?.speculation?.accepted ?? 0), 0);
    assert.ok(accepted > 20, `${accepted} drafts were accepted`);
    assert.ok(stepsOf(drafting) < stepsOf(plain));
    assert.equal(expected[0]?.result?.speculation, undefined);
    plain.close();
    drafting.close();
  });

  test(`${name}: a seed gives the same random answer with drafts, logprobs included`, { skip }, () => {
    const [plain, drafting] = [load(file, 'off'), load(file, 'ngram')];
    for (const seed of [1, 2, 3]) {
      const over = { sampling: { temperature: 0.8, seed, repeatPenalty: 1.1 }, topLogprobs: 2 };
      const expected = run(plain, over);
      for (const [index, heard] of run(drafting, over).entries()) {
        assert.deepEqual(heard.tokens, expected[index]?.tokens);
        const logprobs = (each: Heard | undefined) =>
          each?.events
            .flatMap((event) => event.logprobs ?? [])
            .map(({ token, logprob }) => [token, logprob.toFixed(3)]);
        assert.deepEqual(logprobs(heard), logprobs(expected[index]));
      }
    }
    plain.close();
    drafting.close();
  });
}

test('stops, limits and the cache are exact in the middle of accepted drafts', () => {
  const [plain, drafting] = [load(tinyFile, 'off'), load(tinyFile, 'ngram')];
  for (let maxTokens = 1; maxTokens < 40; maxTokens++) {
    for (const stops of [[], ['item'], ['e']]) {
      const expected = run(plain, { maxTokens, stops });
      const heard = run(drafting, { maxTokens, stops });
      for (const [index, { result, text }] of heard.entries()) {
        assert.equal(text, expected[index]?.text);
        assert.equal(result?.finishReason, expected[index]?.result?.finishReason);
        assert.equal(result?.usage.completionTokens, expected[index]?.result?.usage.completionTokens);
      }
    }
  }
  plain.close();
  drafting.close();
});

test('with a seed nothing is drafted where drafted rows are computed otherwise than single ones', () => {
  const spec = { slots: 1, context: 1024, flashAttention: true, threads: 2 } as const;
  const [plain, drafting] = [
    engine.load(tinySpec({ ...spec, speculation: 'off' })),
    engine.load(tinySpec({ ...spec, speculation: 'ngram' })),
  ];
  const list = 'one two three four five six seven '.repeat(60);
  const all = plain.tokenize(list, { addSpecial: true, parseSpecial: true });
  for (const [length, isDrafted] of [
    [100, true],
    [260, false],
  ] as const) {
    for (const seed of [1, 2, 3]) {
      const over = { maxTokens: 120, ignoreEos: true, sampling: { temperature: 0.7, seed } };
      const [expected, heard] = [plain, drafting].map((model) => {
        const one = listen(model, requestFor(all.slice(0, length), over));
        drain(model);
        return one;
      });
      if (!isDrafted) assert.deepEqual(heard?.tokens, expected?.tokens);
      assert.equal((heard?.result?.speculation?.drafted ?? 0) > 0, isDrafted, `${length} tokens`);
    }
  }
  plain.close();
  drafting.close();
});

test('a context that fills up in a draft ends like one without', () => {
  const endings = (['off', 'ngram'] as const).map((speculation) => {
    const model = engine.load(tinySpec({ speculation, slots: 1, context: 96, flashAttention: null }));
    const prompt = model.tokenize('one two three one two three one two three', {
      addSpecial: true,
      parseSpecial: true,
    });
    const heard = listen(model, requestFor(prompt, { maxTokens: null, ignoreEos: true }));
    drain(model);
    model.close();
    return { tokens: heard.tokens, reason: heard.result?.finishReason };
  });
  assert.deepEqual(endings[1], endings[0]);
  assert.equal(endings[0]?.reason, 'context_full');
});

test('a text that only repeats is drafted 63 tokens at a time, and ends, stops and is cached to the token', () => {
  const model = engine.load(tinySpec({ speculation: 'ngram', slots: 1, flashAttention: null }));
  const again = model.tokenize(' item', { addSpecial: false, parseSpecial: false }).at(-1) as number;
  const prompt = new Int32Array(600).fill(again);
  // No logit comes near the bias: what is chosen does not depend on kernels.
  const sampling = { temperature: 0, logitBias: [{ token: again, bias: 1000 }] };
  const answer = (over: RequestOverrides): Heard & { steps: number } => {
    model.clearKv();
    const heard = listen(model, requestFor(prompt, { ignoreEos: true, sampling, ...over }));
    let steps = 0;
    for (; model.hasWork(); steps++) model.step();
    assert.equal(heard.error, null);
    assert.ok(heard.tokens.every((token) => token === again));
    return { ...heard, steps };
  };
  const reading = answer({ maxTokens: 1 }).steps;
  for (const maxTokens of [40, 70, 128, 200, 201]) {
    const { tokens, result } = answer({ maxTokens });
    assert.equal(tokens.length, maxTokens);
    assert.equal(result?.finishReason, 'length');
    const said = new Int32Array(600 + maxTokens + 1).fill(again);
    const next = listen(model, requestFor(said, { maxTokens: 1, ignoreEos: true, sampling }));
    drain(model);
    assert.equal(next.result?.usage.cachedTokens, 600 + maxTokens - 1);
  }
  const { steps } = answer({ maxTokens: 200 });
  assert.ok(steps - reading < 200 / 16, `${steps - reading} steps for 200 tokens`);
  const piece = model.detokenize(Int32Array.of(again));
  const stopped = answer({ maxTokens: 300, stops: [piece.repeat(150)] });
  assert.deepEqual([stopped.result?.finishReason, stopped.text, stopped.tokens.length], ['stop', '', 150]);
  const full = answer({ maxTokens: null });
  assert.deepEqual([full.result?.finishReason, full.tokens.length], ['context_full', 1024 - 600]);
  model.close();
});
