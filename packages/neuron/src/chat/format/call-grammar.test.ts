import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { ask, tinySpec } from '../../engine/engine.test.kit.ts';
import { Engine } from '../../engine/engine.ts';
import { loadLibrary } from '../../libllama/load-library.ts';
import { type CallGrammarOptions, toCallGrammar } from './call-grammar.ts';
import { samples } from './families.test.kit.ts';
import { collect, formatOf, parseEvents } from './format.test.kit.ts';
import type { OfferedTool } from './offered-tools.ts';

const engine = new Engine({ library: loadLibrary({ nativeLog: false }) });
const model = engine.load(tinySpec());
after(() => engine.close());

/** Short by their schemas, so that a small model that may say anything comes to an end. */
const tools: readonly OfferedTool[] = [
  {
    name: 'lookup_tide',
    parameters: {
      type: 'object',
      properties: {
        harbour: { enum: ['Kiel', 'Brest "Port"', 'Ålesund'] },
        days: { type: 'integer', minimum: 1, maximum: 9 },
        exact: { type: 'boolean' },
        marks: { type: 'array', items: { $ref: '#/$defs/mark' }, maxItems: 2 },
      },
      required: ['harbour', 'days'],
      additionalProperties: false,
      $defs: { mark: { type: 'number', enum: [1, 2.5] } },
    },
  },
  { name: 'ring_bell', parameters: { type: 'object', properties: {}, additionalProperties: false } },
];

function checkArguments(name: string, text: string, where: string): void {
  const given = JSON.parse(text) as Record<string, unknown>;
  const { harbour, days, exact = true, marks = [], ...others } = given;
  assert.deepEqual(others, {}, where);
  if (name === 'ring_bell') {
    assert.deepEqual(given, {}, where);
    return;
  }
  assert.ok(['Kiel', 'Brest "Port"', 'Ålesund'].includes(harbour as string), where);
  assert.ok(Number.isInteger(days) && typeof exact === 'boolean', where);
  // Gemma's lists may hold anything.
  assert.ok(Array.isArray(marks), where);
}

/** The model knows none of the formats: that it writes them is the grammar's doing. */
function draw(template: string, options: CallGrammarOptions, seed: number) {
  const format = formatOf(template);
  const grammar = toCallGrammar(format, tools, options);
  assert.ok(grammar !== null);
  const { lazy: _, ...whole } = grammar;
  const heard = ask(model, 'Look up the tide, then ring the bell.', {
    grammar: whole,
    maxTokens: 400,
    sampling: { temperature: 1.5, seed },
  });
  assert.equal(heard.error, null, format.name);
  const parallel = options.parallel;
  return { heard, turn: collect(parseEvents(format, heard.text, { tools, parallel })) };
}

for (const { family, template } of samples) {
  describe(family, () => {
    it(`${family}: forced call`, () => {
      for (const seed of [1, 2, 3]) {
        const { heard, turn } = draw(template, { choice: 'required', parallel: false }, seed);
        const where = `${family}, seed ${seed}: ${heard.text}`;
        if (heard.result?.finishReason === 'length') continue;
        assert.deepEqual([turn.content, turn.reasoning, turn.calls.length], ['', '', 1], where);
        const [{ name, arguments: given }] = turn.calls as [(typeof turn.calls)[0]];
        checkArguments(name, given, where);
      }
      const named = draw(template, { choice: { name: 'ring_bell' }, parallel: false }, 1);
      assert.deepEqual(
        named.turn.calls.map(({ name, arguments: given }) => [name, JSON.parse(given)]),
        [['ring_bell', {}]],
        named.heard.text,
      );
      const many = draw(template, { choice: 'required', parallel: true }, 2);
      const isWhole = many.heard.result?.finishReason === 'stop';
      if (isWhole) assert.equal(many.turn.content, '', many.heard.text);
      for (const { name, arguments: given, isEnded } of many.turn.calls.slice(0, isWhole ? undefined : -1)) {
        assert.equal(isEnded, true);
        checkArguments(name, given, many.heard.text);
      }
      // For auto the grammar wakes where these calls begin, or, when that is plain text, there is none.
      const auto = toCallGrammar(formatOf(template), tools, { choice: 'auto', parallel: true });
      const wakes = auto?.lazy?.triggers.some(
        (trigger) => trigger.kind === 'text' && named.heard.text.includes(trigger.text),
      );
      assert.ok(auto === null || wakes, named.heard.text);
    });
  });
}

describe('toCallGrammar()', () => {
  const format = formatOf('{{ tools }}<tool_call>');

  it('refuses a tool that was not offered, and a call without tools', () => {
    for (const [given, choice] of [
      [tools, { name: 'sell_boat' }],
      [[], 'required'],
    ] as const) {
      assert.throws(
        () => toCallGrammar(format, given, { choice, parallel: true }),
        (error: AppError) => error instanceof AppError && error.param === 'tool_choice',
      );
    }
  });

  it('refuses what a strict tool asks for in vain, by keyword, and widens it for others', () => {
    const parameters = { type: 'object', properties: { x: { not: { type: 'string' } } } };
    const tool = { name: 'f', parameters };
    assert.ok(toCallGrammar(format, [tool], { choice: 'required', parallel: false }));
    assert.throws(
      () => toCallGrammar(format, [{ ...tool, strict: true }], { choice: 'auto', parallel: false }),
      (error: AppError) => error.param === 'tools.0.function.parameters.properties.x.not',
    );
  });
});
