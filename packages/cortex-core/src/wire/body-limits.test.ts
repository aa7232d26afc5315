import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkBodySize } from './body-size.ts';
import { AppError } from './errors.ts';
import { checkJsonNesting } from './json-scan.ts';
import { completionRequestSchema, parseBody } from './openai.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function faultOf(run: () => unknown): string | null {
  try {
    run();
    return null;
  } catch (thrown) {
    assert.ok(thrown instanceof AppError, String(thrown));
    assert.equal(thrown.code, 'invalid_request');
    return thrown.param ?? '';
  }
}

test('brackets in strings do not count, whatever is escaped around them', () => {
  const strings = [
    '[',
    '{'.repeat(500),
    '\\',
    '"',
    '\\"[',
    '"]'.repeat(300),
    '\u2028[',
    `${'x'.repeat(200)}"[`,
  ];
  const value = { a: strings, b: Object.fromEntries(strings.map((text) => [text, strings])) };
  const scan = () => checkJsonNesting(bytes(JSON.stringify(value)));
  assert.equal(faultOf(scan), null);
});

test('nesting is refused from level 129, with the field it is in', () => {
  const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
  const body = (levels: number): string => `{"model":"m","tools":[1],"x":${nested(levels)}}`;
  assert.equal(
    faultOf(() => checkJsonNesting(bytes(body(127)))),
    null,
  );
  assert.equal(
    faultOf(() => checkJsonNesting(bytes(body(128)))),
    'x',
  );
  assert.equal(
    faultOf(() => checkJsonNesting(bytes(nested(1_000_000)))),
    '',
  );
  assert.equal(
    faultOf(() => checkJsonNesting(bytes(`{"messages":${'{"a":'.repeat(1000)}`))),
    'messages',
  );
});

test('what is cut off anywhere is left to the parser', () => {
  const whole = bytes('{"a\\"[":["b\\\\",{"c":"d"}],"e":[[]]}');
  for (let end = 0; end <= whole.length; end++) checkJsonNesting(whole.subarray(0, end));
});

test('a million lists are too many, a large text is not', () => {
  assert.equal(
    faultOf(() => checkJsonNesting(bytes(`{"m":[${'[],'.repeat(1_000_000)}[]]}`))),
    'm',
  );
  assert.equal(
    faultOf(() => checkJsonNesting(bytes(`{"m":"${'[],'.repeat(1_000_000)}"}`))),
    null,
  );
});

test('the values of a body are counted, token ids are not', () => {
  const many = Array(500_001).fill(1);
  assert.equal(
    faultOf(() => checkBodySize({ prompt: many, tokens: many, input: [many, many] })),
    null,
  );
  assert.equal(
    faultOf(() => checkBodySize({ a: 1, stop: many })),
    'stop',
  );
  assert.equal(
    faultOf(() => checkBodySize({ prompt: Array(500_001).fill('x') })),
    'prompt',
  );
  assert.equal(
    faultOf(() => checkBodySize({ prompt: Array(4_194_305).fill(1) })),
    'prompt',
  );
  const lists = Array.from({ length: 800 }, () => Array(700).fill({}));
  assert.equal(
    faultOf(() => checkBodySize({ messages: lists })),
    'messages',
  );
});

test('a prompt is a text, token ids, or a list of these', () => {
  for (const prompt of ['x', '', ['x', 'y'], [1, 2], [[1], [2, 3]], []]) {
    assert.deepEqual(parseBody(completionRequestSchema, { model: 'm', prompt }).prompt, prompt);
  }
  for (const prompt of [
    null,
    7,
    {},
    [null],
    ['x', 1],
    [1, 'x'],
    [[1], 'x'],
    [1.5],
    [-1],
    [[1], [2, 'x']],
    [2 ** 53],
  ]) {
    const run = () => parseBody(completionRequestSchema, { model: 'm', prompt });
    assert.equal(faultOf(run), 'prompt', JSON.stringify(prompt));
  }
  assert.equal(
    faultOf(() => parseBody(completionRequestSchema, { model: 'm' })),
    'prompt',
  );
});

test('logit_bias is read from both forms, and false rules a token out', () => {
  const read = (logit_bias: unknown) =>
    parseBody(completionRequestSchema, { model: 'm', prompt: 'x', logit_bias }).logit_bias;
  assert.deepEqual(read({ 5: 1.5, 7: -100 }), [
    { token: 5, bias: 1.5 },
    { token: 7, bias: -100 },
  ]);
  assert.deepEqual(
    read([
      [5, 1.5],
      ['7', false],
    ]),
    [
      { token: 5, bias: 1.5 },
      { token: 7, bias: -1e6 },
    ],
  );
  assert.equal(read(null), undefined);
  assert.equal(
    faultOf(() => read({ x: 1 })),
    'logit_bias',
  );
});
