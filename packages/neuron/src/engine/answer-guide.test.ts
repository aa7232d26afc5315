import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { GenerateParams, GrammarSpec, ReasoningSpec } from 'cortex-core/wire/inference';
import { toResponseGrammar } from '../chat/grammar/response-grammar.ts';
import { createAnswerGuide } from './answer-guide.ts';
import { ask, chatTokens, drain, franceQuestion, listen, requestFor, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import { type CompiledGrammar, createGrammarCache } from './grammar/compiled-grammar.ts';
import { toPiece } from './vocabulary.ts';

const engine = new Engine({ nativeLog: false });
const model = engine.load(tinySpec());
after(() => engine.close());

/** Every letter alone, some tokens that cut tags in odd places, and one that ends. */
const pieces = [
  ...Array.from({ length: 128 }, (_, code) => String.fromCharCode(code)),
  '<think>',
  '</think>',
  'k>',
  'k>{',
  'k>\n\n',
  '</thi',
  'nk>{"',
  '\n\n{',
  '          {',
  '\n<think>',
  ' </',
  'hi',
  '<tool',
  '_call>{',
  '_call>x',
  '<|end|>',
];
const eog = pieces.length - 1;
const vocabulary = {
  size: pieces.length,
  eogTokens: [eog],
  isEog: (token: number) => token === eog,
  pieceOf: (token: number) => toPiece(new TextEncoder().encode(pieces[token])),
  tokenize: (text: string) => Int32Array.from(text, (char) => char.charCodeAt(0)),
};
const json: CompiledGrammar = createGrammarCache(vocabulary).compile('root ::= "{" [a-z"]* "}"', 'root');
const call: CompiledGrammar = createGrammarCache(vocabulary).compile(
  'root ::= "<tool_call>{" [a-z]* "}"',
  'root',
);
const think: ReasoningSpec = { isOpen: false, start: '<think>', end: '</think>', budget: null };

interface Setup {
  readonly grammar?: CompiledGrammar | null;
  readonly lazy?: GrammarSpec['lazy'];
  readonly reasoning?: ReasoningSpec | null;
}

/** Feeds tokens, by their text, and says which one was refused; null = none. The mask must say the same. */
function feed(setup: Setup, texts: readonly string[]): { refused: string | null; canEnd: boolean } {
  const { grammar = null, lazy, reasoning = null } = setup;
  const guide = createAnswerGuide({ grammar, lazy, reasoning, vocabulary });
  for (const text of texts) {
    const token = pieces.indexOf(text);
    assert.ok(token >= 0, text);
    const isAllowed = guide.isAllowed(token);
    const { bits } = guide.mask();
    for (let each = 0; each < pieces.length; each++) {
      const inMask = ((bits[each >> 5] as number) >>> (each & 31)) & 1;
      assert.equal(inMask, guide.isAllowed(each) ? 1 : 0, `${JSON.stringify(pieces[each])} before ${text}`);
    }
    if (!isAllowed) return { refused: text, canEnd: false };
    guide.accept(token);
  }
  return { refused: null, canEnd: guide.isAllowed(eog) };
}

function assertFed(setup: Setup, texts: readonly string[], canEnd: boolean): void {
  assert.deepEqual(feed(setup, texts), { refused: null, canEnd }, texts.join('·'));
}

function assertRefusedAt(setup: Setup, texts: readonly string[], refused: string): void {
  assert.equal(feed(setup, texts).refused, refused, texts.join('·'));
}

test('a grammar holds from the first token, and the answer ends only where it does', () => {
  assertFed({ grammar: json }, ['{', 'a', '}'], true);
  assertFed({ grammar: json }, ['{', 'a'], false);
  assertRefusedAt({ grammar: json }, [' ', '{'], ' ');
  assertRefusedAt({ grammar: json }, ['{', '}', 'a'], 'a');
});

test('a lazy grammar lets anything pass until its trigger, however tokens cut it', () => {
  const lazy = { triggers: ['<tool_call>'] } as const;
  const setup = { grammar: call, lazy };
  assertFed(setup, ['H', 'i', '{', '}'], true);
  assertFed(setup, ['a', '<tool', '_call>{', 'x', '}'], true);
  assertFed(setup, ['a', '<tool', '_call>{', 'x'], false);
  assertFed(setup, [...'<tool_call>', '{', '}'], true);
  assertFed(setup, [...'<tool_cal>'], true);
  assertRefusedAt(setup, ['<tool', '_call>x'], '_call>x');
  assertRefusedAt(setup, ['<tool', '_call>{', '}', 'a'], 'a');
});

test('with reasoning the grammar begins after the block, whether the block comes or not', () => {
  const closed = { grammar: json, reasoning: think };
  assertFed(closed, ['{', 'a', '}'], true);
  assertFed(closed, ['\n', '{', 'a', '}'], true);
  assertFed(closed, ['<think>', 'a', '}', '</think>', '{', 'a', '}'], true);
  assertFed(closed, ['\n', '<', 't', 'h', 'i', 'n', 'k>', 'x', '</think>', '\n', '\n', '{', '}'], true);
  assertFed(closed, ['<think>', 'a', '</think>'], false);
  assertRefusedAt(closed, ['a'], 'a');
  assertRefusedAt(closed, ['<', 'x'], 'x');
  assertRefusedAt(closed, ['<think>', 'a', '<|end|>'], '<|end|>');
  assertRefusedAt(closed, ['<think>', '</think>', 'a'], 'a');
  assertRefusedAt(closed, ['<think>', '</think>', ...'\n\n\n\n\n\n\n\n', '\n'], '\n');
  const open = { grammar: json, reasoning: { ...think, isOpen: true } };
  assertFed(open, ['{', 'x', '</think>', '{', '}'], true);
  assertFed(open, ['x', '</thi', 'nk>{"', '"', '}'], true);
  assertFed(open, [...'</thin', 'k>\n\n', '{', '}'], true);
});

test('triggers inside the reasoning start nothing, those after it do', () => {
  const lazy = { triggers: ['<tool_call>'] } as const;
  const setup = { grammar: call, lazy, reasoning: { ...think, isOpen: true } };
  assertFed(setup, ['<tool', '_call>x', '</think>', 'o', 'k'], true);
  assertFed(setup, ['x', '</think>', '\n', '<tool', '_call>{', 'a', '}'], true);
  assertRefusedAt(setup, ['x', '</think>', '<tool', '_call>x'], '_call>x');
});

test("a call inside the block ends it, and is the grammar's from its first byte", () => {
  const reasoning = { ...think, isOpen: true, endsAt: ['<tool_call>'] };
  const lazy = { triggers: ['<tool_call>'] } as const;
  for (const setup of [
    { grammar: call, reasoning },
    { grammar: call, lazy, reasoning },
  ]) {
    assertFed(setup, ['x', '<tool', '_call>{', 'a', '}'], true);
    assertFed(setup, [...'<tool_call>', '{', '}'], true);
    assertFed(setup, ['x', '</think>', '\n', '<tool', '_call>{', 'a', '}'], true);
    assertFed(setup, ['<tool', '<', '/', 't', 'h', 'i', 'n', 'k>', '\n', '<tool', '_call>{', '}'], true);
    assertRefusedAt(setup, ['x', '<tool', '_call>x'], '_call>x');
    assertRefusedAt(setup, ['x', '<tool', '_call>{', '}', '</think>'], '</think>');
  }
});

test('before its text a grammar is asked for what it may begin with, not for the whole vocabulary', () => {
  let asked = 0;
  const counting = {
    ...vocabulary,
    pieceOf(token: number) {
      asked++;
      return vocabulary.pieceOf(token);
    },
  };
  const grammar = createGrammarCache(counting).compile('root ::= "{" [a-z"]* "}"', 'root');
  const maskAfter = (texts: readonly string[]): number => {
    const guide = createAnswerGuide({ grammar, lazy: undefined, reasoning: think, vocabulary: counting });
    for (const text of texts) guide.accept(pieces.indexOf(text));
    asked = 0;
    guide.mask();
    return asked;
  };
  const before = [[], ['\n'], ['<', 't'], ['<think>', '</think>'], ['<think>', '</think>', ' ']];
  for (const texts of before) assert.ok(maskAfter(texts) < 12, `${texts}: ${asked} of ${pieces.length}`);
  for (const texts of before) assert.equal(maskAfter(texts), 0, 'kept from the first time');
});

test('a spent budget forces the end, but lets one that has begun be finished', () => {
  const forcedAfter = (texts: readonly string[], budget: number): string => {
    const reasoning = { ...think, isOpen: true, budget };
    const guide = createAnswerGuide({ grammar: null, lazy: undefined, reasoning, vocabulary });
    for (const text of texts) {
      assert.equal(guide.forced(), null, text);
      guide.accept(pieces.indexOf(text));
    }
    let forced = '';
    for (let token = guide.forced(); token !== null; token = guide.forced()) {
      forced += pieces[token];
      assert.ok(forced.length < 100, `it goes on for ever: ${forced}`);
      guide.accept(token);
    }
    return forced;
  };
  assert.equal(forcedAfter([], 0), '</think>');
  assert.equal(forcedAfter(['a', 'b'], 2), '</think>');
  assert.equal(forcedAfter(['a'], 2), '');
  assert.equal(forcedAfter(['a', '</think>', 'b', 'c', 'd'], 2), '');
  assert.equal(forcedAfter(['a', '</thi', 'n', 'k>'], 2), '');
  assert.equal(forcedAfter(['a', '</thi', 'n', 'x'], 2), '</think>');
});

test('a model gets its reasoning closed at the budget, and then answers by the grammar', () => {
  const grammar = { gbnf: 'root ::= "yes" | "no"' };
  const reasoning = { isOpen: true, start: '<think>', end: '</think>', budget: 5 };
  const forced = ask(model, franceQuestion, { grammar, reasoning, sampling: { temperature: 0.8, seed: 1 } });
  assert.equal(forced.error, null);
  assert.match(forced.text, /^[\s\S]*<\/think>\s*(yes|no)$/);
  const plain = ask(model, franceQuestion, { reasoning });
  const five = ask(model, franceQuestion).tokens.slice(0, 5);
  assert.deepEqual(plain.tokens.slice(0, 5), five);
  assert.ok(plain.text.startsWith(`${model.detokenize(Int32Array.from(five))}</think>`), plain.text);
});

test('a model that would stop inside its reasoning closes it and gives what the grammar asks for', () => {
  const grammar = { gbnf: 'root ::= "yes" | "no"' };
  const reasoning = { isOpen: true, start: '<think>', end: '</think>', budget: null };
  const heard = ask(model, franceQuestion, { grammar, reasoning });
  assert.match(heard.text, /^The capital of France is Paris\.<\/think>\s*(yes|no)$/);
});

test('a model speaks freely up to the trigger, which may begin inside a token, and then by the grammar', () => {
  const lazy = { triggers: ['pital'] } as const;
  const grammar = { gbnf: 'root ::= "pital" " city" "!"', lazy };
  assert.equal(ask(model, franceQuestion).text, 'The capital of France is Paris.');
  assert.equal(ask(model, franceQuestion, { grammar }).text, 'The capital city!');
});

test('a grammar without a way on fails its own request with job_failed, beside others that go on', () => {
  // No piece of the vocabulary begins with a byte that UTF-8 never has after this letter.
  const grammar = { gbnf: 'root ::= "a" <[0]> "b"' };
  const good = listen(model, requestFor(chatTokens(model, franceQuestion)));
  const bad = listen(model, requestFor(chatTokens(model, franceQuestion), { grammar, ignoreEos: true }));
  drain(model);
  assert.equal(bad.error?.code, 'job_failed');
  assert.match(bad.error?.message ?? '', /grammar allows none/);
  assert.equal(good.text, 'The capital of France is Paris.');
});

test('every sampler works on what a grammar leaves', () => {
  const grammar = { gbnf: 'root ::= "[" [0-9]{1,3} ("," " "? [0-9]{1,3}){2,9} "]"' };
  const sampling = {
    temperature: 1.3,
    topK: 30,
    topP: 0.9,
    minP: 0.02,
    typicalP: 0.95,
    topNSigma: 2,
    xtcProbability: 0.5,
    xtcThreshold: 0.05,
    repeatPenalty: 1.2,
    frequencyPenalty: 0.4,
    presencePenalty: 0.3,
    dryMultiplier: 0.8,
    logitBias: [{ token: 5, bias: 3 }],
  };
  for (let seed = 0; seed < 20; seed++) {
    const heard = ask(model, 'Count.', { grammar, sampling: { ...sampling, seed } });
    assert.match(heard.text, /^\[\d{1,3}(, ?\d{1,3}){2,9}\]$/, `seed ${seed}`);
  }
});

test('the same seed gives the same answer, whether the grammar is new or has run before', () => {
  const grammar = toResponseGrammar({ type: 'json_object' });
  const over = { grammar, sampling: { temperature: 1.2, seed: 9 }, maxTokens: 40 } as const;
  const first = ask(model, 'Write JSON.', over);
  assert.ok(first.tokens.length > 0);
  assert.deepEqual(ask(model, 'Write JSON.', over).tokens, first.tokens);
});

test('triggers, tags and budgets that cannot work are refused by name', () => {
  const grammar = { gbnf: 'root ::= "a"' };
  const cases: readonly (readonly [Partial<GenerateParams>, string])[] = [
    [{ grammar: { ...grammar, lazy: { triggers: [] } } }, 'grammar'],
    [{ grammar: { ...grammar, lazy: { triggers: [''] } } }, 'grammar'],
    [{ reasoning: { ...think, start: '' } }, 'reasoning'],
    [{ reasoning: { ...think, end: '' } }, 'reasoning'],
    [{ reasoning: { ...think, budget: -1 } }, 'reasoning_budget'],
    [{ reasoning: { ...think, endsAt: [''] } }, 'reasoning'],
  ];
  for (const [over, param] of cases) {
    const params = { ...requestFor(chatTokens(model, franceQuestion)), ...over };
    assert.throws(
      () => listen(model, params),
      (error: { code: string; param: string }) => error.code === 'invalid_request' && error.param === param,
      JSON.stringify(over),
    );
  }
});
