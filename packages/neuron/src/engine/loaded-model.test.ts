import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { type Libllama, loadLibrary } from '../libllama/load-library.ts';
import { viewFloats } from '../libllama/native-memory.ts';
import {
  ask,
  chatTokens,
  drain,
  franceQuestion,
  listen,
  type RequestOverrides,
  requestFor,
  tinySpec,
} from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import { logitsHealth } from './logits-health.ts';

const library = loadLibrary({ nativeLog: false });
const engine = new Engine({ library });
const model = engine.load(tinySpec());
after(() => engine.close());

const questions = [
  franceQuestion,
  'What is the capital of Italy?',
  'Hello! Who are you?',
  'What is 3 plus 4?',
  'Tell me about the sun.',
];

test('greedy answers the question about France, word for word', () => {
  const heard = ask(model, franceQuestion);
  assert.equal(heard.text, 'The capital of France is Paris.');
  assert.equal(heard.result?.finishReason, 'stop');
  assert.equal(heard.result?.stopText, null);
  assert.deepEqual(heard.result?.usage, { promptTokens: 17, cachedTokens: 0, completionTokens: 12 });
  assert.equal(heard.tokens.length, 12);
});

test('greedy twice gives the same tokens', () => {
  for (const question of questions) {
    assert.deepEqual(ask(model, question).tokens, ask(model, question).tokens);
  }
});

test('sequences that run together each equal their solo run', () => {
  const solo = questions.map((question) => ask(model, question).tokens);
  const together = questions.map((question) => listen(model, requestFor(chatTokens(model, question))));
  drain(model);
  assert.deepEqual(
    together.map((heard) => heard.tokens),
    solo,
  );
});

test('a sequence admitted into a running batch equals its solo run', () => {
  const solo = ask(model, questions[1]!).tokens;
  const first = listen(model, requestFor(chatTokens(model, questions[0]!)));
  for (let step = 0; step < 4; step++) model.step();
  const second = listen(model, requestFor(chatTokens(model, questions[1]!)));
  drain(model);
  assert.equal(first.text, 'The capital of France is Paris.');
  assert.deepEqual(second.tokens, solo);
});

test('a long prompt does not stop a running stream: every step yields one of its tokens', () => {
  const stream = listen(model, requestFor(chatTokens(model, franceQuestion), { ignoreEos: true }));
  model.step();
  const long = listen(model, requestFor(longPrompt(600), { maxTokens: 2 }));
  let steps = 0;
  while (long.events.length === 0) {
    const before = stream.tokens.length;
    model.step();
    assert.equal(stream.tokens.length, before + 1);
    steps++;
  }
  assert.ok(steps > 5, `the prompt was read in ${steps} steps`);
  stream.cancel();
  drain(model);
});

test('more requests than slots: all are answered, first come first served', () => {
  const order: number[] = [];
  const all = Array.from({ length: 11 }, (_, index) => {
    const params = requestFor(chatTokens(model, franceQuestion));
    const texts: string[] = [];
    model.submit(params, {
      onStep: (event) => texts.push(event.text),
      onDone: () => order.push(index),
      onError: (error) => assert.fail(error),
    });
    return texts;
  });
  drain(model);
  for (const texts of all) assert.equal(texts.join(''), 'The capital of France is Paris.');
  assert.deepEqual(
    order,
    [...order].sort((a, b) => a - b),
  );
});

test('forwardLogits: a prefix and then one token equals all in one go', () => {
  const tokens = chatTokens(model, franceQuestion);
  const last = tokens.length - 1;
  const whole = model.forwardLogits(tokens, 0);
  model.forwardLogits(tokens.slice(0, last), 0);
  const continued = model.forwardLogits(tokens.slice(last), last);
  assert.equal(whole.length, model.facts.vocabSize);
  assert.ok(largestDifference(whole, continued) < 1e-3);
  // Rewinding to the same offset again gives the same.
  assert.ok(largestDifference(whole, model.forwardLogits(tokens.slice(last), last)) < 1e-3);
});

test('forwardLogits reads more tokens than a batch holds', () => {
  const tokens = longPrompt(700);
  const whole = model.forwardLogits(tokens, 0);
  model.forwardLogits(tokens.slice(0, 300), 0);
  assert.ok(largestDifference(whole, model.forwardLogits(tokens.slice(300), 300)) < 1e-3);
});

test('forwardLogits and clearKv leave a running generation alone', () => {
  const heard = listen(model, requestFor(chatTokens(model, franceQuestion)));
  while (model.hasWork()) {
    model.step();
    model.forwardLogits(longPrompt(40), 0);
    model.clearKv();
  }
  assert.equal(heard.text, 'The capital of France is Paris.');
});

test('forwardLogits refuses what it cannot do', () => {
  model.clearKv();
  assertRefused(() => model.forwardLogits(new Int32Array(0), 0), 'invalid_request');
  assertRefused(() => model.forwardLogits(Int32Array.of(5), 1), 'invalid_request', 'offset');
  assertRefused(() => model.forwardLogits(Int32Array.of(5), Number.NaN), 'invalid_request', 'offset');
  assertRefused(() => model.forwardLogits(Int32Array.of(999_999), 0), 'invalid_request', 'tokens');
  assertRefused(() => model.forwardLogits(longPrompt(1025), 0), 'context_length_exceeded');
});

test('a stop that spans tokens ends the answer and none of it is shown', () => {
  const heard = ask(model, franceQuestion, { stops: ['France is', 'zzz'] });
  assert.equal(heard.text, 'The capital of ');
  assert.equal(heard.result?.finishReason, 'stop');
  assert.equal(heard.result?.stopText, 'France is');
});

test('a stop that only begins is shown at the end', () => {
  const heard = ask(model, franceQuestion, { stops: ['Paris.!'] });
  assert.equal(heard.text, 'The capital of France is Paris.');
  assert.equal(heard.result?.stopText, null);
});

test('events carry whole characters only, and logprobs carry the bytes', () => {
  const heard = ask(model, 'Say: naïve 🦊 日本', {
    sampling: { temperature: 3, seed: 5 },
    ignoreEos: true,
    maxTokens: 200,
    topLogprobs: 0,
  });
  const bytes = heard.events.flatMap((event) => (event.logprobs ?? []).flatMap((entry) => [...entry.bytes]));
  assert.equal(heard.text, new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes)));
  assert.equal(heard.tokens.length, 200);
});

test('cancelling takes effect at the next step, in decoding and in the queue', () => {
  const running = Array.from({ length: 4 }, () =>
    listen(model, requestFor(chatTokens(model, franceQuestion), { ignoreEos: true, maxTokens: 900 })),
  );
  const waiting = listen(model, requestFor(chatTokens(model, franceQuestion)));
  for (let step = 0; step < 5; step++) model.step();
  assert.equal(waiting.events.length, 0);
  const counts = running.map((heard) => heard.tokens.length);
  waiting.cancel();
  for (const heard of running) heard.cancel();
  assert.equal(model.hasWork(), true);
  model.step();
  assert.equal(model.hasWork(), false);
  assert.equal(waiting.result?.finishReason, 'cancelled');
  assert.deepEqual(
    running.map((heard) => heard.tokens.length),
    counts,
  );
  for (const heard of running) assert.equal(heard.result?.finishReason, 'cancelled');
});

test('cancelling during prefill frees the cells for the next', () => {
  for (let round = 0; round < 12; round++) {
    const heard = listen(model, requestFor(longPrompt(1000)));
    model.step();
    heard.cancel();
    heard.cancel();
    model.step();
    assert.equal(heard.result?.finishReason, 'cancelled');
    assert.equal(heard.events.length, 0);
  }
  assert.equal(ask(model, franceQuestion).text, 'The capital of France is Paris.');
});

test('maxTokens ends with length, a full context with context_full', () => {
  const short = ask(model, franceQuestion, { maxTokens: 3 });
  assert.equal(short.tokens.length, 3);
  assert.equal(short.result?.finishReason, 'length');
  const none = ask(model, franceQuestion, { maxTokens: 0 });
  assert.equal(none.tokens.length, 0);
  assert.equal(none.result?.finishReason, 'length');
  const full = listen(model, requestFor(longPrompt(1000), { ignoreEos: true, maxTokens: 500 }));
  const exact = listen(model, requestFor(longPrompt(1024), { ignoreEos: true, maxTokens: null }));
  drain(model);
  assert.equal(full.result?.finishReason, 'context_full');
  assert.equal(full.tokens.length, 24);
  assert.equal(exact.result?.finishReason, 'context_full');
  assert.equal(exact.tokens.length, 1);
});

test('bad requests are refused before any work, naming the field', () => {
  const good = chatTokens(model, franceQuestion);
  const cases: readonly [string, string, Int32Array, RequestOverrides][] = [
    ['invalid_request', 'tokens', new Int32Array(0), {}],
    ['invalid_request', 'tokens', Int32Array.of(1, -1), {}],
    ['invalid_request', 'tokens', Int32Array.of(1, 2048), {}],
    ['context_length_exceeded', 'messages', longPrompt(1025), {}],
    ['invalid_request', 'temperature', good, { sampling: { temperature: Number.NaN } }],
    ['invalid_request', 'temperature', good, { sampling: { temperature: -1 } }],
    ['invalid_request', 'top_p', good, { sampling: { topP: 1.5 } }],
    ['invalid_request', 'top_k', good, { sampling: { topK: 1.5 } }],
    ['invalid_request', 'min_p', good, { sampling: { minP: Number.POSITIVE_INFINITY } }],
    ['invalid_request', 'repeat_penalty', good, { sampling: { repeatPenalty: 0 } }],
    ['invalid_request', 'seed', good, { sampling: { seed: 0.5 } }],
    ['invalid_request', 'logit_bias', good, { sampling: { logitBias: [{ token: 2048, bias: 1 }] } }],
    ['invalid_request', 'logit_bias', good, { sampling: { logitBias: [{ token: 1, bias: Number.NaN }] } }],
    ['invalid_request', 'max_tokens', good, { maxTokens: -1 }],
    ['invalid_request', 'top_logprobs', good, { topLogprobs: 21 }],
    ['invalid_request', 'stop', good, { stops: Array.from({ length: 65 }, (_, index) => `s${index}`) }],
    ['invalid_request', 'stop', good, { stops: [''] }],
    ['invalid_request', 'grammar', good, { grammar: { gbnf: 'root ::= (' } }],
    ['invalid_request', 'grammar', good, { grammar: { gbnf: 'other ::= "a"' } }],
    ['invalid_request', 'grammar', good, { grammar: { gbnf: 'root ::= missing' } }],
    ['invalid_request', 'grammar', good, { grammar: { gbnf: 'root ::= root "a"' } }],
  ];
  for (const [code, param, tokens, over] of cases) {
    assertRefused(() => listen(model, requestFor(tokens, over)), code, param);
  }
  assert.equal(model.hasWork(), false);
});

test('a prompt that is too long says so in the words clients look for', () => {
  assert.throws(
    () => listen(model, requestFor(longPrompt(1030))),
    (error: AppError) => {
      assert.equal(
        error.message,
        "This model's maximum context length is 1024 tokens. However, your messages resulted in 1030 tokens. " +
          'Please reduce the length of the messages.',
      );
      assert.deepEqual(error.extras, { prompt_len: 1030, max: 1024 });
      return true;
    },
  );
});

test('a seed repeats a random answer, another seed gives another', () => {
  const roll = (seed: number) =>
    ask(model, 'Tell me a story.', { sampling: { temperature: 1.5, seed }, ignoreEos: true }).tokens;
  assert.deepEqual(roll(7), roll(7));
  assert.deepEqual(roll(-1), roll(-1));
  assert.notDeepEqual(roll(7), roll(8));
});

test('every sampler of the chain runs', () => {
  const heard = ask(model, franceQuestion, {
    sampling: {
      temperature: 0.7,
      seed: 1,
      topK: 40,
      topP: 0.9,
      minP: 0.05,
      typicalP: 0.9,
      topNSigma: 2,
      xtcProbability: 0.3,
      xtcThreshold: 0.2,
      repeatPenalty: 1.05,
      frequencyPenalty: 0.1,
      presencePenalty: 0.1,
      dryMultiplier: 0.8,
      drySequenceBreakers: ['\n', 'é'],
      logitBias: [{ token: 100, bias: 1 }],
    },
  });
  assert.equal(heard.error, null);
  assert.ok(heard.text.length > 0);
});

test('typical_p chooses the same whether or not tokens are ruled out that it would never choose', () => {
  const roll = (seed: number, typicalP: number, bias: number) => {
    // The last token of the vocabulary is not what anybody would say next.
    const logitBias = bias === 0 ? [] : [{ token: model.facts.vocabSize - 1, bias }];
    const sampling = { temperature: 1, seed, typicalP, logitBias };
    return ask(model, franceQuestion, { sampling, ignoreEos: false, maxTokens: 12 }).tokens;
  };
  for (const typicalP of [0, 0.3, 0.9]) {
    for (let seed = 1; seed <= 5; seed++) {
      const expected = roll(seed, typicalP, 0);
      assert.deepEqual(roll(seed, typicalP, -100), expected, `typical_p ${typicalP}`);
      assert.deepEqual(roll(seed, typicalP, -1e6), expected, `typical_p ${typicalP}`);
    }
  }
});

test('repeat_penalty and DRY count the prompt', () => {
  const prompt = model.tokenize('one two three four one two three four one two three', {
    addSpecial: false,
    parseSpecial: false,
  });
  const first = (sampling: RequestOverrides['sampling'] = {}) => {
    const heard = listen(model, requestFor(prompt, { maxTokens: 1, ignoreEos: true, sampling }));
    drain(model);
    return heard.tokens[0]!;
  };
  // What the penalties are to act on: a token of the prompt that would be said again.
  const again = prompt[prompt.lastIndexOf(prompt.at(-1)!, -2) + 1]!;
  const likely = { logitBias: [{ token: again, bias: 50 }] };
  assert.equal(first(likely), again);
  assert.notEqual(first({ ...likely, repeatPenalty: 100 }), again);
  assert.notEqual(first({ ...likely, dryMultiplier: 100, drySequenceBreakers: [] }), again);
});

test('logit_bias and penalties change a greedy answer; a window larger than the context is fine', () => {
  const plain = ask(model, franceQuestion);
  const biased = ask(model, franceQuestion, {
    sampling: { logitBias: [{ token: plain.tokens[0]!, bias: -100 }] },
  });
  assert.notEqual(biased.tokens[0], plain.tokens[0]);
  const penalised = ask(model, franceQuestion, {
    sampling: { repeatPenalty: 50, repeatLastN: 2 ** 31 - 1 },
  });
  assert.notDeepEqual(penalised.tokens, plain.tokens);
});

test('a grammar decides what can be said', () => {
  const heard = ask(model, franceQuestion, { grammar: { gbnf: 'root ::= "yes" | "no"' } });
  assert.ok(['yes', 'no'].includes(heard.text), heard.text);
  const digits = ask(model, 'What is 3 plus 4?', {
    grammar: { gbnf: 'root ::= [0-9] [0-9] [0-9]' },
    sampling: { temperature: 1, seed: 3, topP: 0.9 },
  });
  assert.match(digits.text, /^\d{3}$/);
});

test('logprobs are a log-softmax: the whole vocabulary sums to one, the choice is among the top', () => {
  const tokens = chatTokens(model, franceQuestion);
  const heard = ask(model, franceQuestion, { topLogprobs: 20 });
  const row = model.forwardLogits(tokens, 0);
  const first = heard.events[0]?.logprobs?.[0];
  assert.ok(first !== undefined);
  const shift = first.logprob - row[first.token]!;
  const total = row.reduce((sum, logit) => sum + Math.exp(logit + shift), 0);
  assert.ok(Math.abs(total - 1) < 1e-3, `sums to ${total}`);
  assert.equal(first.top.length, 20);
  assert.equal(first.top[0]?.token, first.token);
  for (const event of heard.events) {
    for (const entry of event.logprobs ?? []) {
      const values = entry.top.map(({ logprob }) => logprob);
      assert.deepEqual(
        values,
        [...values].sort((a, b) => b - a),
      );
      assert.ok(values.reduce((sum, value) => sum + Math.exp(value), 0) <= 1 + 1e-6);
    }
  }
  const spoken = heard.events.flatMap((event) => event.logprobs ?? []).map((entry) => entry.text);
  assert.equal(spoken.join(''), heard.text);
});

test('a failed decode ends the right sequences with an error and the model goes on', () => {
  let failing: (size: number) => number = () => 0;
  const faulty: Libllama = {
    ...library,
    api: {
      ...library.api,
      llama_decode: (context, batch) => failing(batch.n_tokens) || library.api.llama_decode(context, batch),
    },
  };
  const other = new Engine({ library: faulty });
  const weak = other.load(tinySpec());
  const short = listen(weak, requestFor(chatTokens(weak, franceQuestion)));
  weak.step();
  const long = listen(weak, requestFor(longPrompt(30)));
  // No KV cell for anything longer than one token: rolled back, repeated apart, only the prompt fails.
  failing = (size) => (size > 1 ? 1 : 0);
  drain(weak);
  assert.equal(long.error?.code, 'job_failed');
  assert.equal(short.text, 'The capital of France is Paris.');
  // A fatal failure ends everything that was in the batch.
  failing = () => -3;
  const both = [1, 2].map(() => listen(weak, requestFor(chatTokens(weak, franceQuestion))));
  drain(weak);
  for (const heard of both) assert.equal(heard.error?.code, 'job_failed');
  assertRefused(() => weak.forwardLogits(Int32Array.of(1), 0), 'job_failed');
  failing = () => 0;
  assert.equal(ask(weak, franceQuestion).text, 'The capital of France is Paris.');
  other.close();
});

test('logits that are no numbers fail that request alone', () => {
  let poisoned = -1;
  const faulty: Libllama = {
    ...library,
    api: {
      ...library.api,
      llama_decode(context, batch) {
        const code = library.api.llama_decode(context, batch);
        if (poisoned < 0) return code;
        const address = library.api.llama_get_logits_ith(context, poisoned) as bigint;
        viewFloats(address, 2048).fill(Number.NaN);
        return code;
      },
    },
  };
  const other = new Engine({ library: faulty });
  const weak = other.load(tinySpec());
  for (const temperature of [0, 1]) {
    const heard = [0, 1].map(() =>
      listen(weak, requestFor(chatTokens(weak, franceQuestion), { sampling: { temperature, seed: 1 } })),
    );
    weak.step();
    weak.step();
    poisoned = 1;
    weak.step();
    poisoned = -1;
    drain(weak);
    assert.equal(heard[1]?.error?.code, 'logits_not_finite');
    assert.deepEqual(heard[1]?.error?.detail, logitsHealth(new Float32Array(2048).fill(Number.NaN)));
    assert.equal(heard[0]?.error, null);
    assert.equal(heard[0]?.result?.finishReason, 'stop');
  }
  other.close();
});

test('a sink that throws ends its own request only', () => {
  const good = listen(model, requestFor(chatTokens(model, franceQuestion)));
  let error: AppError | null = null;
  model.submit(requestFor(chatTokens(model, franceQuestion)), {
    onStep: () => {
      throw new Error('reader is gone');
    },
    onDone: () => assert.fail('must not be done'),
    onError: (caught) => {
      error = caught;
    },
  });
  drain(model);
  assert.equal(good.text, 'The capital of France is Paris.');
  assert.equal((error as AppError | null)?.code, 'internal_server_error');
});

test('close() ends what runs and what waits, and is idempotent', () => {
  const own = engine.load(tinySpec({ slots: 1 }));
  const running = listen(own, requestFor(chatTokens(own, franceQuestion)));
  own.step();
  const waiting = listen(own, requestFor(chatTokens(own, franceQuestion)));
  own.close();
  own.close();
  assert.equal(running.error?.code, 'model_not_loaded');
  assert.equal(waiting.error?.code, 'model_not_loaded');
  assert.equal(own.hasWork(), false);
  own.step();
  assertRefused(() => own.tokenize('x', { addSpecial: false, parseSpecial: false }), 'model_not_loaded');
});

test('tokenize and detokenize are inverse, with NUL, emoji and special tokens as text', () => {
  const text = 'héllo \0 wörld 🦊 <|im_start|>\n';
  const plain = model.tokenize(text, { addSpecial: false, parseSpecial: false });
  assert.equal(model.detokenize(plain), text);
  const special = model.tokenize('<|im_start|>', { addSpecial: false, parseSpecial: true });
  assert.equal(special.length, 1);
  assert.equal(model.tokenize('', { addSpecial: false, parseSpecial: false }).length, 0);
  assert.equal(model.detokenize(new Int32Array(0)), '');
  assertRefused(() => model.detokenize(Int32Array.of(-5)), 'invalid_request');
});

/** Text tokens without any special one. */
function longPrompt(length: number): Int32Array {
  return Int32Array.from({ length }, (_, index) => 300 + (index % 700));
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((worst, value, index) => Math.max(worst, Math.abs(value - b[index]!)), 0);
}

function assertRefused(run: () => unknown, code: string, param?: string): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, code, error.message);
    if (param !== undefined) assert.equal(error.param, param, error.message);
    return true;
  });
}
