import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { loadLibrary } from '../libllama/load-library.ts';
import {
  chatTokens,
  drain,
  franceQuestion,
  type Heard,
  listen,
  type RequestOverrides,
  requestFor,
  tinySpec,
} from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import { seedAt } from './seeded-draws.ts';

const engine = new Engine({ library: loadLibrary({ nativeLog: false }) });
const here = engine.load(tinySpec());
/** Another load of the same file, as another node has it: nothing is cached there. */
const there = engine.load(tinySpec());
after(() => engine.close());

function run(model: typeof here, question: string, over: RequestOverrides): Heard {
  const heard = listen(model, requestFor(chatTokens(model, question), over));
  drain(model);
  return heard;
}

/** Cuts the answer at each of its tokens and lets another engine go on. */
function checkEveryCut(question: string, over: RequestOverrides): Heard {
  const whole = run(here, question, over);
  assert.equal(whole.error, null);
  for (let cut = 0; cut <= whole.tokens.length; cut++) {
    const rest = run(there, question, { ...over, answered: Int32Array.from(whole.tokens.slice(0, cut)) });
    assert.equal(rest.error, null, `cut at ${cut}`);
    assert.deepEqual(rest.tokens, whole.tokens, `cut at ${cut}`);
    assert.equal(rest.text, whole.text, `cut at ${cut}`);
    assert.equal(rest.result?.finishReason, whole.result?.finishReason, `cut at ${cut}`);
    assert.equal(rest.result?.stopText, whole.result?.stopText, `cut at ${cut}`);
    const { promptTokens, completionTokens } = whole.result!.usage;
    assert.equal(rest.result?.usage.promptTokens, promptTokens, `cut at ${cut}`);
    assert.equal(rest.result?.usage.completionTokens, completionTokens, `cut at ${cut}`);
    const replayed = rest.events.filter((event) => event.replayed !== undefined);
    assert.equal(replayed.flatMap((event) => event.tokens).length, cut);
  }
  return whole;
}

test('a greedy answer that another engine goes on with is the undisturbed one, wherever it broke', () => {
  const whole = checkEveryCut(franceQuestion, {});
  assert.equal(whole.text, 'The capital of France is Paris.');
});

test('a seeded answer that another engine goes on with is the undisturbed one, wherever it broke', () => {
  for (const seed of [1, 42, -7, 2 ** 40 + 3]) {
    const sampling = { temperature: 1.5, seed };
    checkEveryCut('Tell me about the sun.', { sampling, maxTokens: 24, ignoreEos: true });
  }
});

test('every sampler that looks back or draws stands where it stood', () => {
  const sampling = {
    temperature: 1.4,
    seed: 11,
    topK: 40,
    topP: 0.95,
    minP: 0.01,
    typicalP: 0.98,
    xtcProbability: 0.5,
    xtcThreshold: 0.05,
    repeatPenalty: 1.2,
    repeatLastN: 16,
    frequencyPenalty: 0.4,
    presencePenalty: 0.3,
    dryMultiplier: 0.8,
  };
  checkEveryCut('Hello! Who are you?', { sampling, maxTokens: 24, ignoreEos: true });
});

test('an answer under a grammar goes on inside it', () => {
  const gbnf = 'root ::= "{\\"city\\": \\"" [A-Za-z ]{1,12} "\\", \\"big\\": " ("true" | "false") "}"';
  const whole = checkEveryCut(franceQuestion, { grammar: { gbnf } });
  assert.match(whole.text, /^\{"city": "[A-Za-z ]+", "big": (true|false)\}$/);
  checkEveryCut(franceQuestion, { grammar: { gbnf }, sampling: { temperature: 1.2, seed: 5 } });
});

test('a reasoning block and its budget go on where they were', () => {
  const reasoning = { isOpen: true, start: '<think>', end: '</think>', budget: 6 };
  const gbnf = 'root ::= "yes" | "no"';
  const whole = checkEveryCut(franceQuestion, { reasoning, grammar: { gbnf } });
  assert.match(whole.text, /<\/think>\s*(yes|no)$/);
});

test('a grammar that waits for its trigger has seen what was answered', () => {
  const lazy = { triggers: ['France'] };
  const grammar = { gbnf: 'root ::= "France" " is " [a-z]{4}', lazy };
  const whole = checkEveryCut(franceQuestion, { grammar });
  assert.match(whole.text, /France is [a-z]{4}$/);
});

test('a stop that the break fell into is still found', () => {
  const whole = checkEveryCut(franceQuestion, { stops: ['is Paris'] });
  assert.equal(whole.text, 'The capital of France ');
  assert.equal(whole.result?.stopText, 'is Paris');
});

test('the bound on tokens is that of the whole answer', () => {
  const whole = checkEveryCut(franceQuestion, { maxTokens: 5 });
  assert.equal(whole.result?.finishReason, 'length');
  assert.equal(whole.tokens.length, 5);
});

test('a character cut by the break is shown once and whole', () => {
  const ids = [...here.tokenize('✨ 日本 é', { addSpecial: false, parseSpecial: false })];
  assert.ok(ids.length > 4, `${ids.length} tokens`);
  const texts = ids.map((_, cut) => {
    const answered = Int32Array.from(ids.slice(0, cut + 1));
    const heard = run(there, franceQuestion, { answered, maxTokens: cut + 1 });
    return heard.text;
  });
  assert.equal(texts.at(-1), '✨ 日本 é');
});

test('an answer goes on beside others that run, and with drafts', () => {
  const drafting = engine.load(tinySpec({ speculation: 'ngram' }));
  const over = { maxTokens: 40, ignoreEos: true };
  const whole = run(here, 'Tell me about the sun.', over);
  const other = listen(drafting, requestFor(chatTokens(drafting, franceQuestion), over));
  drafting.step();
  const rest = run(drafting, 'Tell me about the sun.', {
    ...over,
    answered: Int32Array.from(whole.tokens.slice(0, 17)),
  });
  assert.deepEqual(rest.tokens, whole.tokens);
  assert.equal(other.error, null);
});

test('a draft does not change which draws a token gets', () => {
  const drafting = engine.load(tinySpec({ speculation: 'ngram' }));
  const over = { maxTokens: 48, ignoreEos: true, sampling: { temperature: 0.9, seed: 3 } };
  assert.deepEqual(
    run(drafting, 'Tell me about the sun.', over).tokens,
    run(here, 'Tell me about the sun.', over).tokens,
  );
});

test('what cannot have been answered is refused, and nothing is held', () => {
  const refusals: [RequestOverrides, RegExp][] = [
    [{ answered: Int32Array.of(1_000_000) }, /outside the vocabulary/],
    [{ answered: new Int32Array(1024) }, /do not fit a context of 1024/],
    [{ answered: Int32Array.of(...here.facts.eogTokens.slice(0, 1)) }, /cannot stand there/],
    [{ answered: here.tokenize('maybe', plain), grammar: { gbnf: 'root ::= "yes"' } }, /cannot stand there/],
  ];
  for (const [over, message] of refusals) {
    const refused = (error: unknown): boolean => error instanceof AppError && message.test(error.message);
    assert.throws(() => listen(there, requestFor(chatTokens(there, franceQuestion), over)), refused);
  }
  assert.equal(there.hasWork(), false);
});

const plain = { addSpecial: false, parseSpecial: false };

test('draws of neighbouring places and seeds have nothing in common', () => {
  const seeds = new Set<number>();
  for (let seed = 0; seed < 40; seed++) {
    for (let position = 0; position < 40; position++) {
      for (let sampler = 0; sampler < 3; sampler++) seeds.add(seedAt(seed, position, sampler));
    }
  }
  assert.equal(seeds.size, 4800);
  const ones = [...seeds].reduce((sum, value) => sum + value.toString(2).replaceAll('0', '').length, 0);
  assert.ok(Math.abs(ones / (4800 * 32) - 0.5) < 0.01, 'bits are not even');
});

test('with seeds of all kinds a token is drawn as often as its probability says', () => {
  const prompt = here.tokenize('The', plain);
  const options = { sampling: { temperature: 1, topK: 2 }, maxTokens: 1, topLogprobs: 2 };
  const first = listen(here, requestFor(prompt, options));
  drain(here);
  const [best, second] = first.events[0]!.logprobs![0]!.top;
  const expected = 1 / (1 + Math.exp(second!.logprob - best!.logprob));
  let hits = 0;
  const draws = 600;
  for (let seed = 0; seed < draws; seed++) {
    const sampling = { ...options.sampling, seed };
    const heard = listen(here, requestFor(prompt, { ...options, sampling, topLogprobs: null }));
    drain(here);
    if (heard.tokens[0] === best!.token) hits++;
  }
  const sigma = Math.sqrt((expected * (1 - expected)) / draws);
  assert.ok(Math.abs(hits / draws - expected) < 5 * sigma, `${hits} of ${draws}, expected ${expected}`);
});
